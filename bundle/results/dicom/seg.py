"""A mask as DICOM Segmentation, probabilities as fractional Segmentation or as Parametric Map (PS3.3 A.51, A.75)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence, VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from bundle.cases.dicom.headers import MANUFACTURER
from bundle.results.dicom.codes import display_colour, short_text, structure_codes
from bundle.results.dicom.source import (
    ALGORITHM_FAMILY,
    NAME,
    Algorithm,
    NoDicomResult,
    SourceImages,
    content_digest,
    derived_uid,
    make_repeatable,
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
PROBABILITY = CodedConcept("122157", "DCM", "Probability")
NO_UNITS = CodedConcept("1", "UCUM", "no units")
_FULL_SCALE = 255  # of a fractional segmentation's 8 bits
# Of a film no thickness is known; a reader that asks for a volume wants one.
_FILM_THICKNESS = 1.0
_LABEL_LENGTH = 16  # characters of the VR SH


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


def segments_of(prediction: Prediction, source: SourceImages, algorithm: Algorithm) -> list[Segment]:
    """The structures that were asked for and found, numbered in the order of the labels.

    One that was not found has no voxels to refer to and no segment (PS3.3 C.8.20.2: the segments that are contained
    within the data).
    """
    counts = count_values(prediction.mask)
    present = [
        (value, channel, name)
        for channel, (value, name) in enumerate(prediction.labels.items())
        if counts[value]
    ]
    return _numbered(present, prediction, source, algorithm)


def _numbered(
    present: Sequence[tuple[int, int, str]],
    prediction: Prediction,
    source: SourceImages,
    algorithm: Algorithm,
) -> list[Segment]:
    digest = content_digest(prediction, algorithm)
    series = str(source.first.SeriesInstanceUID)
    return [
        Segment(number, value, channel, name, derived_uid("tracking", series, digest, name))
        for number, (value, channel, name) in enumerate(present, start=1)
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
    labelmap = segmentation_type == "LABELMAP"
    result = Segmentation(
        source_images=source.headers,
        pixel_array=source.stacked(numbers[prediction.mask]),
        segmentation_type=segmentation_type,
        segment_descriptions=[_description(segment, algorithm) for segment in segments],
        transfer_syntax_uid=RLELossless if labelmap else ExplicitVRLittleEndian,
        content_label="SEGMENTATION",
        content_description="Structures segmented from image and prompt",
        series_description=f"Segmentation, {NAME}",
        **object_identity(
            "segmentation", prediction, source, algorithm, SEGMENTATION_SERIES, segmentation_type
        ),
        **object_dates(source),
        pixel_measures=film_measures(source),
    )
    _orient_film(result, source)
    make_repeatable(result, source)
    return result


def make_fractional(prediction: Prediction, source: SourceImages, algorithm: Algorithm) -> Segmentation:
    """The probabilities, in steps of 1/255, as a FRACTIONAL Segmentation, one segment a structure.

    Raises:
        NoDicomResult: no structure is anywhere more probable than half a step.
    """
    stored = [to_bytes(channel) for channel in prediction.probability]
    present = [
        (value, channel, name)
        for channel, (value, name) in enumerate(prediction.labels.items())
        if stored[channel].any()
    ]
    segments = _numbered(present, prediction, source, algorithm)
    if not segments:
        raise NoDicomResult("Every probability is 0: no DICOM object of probabilities was written.")
    # Exact multiples, so that highdicom's own rounding can only give the same steps back.
    array = np.stack([stored[segment.channel] for segment in segments], axis=-1) / np.float32(_FULL_SCALE)
    result = Segmentation(
        source_images=source.headers,
        pixel_array=source.stacked(array),
        segmentation_type="FRACTIONAL",
        fractional_type="PROBABILITY",
        max_fractional_value=_FULL_SCALE,
        segment_descriptions=[_description(segment, algorithm) for segment in segments],
        transfer_syntax_uid=RLELossless,
        content_label="PROBABILITY",
        content_description="Probability of each structure",
        series_description=f"Probability, {NAME}",
        **object_identity(
            "fractional", prediction, source, algorithm, PROBABILITY_SERIES, _bytes_digest(stored)
        ),
        **object_dates(source),
        pixel_measures=film_measures(source),
    )
    _orient_film(result, source)
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
                unit=NO_UNITS,
                value_range=(0.0, 1.0),
                slope=1.0,
                intercept=0.0,
                quantity_definition=PROBABILITY,
            )
        ]
        for name in prediction.labels.values()
    ]
    probability = np.asarray(prediction.probability)
    array = source.stacked(np.moveaxis(probability, 0, -1))
    digest = _bytes_digest([channel.view(np.uint8) for channel in probability])
    result = ParametricMap(
        source_images=source.headers,
        pixel_array=np.ascontiguousarray(array),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=mappings,
        voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="PROBABILITY",
        content_description="Probability of each structure",
        series_description=f"Probability, {NAME}",
        **object_identity("parametric map", prediction, source, algorithm, PROBABILITY_SERIES, digest),
        **object_dates(source),
    )
    result.Laterality = ""  # of type 2C, and the structures are on both sides
    make_repeatable(result, source)
    return result


def calibrated_spacing(header: Dataset) -> tuple[float, float] | None:
    """Pixel Spacing of a projection image: distance of rows and of columns in mm; None where there is no such thing."""
    return _positive_pair(header.get("PixelSpacing"))


def film_spacing(header: Dataset) -> tuple[float, float] | None:
    """As `calibrated_spacing` or, where that is missing, as at the detector or on the scanned film.

    There a body's shadow is larger than the body (PS3.3 10.7.1.3): good for placing pixels, not for measuring.
    """
    keywords = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
    pairs = (_positive_pair(header.get(keyword)) for keyword in keywords)
    return next((pair for pair in pairs if pair is not None), None)


def _positive_pair(value: Any) -> tuple[float, float] | None:
    try:
        rows, columns = (float(number) for number in value)
    except (TypeError, ValueError):
        return None
    return (rows, columns) if np.isfinite([rows, columns]).all() and min(rows, columns) > 0 else None


def film_measures(source: SourceImages) -> PixelMeasuresSequence | None:
    """Pixel measures for images that give none as a volume's slice does; None where highdicom finds them itself."""
    if source.volume:
        return None
    return PixelMeasuresSequence(film_spacing(source.first) or (1.0, 1.0), slice_thickness=_FILM_THICKNESS)


def _orient_film(result: Dataset, source: SourceImages) -> None:
    """Which way an image without a place in the patient lies, as far as its source says (type 2C, PS3.3 C.7.6.1)."""
    if not source.volume:
        result.PatientOrientation = source.first.get("PatientOrientation") or ""


def _description(segment: Segment, algorithm: Algorithm) -> SegmentDescription:
    codes = structure_codes(segment.name)
    description = SegmentDescription(
        segment_number=segment.number,
        segment_label=short_text(segment.name),
        segmented_property_category=codes.category,
        segmented_property_type=codes.type,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=NAME,
            family=ALGORITHM_FAMILY,
            version=algorithm.version,
            source=MANUFACTURER,
            parameters=algorithm.parameters(),
        ),
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.tracking_id,
        anatomic_regions=None if codes.region is None else [codes.region],
        display_color=display_colour(segment.name),
    )
    if codes.laterality is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [codes.laterality]
    return description


def object_identity(
    kind: str,
    prediction: Prediction,
    source: SourceImages,
    algorithm: Algorithm,
    series_number: int,
    *content: str,
) -> dict[str, Any]:
    """What makes an object one of its own: UIDs from series, weights and content, and who made it.

    With a request the UIDs follow from series, images, weights, settings and request, not from the content: a server
    then knows an object for one that it has, even where another device computes some voxels otherwise.

    Args:
        kind: of object; two kinds made of the same content are two objects.
        content: digests of what goes into it beside the mask.

    Returns:
        arguments that all of highdicom's objects take.
    """
    images = repr(source.references())
    if algorithm.request:
        asked = repr((algorithm.version, sorted(algorithm.parameters().items()), algorithm.request, images))
        digest = hashlib.sha256(asked.encode()).hexdigest()
    else:
        digest = content_digest(prediction, algorithm, images, *content)
    parts = (str(source.first.SeriesInstanceUID), digest)
    return {
        "series_instance_uid": derived_uid(f"{kind} series", *parts),
        "series_number": series_number,
        "sop_instance_uid": derived_uid(kind, *parts),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": NAME,
        "software_versions": algorithm.version,
        "device_serial_number": algorithm.weights_sha256 or "unknown",
    }


def object_dates(source: SourceImages) -> dict[str, Any]:
    """When it was made, and in what character set; arguments of highdicom's objects."""
    made = source.made
    return {
        "content_date": made.date(),
        "content_time": made.time(),
        "specific_character_set": "ISO_IR 192",
    }


def save(result: Dataset, path: Path) -> None:
    """Write `result` as a DICOM file; on an error nothing is left of it.

    Raises:
        OSError: it cannot be written.
        Exception: of many kinds, where a value copied from the source cannot be encoded.
    """
    try:
        result.save_as(path, enforce_file_format=True)
    except Exception:
        path.unlink(missing_ok=True)
        raise


def _bytes_digest(arrays: Sequence[NDArray[np.uint8]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
