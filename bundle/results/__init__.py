"""Patient data out: masks, probabilities and uncertainties on the input's own grid, a preview, a report."""

from bundle.results.dicom_results import DicomResults
from bundle.results.page import write_index
from bundle.results.prediction import Prediction
from bundle.results.writer import write_prediction

__all__ = ["DicomResults", "Prediction", "write_index", "write_prediction"]
