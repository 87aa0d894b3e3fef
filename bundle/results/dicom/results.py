"""SEG, SR, contours and probabilities of a case that came as DICOM, written beside its other results."""

from __future__ import annotations

import io
import logging
import secrets
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pydicom
from dicognito.anonymizer import Anonymizer
from pydicom.dataset import Dataset, FileMetaDataset

import bundle
from bundle.cases.dicom import DicomSource
from bundle.cases.dicom.headers import quiet
from bundle.networks.weights import file_sha256
from bundle.results.dicom.rtstruct import make_structure_set
from bundle.results.dicom.seg import (
    PROBABILITY_FORMS,
    SEGMENTATION_TYPES,
    ProbabilityForm,
    SegmentationType,
    make_fractional,
    make_parametric_map,
    make_segmentation,
    segments_of,
)
from bundle.results.dicom.source import Algorithm, NoDicomResult, SourceImages, source_images
from bundle.results.dicom.sr import make_report
from bundle.results.prediction import Prediction
from bundle.results.result_files import DICOM_FILES, ReportAdditions


class DicomResults:
    """A `ResultWriter` of seg.dcm, sr.dcm, rtstruct.dcm and probability.dcm.

    The same series, weights, settings and mask give the same SOP Instance UIDs and, but for the time of making, the
    same bytes, so that storing a result a second time makes no second object. Where an object cannot be made, the
    report has a sentence about it and the other results stand.

    Args:
        seg: 'auto' to write them for DICOM input, True to say so where the input is not DICOM, False for none.
        seg_type: BINARY or LABELMAP.
        sr: write the measurement report.
        rtstruct: write the structures' contours as an RT structure set.
        probability: none, fractional or parametric_map.
        weights: file, for its sha256.
        identifiers: 'replace' writes objects, and UIDs in the report, with other names, numbers, dates and UIDs, the
            same for the same ones; anything else writes those of the source.
        replacement_seed: secret that decides on what they are replaced by; None draws one.

    Raises:
        ValueError: an option that is not one of these.
    """

    files = DICOM_FILES

    def __init__(
        self,
        seg: Literal["auto"] | bool = "auto",
        seg_type: SegmentationType = "BINARY",
        sr: bool = True,
        rtstruct: bool = False,
        probability: ProbabilityForm = "none",
        weights: Path | str | None = None,
        identifiers: Literal["hide", "keep", "replace"] = "hide",
        replacement_seed: str | None = None,
    ) -> None:
        _check("dicom_seg", seg, ("auto", True, False))
        _check("seg_type", seg_type, SEGMENTATION_TYPES)
        _check("probability_dicom", probability, PROBABILITY_FORMS)
        self.seg = seg
        self.seg_type = seg_type
        self.sr = sr
        self.rtstruct = rtstruct
        self.probability = probability
        self.weights_sha256 = "" if weights is None else file_sha256(weights)
        self.replacement_seed: str | None = None
        if identifiers == "replace":
            self.replacement_seed = secrets.token_hex() if replacement_seed is None else str(replacement_seed)

    def __call__(self, prediction: Prediction, folder: Path, request: str = "") -> ReportAdditions | None:
        """Write what was asked for to `folder`; returns what the report says of it under 'dicom'.

        Args:
            request: see `Algorithm`; empty for UIDs that follow from the mask.
        """
        is_dicom = isinstance(prediction.case.header, DicomSource)
        more: dict[str, Any] = {}
        if is_dicom and self.replacement_seed is not None:
            more = {"source_series": self._replaced_series(prediction.case.header)}
        if self.seg is False or (self.seg == "auto" and not is_dicom):
            return ReportAdditions(more)
        entries: dict[str, Any] = {}
        noted: list[str] = []
        with quiet(), _noting(noted, "DICOM objects"):
            source = source_images(prediction)
            algorithm = Algorithm(bundle.__version__, self.weights_sha256, prediction.settings, request)
            self._write(prediction, source, algorithm, folder, entries, noted)
        return ReportAdditions({**more, **({"dicom": entries} if entries else {})}, noted)

    def _write(
        self,
        prediction: Prediction,
        source: SourceImages,
        algorithm: Algorithm,
        folder: Path,
        entries: dict[str, Any],
        noted: list[str],
    ) -> None:
        with _noting(noted, "DICOM segmentation and report"):
            segmentation = make_segmentation(prediction, source, algorithm, self.seg_type)
            segments = segments_of(prediction, source, algorithm)
            try:
                # before the segmentation is saved, perhaps with other identifiers
                report = make_report(prediction, source, algorithm, segmentation) if self.sr else None
            finally:
                entries["seg"] = {
                    **self._saved(segmentation, folder / "seg.dcm"),
                    "type": self.seg_type,
                    "segments": {segment.name: segment.number for segment in segments},
                }
            if report is not None:
                entries["sr"] = self._saved(report, folder / "sr.dcm")
        if self.rtstruct:
            with _noting(noted, "RT structure set"):
                contours = make_structure_set(prediction, source, algorithm)
                entries["rtstruct"] = self._saved(contours, folder / "rtstruct.dcm")
        make: Callable[[Prediction, SourceImages, Algorithm], Dataset] | None = {
            "fractional": make_fractional,
            "parametric_map": make_parametric_map,
        }.get(self.probability)
        if make is not None:
            with _noting(noted, "DICOM object of probabilities"):
                entries["probability"] = {
                    **self._saved(make(prediction, source, algorithm), folder / "probability.dcm"),
                    "type": self.probability,
                }

    def _saved(self, result: Dataset, path: Path) -> dict[str, Any]:
        """Write an object; what the report says of it."""
        if self.replacement_seed is not None:
            result = _with_other_identifiers(result, self.replacement_seed)
        try:
            result.save_as(path, enforce_file_format=True)
        except Exception:  # of many kinds, where a value copied from the source cannot be encoded
            path.unlink(missing_ok=True)
            raise
        return {
            "file": path.name,
            "sop_instance_uid": str(result.SOPInstanceUID),
            "series_instance_uid": str(result.SeriesInstanceUID),
        }

    def _replaced_series(self, source: DicomSource) -> dict[str, Any]:
        """The report's entry on the source, with the UIDs that the objects have."""
        uids = Dataset()
        uids.file_meta = FileMetaDataset()
        uids.StudyInstanceUID, uids.SeriesInstanceUID = source.study_uid, source.series_uid
        Anonymizer(seed=self.replacement_seed).anonymize(uids)
        return {
            **source.summary(),
            "study_instance_uid": str(uids.StudyInstanceUID),
            "series_instance_uid": str(uids.SeriesInstanceUID),
        }


def _check(name: str, value: Any, known: tuple[Any, ...]) -> None:
    # 1 counts as True in `in`, and 0 as False
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in known):
        choices = ", ".join(str(choice) for choice in known)
        raise ValueError(f"{name} must be one of {choices}, not {value!r}")


def _with_other_identifiers(result: Dataset, seed: str) -> Dataset:
    # as from a file: dicognito takes dates as text, and highdicom's are objects
    buffer = io.BytesIO()
    result.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    plain = pydicom.dcmread(buffer)
    Anonymizer(seed=seed).anonymize(plain)
    return plain


@contextmanager
def _noting(noted: list[str], what: str) -> Iterator[None]:
    """Turn what stands against an object into a sentence: one case's odd header must not cost its mask."""
    try:
        yield
    except NoDicomResult as reason:
        noted.append(str(reason))
    except OSError:
        raise
    except Exception as error:
        # Without the error's message: libraries quote the header's values, a patient's name among them.
        frames = "".join(traceback.format_tb(error.__traceback__))
        logging.getLogger(__name__).debug("%s: no %s\n%s", type(error).__name__, what, frames)
        noted.append(
            f"The {what} could not be written: the source's header does not allow it ({type(error).__name__})."
        )
