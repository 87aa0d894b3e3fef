"""Measurements of each segment as a structured report: TID 1500 with TID 1411 (volumes) or TID 1410 (films), PS3.16."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    ReferencedSegment,
    ReferencedSegmentationFrame,
    SourceImageForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from numpy.typing import NDArray

from bundle.cases.dicom.headers import MANUFACTURER
from bundle.results.dicom.codes import PRIVATE_SCHEME, structure_codes
from bundle.results.dicom.seg import (
    NO_UNITS,
    PROBABILITY,
    Segment,
    calibrated_spacing,
    object_dates,
    object_identity,
    segments_of,
)
from bundle.results.dicom.source import (
    ALGORITHM_FAMILY,
    NAME,
    Algorithm,
    SourceImages,
    derived_uid,
    make_repeatable,
)
from bundle.results.prediction import Prediction
from bundle.results.report import label_entry, to_plain

MEASUREMENT_SERIES = 9003

VOLUME = CodedConcept("118565006", "SCT", "Volume")
AREA = CodedConcept("42798000", "SCT", "Area")
ATTENUATION = CodedConcept("112031", "DCM", "Attenuation Coefficient")
MEAN = CodedConcept("373098007", "SCT", "Mean")
CUBIC_CENTIMETRE = CodedConcept("cm3", "UCUM", "cubic centimeter")
SQUARE_MILLIMETRE = CodedConcept("mm2", "UCUM", "square millimeter")
PIXELS = CodedConcept("{pixels}", "UCUM", "pixels")
HOUNSFIELD_UNIT = CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit")
_DEVICE = CodedConcept("121007", "DCM", "Device")
_PROCEDURES = {  # CID 100
    "CT": CodedConcept("25045-6", "LN", "CT unspecified body region"),
    "X-ray": CodedConcept("43468-8", "LN", "XR unspecified body region"),
}
_ANY_PROCEDURE = CodedConcept("363679005", "SCT", "Imaging procedure")


def uncertainty_concept(kind: str) -> CodedConcept:
    """What an uncertainty in [0, 1] is called: no public scheme has it, so its code is private."""
    return CodedConcept(kind.upper()[:16], PRIVATE_SCHEME, f"Uncertainty of the segmentation ({kind})")


def make_report(
    prediction: Prediction, source: SourceImages, algorithm: Algorithm, segmentation: Segmentation
) -> Comprehensive3DSR:
    """A measurement report on the segments of a segmentation, as Comprehensive 3D SR (PS3.3 A.35.13).

    Of volumes: volume in cm3, mean attenuation in HU (CT). Of films: area in mm2 where Pixel Spacing is there, else in
    pixels. Of both: mean probability and mean uncertainty in [0, 1], unit 1. The values are those of report.json.

    Args:
        segmentation: made of the same prediction; each group of measurements refers to one segment of it and to the
            images on which the segment lies.
    """
    segments = segments_of(prediction, source, algorithm)
    values = [_values(prediction, source, segment) for segment in segments]
    groups = [
        _group(prediction, source, algorithm, segmentation, segment, entry)
        for segment, entry in zip(segments, values, strict=True)
    ]
    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", algorithm.version, algorithm.weights_sha256),
        name=NAME,
        manufacturer_name=MANUFACTURER,
        model_name=NAME,
        serial_number=algorithm.weights_sha256 or None,
    )
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(_DEVICE, observer_identifying_attributes=device)
        ),
        procedure_reported=_PROCEDURES.get(prediction.case.modality, _ANY_PROCEDURE),
        imaging_measurements=groups,
    )
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    identity = object_identity(
        "measurements",
        prediction,
        source,
        algorithm,
        MEASUREMENT_SERIES,
        digest,
        str(segmentation.SOPInstanceUID),
    )
    result = Comprehensive3DSR(
        evidence=[segmentation, *source.headers],
        content=report,
        is_complete=True,
        series_description=f"Measurements, {NAME}",
        **identity,
        **object_dates(source),
    )
    make_repeatable(result, source)
    return result


def _values(prediction: Prediction, source: SourceImages, segment: Segment) -> dict[str, Any]:
    """The numbers of one segment, rounded as in report.json, so that machines agree on them."""
    inside = prediction.mask == segment.value
    count = int(inside.sum())
    entry = label_entry(prediction, segment.channel, segment.value, count)
    spacing = None if source.volume else calibrated_spacing(source.first)
    if spacing is not None:
        entry["area_mm2"] = count * spacing[0] * spacing[1]
    plain: dict[str, Any] = to_plain(entry)
    return plain


def _measurements(entry: dict[str, Any], uncertainty: str) -> list[Measurement]:
    if "volume_ml" in entry:
        measurements = [Measurement(VOLUME, entry["volume_ml"], CUBIC_CENTIMETRE)]
    elif "area_mm2" in entry:
        measurements = [Measurement(AREA, entry["area_mm2"], SQUARE_MILLIMETRE)]
    else:
        measurements = [Measurement(AREA, entry["area_px"], PIXELS)]
    if "mean_hu" in entry:
        measurements.append(Measurement(ATTENUATION, entry["mean_hu"], HOUNSFIELD_UNIT, derivation=MEAN))
    means = (
        (PROBABILITY, entry["mean_probability"]),
        (uncertainty_concept(uncertainty), entry["mean_uncertainty"]),
    )
    return measurements + [Measurement(name, value, NO_UNITS, derivation=MEAN) for name, value in means]


def _group(
    prediction: Prediction,
    source: SourceImages,
    algorithm: Algorithm,
    segmentation: Segmentation,
    segment: Segment,
    entry: dict[str, Any],
) -> Any:
    codes = structure_codes(segment.name)
    site = codes.region or (codes.type if codes.laterality is not None else None)
    shared = {
        "tracking_identifier": TrackingIdentifier(segment.tracking_uid, segment.tracking_id),
        "finding_category": codes.category,
        "finding_type": codes.type,
        "finding_sites": None if site is None else [FindingSite(site, codes.laterality)],
        "algorithm_id": AlgorithmIdentification(
            name=NAME,
            version=algorithm.version,
            parameters=[f"{name}={value}" for name, value in algorithm.parameters().items()],
            family=ALGORITHM_FAMILY,
            manufacturer=MANUFACTURER,
        ),
        "measurements": _measurements(entry, str(algorithm.settings.get("uncertainty", "entropy"))),
    }
    images = _images_of(prediction.mask == segment.value, source)
    target = str(segmentation.SOPClassUID), str(segmentation.SOPInstanceUID)
    if source.volume:
        return VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=ReferencedSegment(*target, segment.number, source_images=images), **shared
        )
    frame = ReferencedSegmentationFrame(*target, 1, segment.number, images[0])
    # A frame or a segment may be named, not both (PS3.3 table 10-3); of a label map the frame would not say which.
    del frame[0].ReferencedSOPSequence[0].ReferencedFrameNumber
    return PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=frame, **shared)


def _images_of(inside: NDArray[np.bool_], source: SourceImages) -> list[SourceImageForSegmentation]:
    """The images or frames on which a segment lies."""
    if not source.volume:
        return [SourceImageForSegmentation(str(source.first.SOPClassUID), str(source.first.SOPInstanceUID))]
    slices = np.flatnonzero(inside.any(axis=(0, 1)))
    if source.frames:
        frames = sorted(source.frames[index] for index in slices)
        return [
            SourceImageForSegmentation(
                str(source.first.SOPClassUID), str(source.first.SOPInstanceUID), frames
            )
        ]
    return [
        SourceImageForSegmentation(str(header.SOPClassUID), str(header.SOPInstanceUID))
        for header in (source.headers[index] for index in slices)
    ]
