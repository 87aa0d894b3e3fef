"""Patient data out: masks, probabilities and uncertainties on the input's own grid, a preview, a report."""

from bundle.results.dicom_results import DicomResults
from bundle.results.geojson import GeoJsonResults
from bundle.results.page import write_index
from bundle.results.prediction import Prediction
from bundle.results.slides import write_slide
from bundle.results.writer import write_prediction

__all__ = ["DicomResults", "GeoJsonResults", "Prediction", "write_index", "write_prediction", "write_slide"]
