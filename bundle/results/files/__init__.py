"""Results as files: NIfTI and PNG masks and maps, GeoJSON polygons, pyramid TIFF of slides."""
