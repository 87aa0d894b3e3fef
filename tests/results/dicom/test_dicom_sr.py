"""The measurement report holds the numbers of the mask, with units and codes, and refers to what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest

from bundle.results import DicomResults, Prediction, write_prediction
from tests.support import dicom_series as made

LABELS = {1: "aorta", 3: "left kidney", 5: "liver", 10: "COVID-19 infection"}
Groups = dict[str, Any]


def groups_of(prediction: Prediction, folder: Path, **options: Any) -> tuple[Groups, Any]:
    """Measurement groups by tracking identifier, and the document."""
    folder.mkdir(parents=True, exist_ok=True)
    supplement = DicomResults(**options)(prediction, folder)
    assert supplement is not None and list(supplement.warnings) == []
    document = hd.sr.srread(folder / "sr.dcm")
    report = document.content
    found = report.get_volumetric_roi_measurement_groups() + report.get_planar_roi_measurement_groups()
    return {group.tracking_identifier: group for group in found}, document


def values_of(group: Any) -> dict[str, tuple[float, str]]:
    return {item.name.meaning: (float(item.value), item.unit.value) for item in group.get_measurements()}


@pytest.mark.parametrize("kind", ["axial", "oblique", "enhanced"])
@pytest.mark.parametrize("seg_type", ["BINARY", "LABELMAP"])
def test_volumes_are_those_of_the_mask(tmp_path: Path, kind: str, seg_type: str) -> None:
    if kind == "enhanced":
        case = made.enhanced_case(made.write_enhanced_ct(tmp_path / "enhanced"))
    else:
        orientation = made.OBLIQUE if kind == "oblique" else made.AXIAL
        case = made.volume_case(made.write_ct(tmp_path / "series", orientation))
    prediction = made.predicted(case, LABELS)
    groups, document = groups_of(prediction, tmp_path / "out", seg_type=seg_type)
    assert list(groups) == list(LABELS.values())
    for channel, (value, name) in enumerate(LABELS.items()):
        inside = prediction.mask == value
        found = values_of(groups[name])
        volume = inside.sum() * np.prod(made.SPACING) / 1000
        assert found["Volume"] == (pytest.approx(volume, abs=1e-5), "cm3")
        hounsfield = case.array[0][inside].mean()
        assert found["Attenuation Coefficient"] == (pytest.approx(hounsfield, abs=1e-3), "[hnsf'U]")
        probability = prediction.probability[channel][inside].mean()
        assert found["Probability"] == (pytest.approx(probability, abs=1e-5), "1")
        uncertainty = prediction.uncertainty[inside].mean()
        name_of = "Uncertainty of the segmentation (entropy)"
        assert found[name_of] == (pytest.approx(uncertainty, abs=1e-5), "1")
        derivations = [item.derivation for item in groups[name].get_measurements()]
        assert [item and item.meaning for item in derivations] == [None, "Mean", "Mean", "Mean"]
    assert document.SOPClassUID.name == "Comprehensive 3D SR Storage"


def test_what_was_measured_is_referred_to(tmp_path: Path) -> None:
    case = made.volume_case(made.write_ct(tmp_path / "series"))
    prediction = made.predicted(case, LABELS)
    groups, document = groups_of(prediction, tmp_path / "out")
    seg = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    uids = [str(header.SOPInstanceUID) for header in case.header.datasets()]
    for item in seg.SegmentSequence:
        group = groups[item.SegmentLabel]
        target, *sources = [image.ReferencedSOPSequence[0] for image in group.referenced_segment]
        assert target.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert target.ReferencedSegmentNumber == item.SegmentNumber
        value = next(value for value, name in LABELS.items() if name == item.SegmentLabel)
        slices = np.flatnonzero((prediction.mask == value).any(axis=(0, 1)))
        assert [image.ReferencedSOPInstanceUID for image in sources] == [uids[z] for z in slices]
        assert group.tracking_uid == item.TrackingUID
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert evidence == {*uids, seg.SOPInstanceUID}


def test_findings_have_codes_and_sides(tmp_path: Path) -> None:
    case = made.volume_case(made.write_ct(tmp_path / "series"))
    groups, document = groups_of(made.predicted(case, LABELS), tmp_path / "out")
    kidney, infection = groups["left kidney"], groups["COVID-19 infection"]
    assert (kidney.finding_type.value, kidney.finding_type.scheme_designator) == ("64033007", "SCT")
    site = kidney.finding_sites[0]
    assert (site.value.meaning, site.laterality.meaning) == ("Kidney", "Left")
    assert infection.finding_category.meaning == "Morphologically Abnormal Structure"
    assert infection.finding_sites[0].value.meaning == "Lung"
    assert groups["liver"].finding_sites == []
    observer = document.content.get_observer_contexts(
        observer_type=hd.sr.CodedConcept("121007", "DCM", "Device")
    )
    assert observer[0].observer_identifying_attributes.name == "Text-prior diffusion segmentation"
    assert document.VerificationFlag == "UNVERIFIED"
    assert str(document.PatientName) == "M\u00fcller^Jos\u00e9"


@pytest.mark.parametrize("seg_type", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize(
    ("changes", "unit", "of_a_pixel"),
    [
        ({"PixelSpacing": [0.2, 0.3]}, "mm2", 0.06),
        ({"ImagerPixelSpacing": [0.2, 0.3]}, "{pixels}", 1.0),
        ({"PixelSpacing": [0, 0]}, "{pixels}", 1.0),
        ({}, "{pixels}", 1.0),
    ],
)
def test_areas_of_a_film(
    tmp_path: Path, changes: dict[str, Any], unit: str, of_a_pixel: float, seg_type: str
) -> None:
    """At the detector a shadow is larger than what casts it: Imager Pixel Spacing does not measure the body."""
    case = made.film_case(made.write_film(tmp_path / "film", **changes))
    labels = {10: "COVID-19 infection", 11: "lung"}
    prediction = made.predicted(case, labels)
    groups, _ = groups_of(prediction, tmp_path / "out", seg_type=seg_type)
    seg = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    for number, (value, name) in enumerate(labels.items(), start=1):
        found = values_of(groups[name])
        area = (prediction.mask == value).sum() * of_a_pixel
        assert found["Area"] == (pytest.approx(area, abs=1e-5), unit)
        assert "Attenuation Coefficient" not in found
        segmentation, image = groups[name].referenced_segmentation_frame
        target = segmentation.ReferencedSOPSequence[0]
        assert target.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert target.ReferencedSegmentNumber == number
        header = case.header.datasets()[0]
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID


def test_the_numbers_are_those_of_the_json_report(tmp_path: Path) -> None:
    case = made.volume_case(made.write_ct(tmp_path / "series"))
    result = write_prediction(made.predicted(case, LABELS), tmp_path / "run", writers=[DicomResults()])
    document = hd.sr.srread(tmp_path / "run" / "case_1" / "sr.dcm")
    for group in document.content.get_volumetric_roi_measurement_groups():
        entry = result["report"]["labels"][group.tracking_identifier]
        assert values_of(group)["Volume"][0] == entry["volume_ml"]
        assert values_of(group)["Probability"][0] == entry["mean_probability"]
