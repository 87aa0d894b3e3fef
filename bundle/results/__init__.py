"""Patient data out: masks, probabilities and uncertainties on the input's own grid, a preview, a report."""

from typing import TYPE_CHECKING, Any

from bundle.results.files.geojson import GeoJsonResults
from bundle.results.files.slides import write_slide
from bundle.results.page import write_index
from bundle.results.prediction import Prediction
from bundle.results.writer import write_prediction

if TYPE_CHECKING:
    from bundle.results.dicom.results import DicomResults

__all__ = ["DicomResults", "GeoJsonResults", "Prediction", "write_index", "write_prediction", "write_slide"]


def __getattr__(name: str) -> Any:
    """What writes DICOM is loaded when it is asked for: its libraries need pydicom 3, and MONAI Label runs with 2."""
    if name == "DicomResults":
        from bundle.results.dicom.results import DicomResults

        return DicomResults
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
