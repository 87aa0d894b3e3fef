"""The network at work beside a PACS: series come in by DICOMweb or C-STORE, SEG and SR go back.

exchange    what a node receives from and delivers to
dicomweb    a DICOMweb server as both
spool       what was sent by C-STORE, on disk, until it is segmented
listener    the C-STORE receiver that fills it
forward     results by C-STORE to another application entity
segmenter   one series through the network
outbox      results that wait to be delivered
journal     what became of each series
settling    whether a study has arrived
retries     when what a server did not do is tried again
node        the loop that leads a series through all of these
commands    `python -m bundle pacs`, whose options are in pacs_options

And the network behind MONAI Label, see scripts/serve_monai_label.sh:
label_server     what uvicorn serves: MONAI Label's application behind label_guard
label_app        the bundle as its application, with label_tasks and label_datastore
label_requests   what a request may say
label_regions    regions of slides, and the polygons that they are answered with
"""
