"""The files of a case's folder, each declared once, and what a further writer of such files is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bundle.results.prediction import Prediction


@dataclass(frozen=True)
class ResultFile:
    """A file that may be in a case's folder.

    Attributes:
        name: of the file.
        kind: what it holds, for the case's page.
        label: its link in the run's table; empty for the parts of the page itself.
    """

    name: str
    kind: str = ""
    label: str = ""


@dataclass(frozen=True)
class ReportAdditions:
    """What a further writer adds to the report.

    Attributes:
        entries: keys and values of report.json.
        warnings: what its reader should know.
    """

    entries: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


class ResultWriter(Protocol):
    """Writes further files of a case: DICOM objects, GeoJSON."""

    @property
    def files(self) -> Sequence[ResultFile]:
        """Those that it may write."""

    def __call__(self, prediction: Prediction, folder: Path) -> ReportAdditions | None:
        """Write to `folder`, before the folder takes its final name; may have something to add to the report."""


_PROBABILITY, _UNCERTAINTY = "probability, 8 bit, scaled to [0, 1]", "uncertainty, 8 bit, scaled to [0, 1]"
VOLUME_FILES = (
    ResultFile("mask.nii.gz", "label values", "mask"),
    ResultFile("probability.nii.gz", _PROBABILITY, "probability"),
    ResultFile("uncertainty.nii.gz", _UNCERTAINTY, "uncertainty"),
)
IMAGE_FILES = (
    ResultFile("mask.png", "label values", "mask"),
    ResultFile("probability.png", _PROBABILITY, "probability"),
    ResultFile("uncertainty.png", _UNCERTAINTY, "uncertainty"),
    ResultFile("instances.tif", "number of each cell", "instances"),
)
SLIDE_FILES = (ResultFile("mask.tif", "label values, pyramid TIFF", "mask.tif"), *IMAGE_FILES[1:3])
GEOJSON_FILES = (ResultFile("mask.geojson", "polygons for QuPath", "mask.geojson"),)
DICOM_FILES = (
    ResultFile("seg.dcm", "DICOM segmentation", "seg.dcm"),
    ResultFile("sr.dcm", "DICOM measurement report", "sr.dcm"),
    ResultFile("rtstruct.dcm", "DICOM RT structure set", "rtstruct.dcm"),
    ResultFile("probability.dcm", "DICOM probabilities", "probability.dcm"),
)
PAGE, THUMBNAIL, VIEWER_DATA = "index.html", "thumbnail.jpg", "viewer.js"
_CASE_FILES = (
    ResultFile("preview.png", "image to send around", "preview"),
    ResultFile("report.json", "all numbers of this page", "report"),
    *(ResultFile(name) for name in (PAGE, THUMBNAIL, VIEWER_DATA)),
)


def known_files(writers: Sequence[ResultWriter] = ()) -> dict[str, ResultFile]:
    """Name -> file, of all that the bundle may write to a case's folder, whatever options a run has, and `writers`."""
    own = (*VOLUME_FILES, *IMAGE_FILES, *SLIDE_FILES, *GEOJSON_FILES, *DICOM_FILES, *_CASE_FILES)
    return {file.name: file for file in (*own, *(file for writer in writers for file in writer.files))}
