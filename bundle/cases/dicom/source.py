"""What results need of the DICOM series that a case came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom


@dataclass(frozen=True)
class DicomSource:
    """The files behind a case, which references in results point to.

    It is the `header` of a case that came as DICOM. A volume's array is (1, columns, rows, slices): slice z of it is
    the pixel array of file z, rows and columns exchanged, or frame z of the one file of an enhanced multi-frame
    image. A picture's array is (1, rows, columns) of the one file.

    Attributes:
        files: in the order of the array's slices; a single one for pictures and multi-frame images. Of enhanced images
            in several files, the file of each slice.
        frames: of a multi-frame image, the number of each slice's frame in its file, from 1; empty otherwise.
        study_uid, series_uid: StudyInstanceUID and SeriesInstanceUID, made up where the files have none.
        repaired: file -> keyword -> value of what was empty or absent and was filled in.
        resampled: whether slices were interpolated to even spacing: then slice z is not that of file z, and results
            on the array's grid cannot refer to single files by position.
    """

    files: tuple[Path, ...]
    study_uid: str
    series_uid: str
    frames: tuple[int, ...] = ()
    repaired: Mapping[Path, Mapping[str, str]] = field(default_factory=dict)
    resampled: bool = False

    def datasets(self) -> list[pydicom.Dataset]:
        """The header of each file, without pixels, with what was filled in."""
        headers = []
        for path in self.files:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            for keyword, value in self.repaired.get(path, {}).items():
                setattr(header, keyword, value)
            headers.append(header)
        return headers

    def summary(self) -> dict[str, Any]:
        """What identifies the series in a report; nothing of the patient, so no description, which is typed by hand."""
        return {
            "study_instance_uid": self.study_uid,
            "series_instance_uid": self.series_uid,
            "slices": len(self.frames) or len(self.files),
            "identifiers_filled_in": sorted(
                {keyword for values in self.repaired.values() for keyword in values}
            ),
            "resampled": self.resampled,
        }
