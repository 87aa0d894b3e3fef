"""The network behind MONAI Label, see scripts/serve_monai_label.sh.

server     what uvicorn serves: MONAI Label's application behind `guard`
app        the bundle as its application, with `tasks` and `datastore`
requests   what a request may say
regions    regions of slides, and the polygons that they are answered with
"""
