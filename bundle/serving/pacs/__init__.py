"""The network at work beside a PACS: series come in by DICOMweb or C-STORE, SEG and SR go back.

exchange          what a node receives from and delivers to
dicomweb          a DICOMweb server as both
spool             what was sent by C-STORE, on disk, until it is segmented
listener          the C-STORE receiver that fills it
forward           results by C-STORE to another application entity
segmenter         one series through the network
outbox            results that wait to be delivered
journal           what became of each series
study_completion  whether a study has arrived
retries           when what a server did not do is tried again
node              the loop that leads a series through all of these
"""
