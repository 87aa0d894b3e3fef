"""DICOM whole-slide images (VL Whole Slide Microscopy, PS3.3 A.32.8), a file a level, by OpenSlide 4."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom

from bundle.cases.dicom.headers import numbers, quiet, text, texts
from bundle.cases.dicom.series import DicomSeries
from bundle.cases.errors import CaseError
from bundle.cases.slides.pyramids import OpenSlidePyramid

_KEYWORDS = (
    "ImageType",
    "SamplesPerPixel",
    "BitsAllocated",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "DimensionOrganizationType",
    "TotalPixelMatrixColumns",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixFocalPlanes",
    "NumberOfOpticalPaths",
    "ConcatenationUID",
)
_EXPORT = "export it as tiled TIFF"


class DicomPyramid(OpenSlidePyramid):
    """Levels of one series; see `Pyramid`.

    OpenSlide takes for a slide's levels what it finds of the series in the folder of the file that it is given, and
    passes over what it cannot use. So it is given a folder of links to the files of the series, wherever they lie,
    and each must be a level afterwards: a slide whose finest level is broken would be a coarser one otherwise.

    Attributes:
        notes: what a reader of the report should know.

    Raises:
        CaseError: a file of it is no level that can be read.
        Exception: OpenSlide raises its own kinds for files that are broken.
    """

    def __init__(self, series: DicomSeries) -> None:
        import openslide

        files = _distinct(series)
        headers = {path: _header(path) for path in files.values()}
        self.notes = _notes(headers)
        self._folder = tempfile.TemporaryDirectory(prefix="slide-")
        try:
            links = [Path(self._folder.name, f"{number}.dcm") for number in range(len(files))]
            for link, path in zip(links, headers, strict=True):
                link.symlink_to(os.path.abspath(path))
            if openslide.OpenSlide.detect_format(str(links[0])) != "dicom":
                problem = "is a DICOM whole-slide image of a form that OpenSlide does not know"
                raise CaseError(series.place, problem, _EXPORT)
            super().__init__(links[0], "DICOM")
            self._check_levels(headers)
        except BaseException:
            self._folder.cleanup()
            raise

    def _check_levels(self, headers: Mapping[Path, Any]) -> None:
        missing = list(self.sizes)
        wide, high = self.sizes[0]
        for path, size in ((path, _size(header)) for path, header in headers.items()):
            if abs(size[0] * high / (size[1] * wide) - 1.0) >= 2.0 / min(size):
                self._slide.close()
                raise CaseError(
                    path, "is a level of another shape than the slide", "remove it from the series"
                )
        for path, header in headers.items():
            size = _size(header)
            if size not in missing:
                self._slide.close()
                raise CaseError(
                    path, "cannot be read as a level of its slide", f"copy it again, or {_EXPORT}"
                )
            missing.remove(size)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def _distinct(series: DicomSeries) -> dict[str, Path]:
    """SOPInstanceUID -> file, of copies the first.

    Raises:
        CaseError: two files of one UID are not of one size.
    """
    files: dict[str, Path] = {}
    for path, instance in zip(series.files, series.instances, strict=True):
        known = files.setdefault(instance, path)
        if known.stat().st_size != path.stat().st_size:
            raise CaseError(path, f"has the UID of {known.name}, but is not the same", "remove one of them")
    return files


def _header(path: Path) -> Any:
    """The attributes of a level that decide whether it can be read.

    Raises:
        CaseError: it cannot.
    """
    with quiet():
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_KEYWORDS))
    if numbers(header, "SamplesPerPixel", 1) != [3.0] or numbers(header, "BitsAllocated", 1) != [8.0]:
        raise CaseError(path, "is not a slide in colour of 8 bits a channel", "export it as RGB")
    for keyword, what in (
        ("TotalPixelMatrixFocalPlanes", "focal planes"),
        ("NumberOfOpticalPaths", "stains"),
    ):
        if (numbers(header, keyword, 1) or [1.0]) != [1.0]:
            raise CaseError(path, f"is a slide of several {what}", "export one of them")
    if text(header, "ConcatenationUID"):
        raise CaseError(path, "is a part of a level that is split over files", "join them, or " + _EXPORT)
    if min(_size(header)) < 1:
        raise CaseError(path, "does not say how large its level is", _EXPORT)
    _check_tiles(path, header)
    return header


def _check_tiles(path: Path, header: Any) -> None:
    """Refuse a level whose size is not that of its tiles: TILED_FULL places them by it, PS3.3 C.7.6.17.3."""
    edges = [int((numbers(header, keyword, 1) or [0.0])[0]) for keyword in ("Columns", "Rows")]
    if min(edges) < 1:
        raise CaseError(path, "does not say how large its tiles are", _EXPORT)
    across, down = (-(-length // edge) for length, edge in zip(_size(header), edges, strict=True))
    count = int((numbers(header, "NumberOfFrames", 1) or [1.0])[0])
    sparse = text(header, "DimensionOrganizationType").upper() == "TILED_SPARSE"
    if count > across * down or (count < across * down and not sparse):
        problem = f"has {count} tiles, but is of a size for {across * down}"
        raise CaseError(path, problem, f"copy it again, or {_EXPORT}")


def _size(header: Any) -> tuple[int, int]:
    """Width and height of a level in pixels; 0 where it does not say."""
    wide, high = (numbers(header, f"TotalPixelMatrix{edge}", 1) or [0.0] for edge in ("Columns", "Rows"))
    return int(wide[0]), int(high[0])


def _notes(headers: Mapping[Path, Any]) -> list[str]:
    """A warning where the finest level says that it was made from a finer one (value 4 of Image Type)."""
    finest = max(headers.values(), key=lambda header: _size(header)[0])
    if [kind.upper() for kind in texts(finest, "ImageType")[3:4]] == ["RESAMPLED"]:
        return [
            "The slide's files do not hold its full resolution: the finest of them was made from a finer one."
        ]
    return []
