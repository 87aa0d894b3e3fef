"""A mask as DICOM Segmentation, probabilities as fractional Segmentation or as Parametric Map (PS3.3 A.51, A.75)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence, VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from bundle.cases.dicom.headers import MANUFACTURER
from bundle.cases.structures import Structures
from bundle.results.dicom.codes import display_colour, short_text, structure_codes
from bundle.results.dicom.source import (
    NAME,
    Algorithm,
    NoDicomResult,
    SourceImages,
    content_digest,
    derived_uid,
    make_repeatable,
    object_arguments,
)
from bundle.results.files.images import to_bytes
from bundle.results.prediction import Prediction
from bundle.results.report import count_values

SegmentationType = Literal["BINARY", "LABELMAP"]
ProbabilityForm = Literal["none", "fractional", "parametric_map"]
SEGMENTATION_TYPES: tuple[SegmentationType, ...] = get_args(SegmentationType)
PROBABILITY_FORMS: tuple[ProbabilityForm, ...] = get_args(ProbabilityForm)

#: Numbers of the series in the study: out of the way of a scanner's, which count from 1.
SEGMENTATION_SERIES, PROBABILITY_SERIES = 9001, 9002
_FULL_SCALE = 255  # of a fractional segmentation's 8 bits
# Of a film no thickness is known; a reader that asks for a volume wants one.
_FILM_THICKNESS = 1.0
_LABEL_LENGTH = 16  # characters of the VR SH
_PROBABILITY_TEXTS = {"content_label": "PROBABILITY", "content_description": "Probability of each structure"}


@dataclass(frozen=True)
class Segment:
    """One structure in a segmentation.

    Attributes:
        number: of the segment, from 1.
        value: in the prediction's mask.
        channel: in the prediction's probability.
        tracking_uid: the same in segmentation and report.
    """

    number: int
    value: int
    channel: int
    name: str
    tracking_uid: str

    @property
    def tracking_id(self) -> str:
        return short_text(self.name)


def segments_of(
    prediction: Prediction,
    source: SourceImages,
    algorithm: Algorithm,
    present: Sequence[bool | np.bool_] | None = None,
) -> list[Segment]:
    """The structures that were asked for and found, numbered in the order of the labels.

    One that was not found has no voxels to refer to and no segment (PS3.3 C.8.20.2: the segments that are contained
    within the data).

    Args:
        present: whether each label has a segment; by default where the mask has its value.
    """
    if present is None:
        counts = count_values(prediction.mask)
        present = [bool(counts[value]) for value in prediction.labels]
    digest = content_digest(prediction, algorithm)
    series = str(source.first.SeriesInstanceUID)
    labels = enumerate(prediction.labels.items())
    shown = [(channel, value, name) for channel, (value, name) in labels if present[channel]]
    return [
        Segment(number, value, channel, name, derived_uid("tracking", series, digest, name))
        for number, (channel, value, name) in enumerate(shown, start=1)
    ]


def make_segmentation(
    prediction: Prediction,
    source: SourceImages,
    algorithm: Algorithm,
    segmentation_type: SegmentationType = "BINARY",
) -> Segmentation:
    """The mask as a DICOM Segmentation on the source's own frames; frames without a label are left out.

    BINARY is stored as bits, which every reader takes; LABELMAP as RLE, a twentieth of the size, which newer ones
    take (PS3.3 C.8.20.2.3). Segments are numbered from 1 among those that were found.

    Raises:
        NoDicomResult: the mask is empty.
    """
    segments = segments_of(prediction, source, algorithm)
    if not segments:
        raise NoDicomResult("No structure was found: no DICOM segmentation or report was written.")
    numbers = np.zeros(256, dtype=np.uint8)
    numbers[[segment.value for segment in segments]] = [segment.number for segment in segments]
    return _segmentation(
        numbers[prediction.mask],
        segments,
        prediction.structures,
        source,
        algorithm,
        segmentation_type=segmentation_type,
        transfer_syntax_uid=RLELossless if segmentation_type == "LABELMAP" else ExplicitVRLittleEndian,
        content_label="SEGMENTATION",
        content_description="Structures segmented from image and prompt",
        series_description=f"Segmentation, {NAME}",
        **object_arguments(
            "segmentation", prediction, source, algorithm, SEGMENTATION_SERIES, segmentation_type
        ),
    )


def make_fractional(prediction: Prediction, source: SourceImages, algorithm: Algorithm) -> Segmentation:
    """The probabilities, in steps of 1/255, as a FRACTIONAL Segmentation, one segment a structure.

    Raises:
        NoDicomResult: no structure is anywhere more probable than half a step.
    """
    stored = [to_bytes(channel) for channel in prediction.probability]
    segments = segments_of(prediction, source, algorithm, [channel.any() for channel in stored])
    if not segments:
        raise NoDicomResult("Every probability is 0: no DICOM object of probabilities was written.")
    # Exact multiples, so that highdicom's own rounding can only give the same steps back.
    array = np.stack([stored[segment.channel] for segment in segments], axis=-1) / np.float32(_FULL_SCALE)
    return _segmentation(
        array,
        segments,
        prediction.structures,
        source,
        algorithm,
        segmentation_type="FRACTIONAL",
        fractional_type="PROBABILITY",
        max_fractional_value=_FULL_SCALE,
        transfer_syntax_uid=RLELossless,
        series_description=f"Probability, {NAME}",
        **_PROBABILITY_TEXTS,
        **object_arguments(
            "fractional", prediction, source, algorithm, PROBABILITY_SERIES, _bytes_digest(stored)
        ),
    )


def _segmentation(
    array: NDArray[Any],
    segments: Sequence[Segment],
    structures: Structures,
    source: SourceImages,
    algorithm: Algorithm,
    **more: Any,
) -> Segmentation:
    # Of a film highdicom knows neither spacing nor thickness.
    film = None if source.volume else film_spacing(source.first) or (1.0, 1.0)
    result = Segmentation(
        source_images=source.headers,
        pixel_array=source.stacked(array),
        segment_descriptions=[_description(segment, algorithm, structures) for segment in segments],
        pixel_measures=None if film is None else PixelMeasuresSequence(film, slice_thickness=_FILM_THICKNESS),
        **more,
    )
    if not source.volume:
        # Which way an image without a place in the patient lies is of type 2C (PS3.3 C.7.6.1).
        result.PatientOrientation = source.first.get("PatientOrientation") or ""
    make_repeatable(result, source)
    return result


def make_parametric_map(prediction: Prediction, source: SourceImages, algorithm: Algorithm) -> ParametricMap:
    """The probabilities as they are, in 32-bit floats in [0, 1], one real-world value mapping a structure.

    Raises:
        NoDicomResult: nothing was asked for that has a probability.
    """
    if not prediction.labels:
        raise NoDicomResult("Nothing was segmented: no DICOM object of probabilities was written.")
    if not source.volume:
        # highdicom cannot tell the frames of several structures apart where the image has no place in the patient
        raise NoDicomResult(
            "A film gets no parametric map: no DICOM object of probabilities was written; ask for a fractional one."
        )
    mappings = [
        [
            RealWorldValueMapping(
                lut_label=short_text(name)[:_LABEL_LENGTH].rstrip(),
                lut_explanation=short_text(f"Probability of {name}"),
                unit=codes.UCUM.NoUnits,
                value_range=(0.0, 1.0),
                slope=1.0,
                intercept=0.0,
                quantity_definition=codes.DCM.Probability,
            )
        ]
        for name in prediction.labels.values()
    ]
    probability = np.asarray(prediction.probability)
    digest = _bytes_digest([channel.view(np.uint8) for channel in probability])
    result = ParametricMap(
        source_images=source.headers,
        pixel_array=np.ascontiguousarray(source.stacked(np.moveaxis(probability, 0, -1))),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=mappings,
        voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1.0)],
        series_description=f"Probability, {NAME}",
        **_PROBABILITY_TEXTS,
        **object_arguments("parametric map", prediction, source, algorithm, PROBABILITY_SERIES, digest),
    )
    result.Laterality = ""  # of type 2C, and the structures are on both sides
    make_repeatable(result, source)
    return result


def film_spacing(header: Dataset, calibrated: bool = False) -> tuple[float, float] | None:
    """Distance of rows and of columns of a projection image in mm; None where it is not known.

    Args:
        calibrated: Pixel Spacing alone, which is good for measuring. Otherwise also what holds at the detector or on
            the scanned film, where a body's shadow is larger than the body (PS3.3 10.7.1.3).
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")[
        : 1 if calibrated else 3
    ]:
        try:
            rows, columns = (float(number) for number in header.get(keyword))
        except (TypeError, ValueError):
            continue
        if np.isfinite([rows, columns]).all() and min(rows, columns) > 0:
            return rows, columns
    return None


def _description(segment: Segment, algorithm: Algorithm, structures: Structures) -> SegmentDescription:
    structure = structure_codes(segment.name, structures)
    description = SegmentDescription(
        segment_number=segment.number,
        segment_label=short_text(segment.name),
        segmented_property_category=structure.category,
        segmented_property_type=structure.type,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=NAME,
            family=codes.DCM.ArtificialIntelligence,
            version=algorithm.version,
            source=MANUFACTURER,
            parameters=algorithm.parameters(),
        ),
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.tracking_id,
        anatomic_regions=None if structure.region is None else [structure.region],
        display_color=display_colour(segment.name, structures),
    )
    if structure.laterality is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [structure.laterality]
    return description


def _bytes_digest(arrays: Sequence[NDArray[np.uint8]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
