"""Opens a slide with the reader that its file needs."""

from __future__ import annotations

from pathlib import Path

from bundle.cases.dicom.series import DicomSeries
from bundle.cases.errors import CaseError
from bundle.cases.files import read_head
from bundle.cases.modality_settings import LEAST_MPP, MOST_MPP
from bundle.cases.slides.dicom import DicomPyramid
from bundle.cases.slides.pyramids import open_pyramid
from bundle.cases.slides.slide import Pyramid, Slide, slide_errors


def open_slide(path: Path, mpp: float | None = None, series: DicomSeries | None = None) -> Slide:
    """Open a slide.

    Args:
        path: the file; of DICOM the folder of the files, or the one file.
        mpp: micrometres per pixel of level 0, whatever the file states; None for what it states.
        series: the levels' files, of DICOM.

    Raises:
        CaseError: the file cannot be read as a slide, is not tiled, or nothing says what its resolution is.
    """
    pyramid: Pyramid
    with slide_errors(path):
        if series is None:
            read_head(path)
            pyramid = open_pyramid(path)
        else:
            pyramid = DicomPyramid(series)
    try:
        if mpp is not None:
            return Slide(path, pyramid, (mpp, mpp), "option")
        if pyramid.mpp is None:
            raise CaseError(path, "does not say how many micrometres a pixel has", "give slide_mpp")
        if not all(LEAST_MPP <= one <= MOST_MPP for one in pyramid.mpp):
            stated = " x ".join(f"{one:g}" for one in pyramid.mpp)
            problem = f"states {stated} micrometres per pixel, which no slide scanner has"
            raise CaseError(path, problem, "give slide_mpp")
        return Slide(path, pyramid, pyramid.mpp, "file")
    except CaseError:
        pyramid.close()
        raise
