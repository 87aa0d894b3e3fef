"""Measurements of each segment as a structured report: TID 1500 with TID 1411 (volumes) or TID 1410 (films), PS3.16."""

from __future__ import annotations

import hashlib
import json
from typing import Any

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
from pydicom.sr.codedict import codes

from bundle.cases.dicom.headers import MANUFACTURER
from bundle.results.dicom.codes import PRIVATE_SCHEME, structure_codes
from bundle.results.dicom.seg import Segment, film_spacing, segments_of
from bundle.results.dicom.source import (
    NAME,
    Algorithm,
    SourceImages,
    derived_uid,
    make_repeatable,
    object_arguments,
    slices_with,
)
from bundle.results.prediction import Prediction
from bundle.results.report import label_entry, to_plain

MEASUREMENT_SERIES = 9003
_PIXELS = CodedConcept("{pixels}", "UCUM", "pixels")
#: Of the report's entry on a structure, the first of these that is there.
_SIZES = {
    "volume_ml": (codes.SCT.Volume, codes.UCUM.CubicCentimeter),
    "area_mm2": (codes.SCT.Area, codes.UCUM.SquareMillimeter),
    "area_px": (codes.SCT.Area, _PIXELS),
}
_PROCEDURES = {  # CID 100
    "CT": codes.LN.CTUnspecifiedBodyRegion,
    "X-ray": codes.LN.XRUnspecifiedBodyRegion,
}


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
            observer_device_context=ObserverContext(codes.DCM.Device, observer_identifying_attributes=device)
        ),
        procedure_reported=_PROCEDURES.get(prediction.case.modality, codes.SCT.ImagingProcedure),
        imaging_measurements=groups,
    )
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    content = (digest, str(segmentation.SOPInstanceUID))
    result = Comprehensive3DSR(
        evidence=[segmentation, *source.headers],
        content=report,
        is_complete=True,
        series_description=f"Measurements, {NAME}",
        **object_arguments("measurements", prediction, source, algorithm, MEASUREMENT_SERIES, *content),
    )
    make_repeatable(result, source)
    return result


def _values(prediction: Prediction, source: SourceImages, segment: Segment) -> dict[str, Any]:
    """The numbers of one segment, rounded as in report.json, so that machines agree on them."""
    count = int((prediction.mask == segment.value).sum())
    entry = label_entry(prediction, segment.channel, segment.value, count)
    spacing = None if source.volume else film_spacing(source.first, calibrated=True)
    if spacing is not None:
        entry["area_mm2"] = count * spacing[0] * spacing[1]
    plain: dict[str, Any] = to_plain(entry)
    return plain


def _measurements(entry: dict[str, Any], uncertainty: str) -> list[Measurement]:
    size = next(key for key in _SIZES if key in entry)
    # No public scheme has an uncertainty, so its code is private.
    concept = CodedConcept(
        uncertainty.upper()[:16], PRIVATE_SCHEME, f"Uncertainty of the segmentation ({uncertainty})"
    )
    means = (
        ("mean_hu", codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit),
        ("mean_probability", codes.DCM.Probability, codes.UCUM.NoUnits),
        ("mean_uncertainty", concept, codes.UCUM.NoUnits),
    )
    return [
        Measurement(_SIZES[size][0], entry[size], _SIZES[size][1]),
        *(
            Measurement(name, entry[key], unit, derivation=codes.SCT.Mean)
            for key, name, unit in means
            if key in entry
        ),
    ]


def _group(
    prediction: Prediction,
    source: SourceImages,
    algorithm: Algorithm,
    segmentation: Segmentation,
    segment: Segment,
    entry: dict[str, Any],
) -> Any:
    structure = structure_codes(segment.name, prediction.structures)
    site = structure.region or (structure.type if structure.laterality is not None else None)
    shared = {
        "tracking_identifier": TrackingIdentifier(segment.tracking_uid, segment.tracking_id),
        "finding_category": structure.category,
        "finding_type": structure.type,
        "finding_sites": None if site is None else [FindingSite(site, structure.laterality)],
        "algorithm_id": AlgorithmIdentification(
            name=NAME,
            version=algorithm.version,
            parameters=[f"{name}={value}" for name, value in algorithm.parameters().items()],
            family=codes.DCM.ArtificialIntelligence,
            manufacturer=MANUFACTURER,
        ),
        "measurements": _measurements(entry, str(algorithm.settings.get("uncertainty", "entropy"))),
    }
    # highdicom's `from_segmentation` finds a segment's images of BINARY ones only.
    images = [
        SourceImageForSegmentation(*reference)
        for reference in source.references(slices_with(prediction, segment.value) if source.volume else None)
    ]
    target = str(segmentation.SOPClassUID), str(segmentation.SOPInstanceUID)
    if source.volume:
        return VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=ReferencedSegment(*target, segment.number, source_images=images), **shared
        )
    frame = ReferencedSegmentationFrame(*target, 1, segment.number, images[0])
    # A frame or a segment may be named, not both (PS3.3 table 10-3); of a label map the frame would not say which.
    del frame[0].ReferencedSOPSequence[0].ReferencedFrameNumber
    return PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=frame, **shared)
