"""When DICOM objects are written, what the report says of them, and that an odd header costs no mask."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from bundle.results import DicomResults, Prediction, write_index, write_prediction, writer
from bundle.results.result_files import known_files
from tests.support import dicom_series as made

Make = Callable[..., Prediction]
LABELS = {3: "left kidney", 5: "liver"}
NAMES = ["index.html", "mask.nii.gz", "preview.png", "probability.nii.gz", "report.json", "viewer.js"]


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Previews take longer than all the rest and have their own tests."""
    monkeypatch.setattr(writer, "write_preview", lambda _prediction, _report, path: path.write_bytes(b""))


@pytest.fixture
def prediction(tmp_path: Path) -> Prediction:
    return made.predicted(made.volume_case(made.write_ct(tmp_path / "series")), LABELS)


def run(prediction: Prediction, folder: Path, **options: Any) -> tuple[list[str], dict[str, Any]]:
    """File names of the case, and what report.json says."""
    result = write_prediction(prediction, folder, writers=[DicomResults(**options)])
    report = json.loads((folder / "case_1" / "report.json").read_text(encoding="utf-8"))
    assert report == result["report"]
    return [name.split("/")[1] for name in result["files"]], report


def test_dicom_input_gets_dicom_results_and_the_rest(tmp_path: Path, prediction: Prediction) -> None:
    files, report = run(prediction, tmp_path / "run", probability="fractional")
    assert files == sorted([*NAMES, "uncertainty.nii.gz", "seg.dcm", "sr.dcm", "probability.dcm"])
    assert [entry["file"] for entry in report["dicom"].values()] == ["seg.dcm", "sr.dcm", "probability.dcm"]
    for entry in report["dicom"].values():
        stored = pydicom.dcmread(tmp_path / "run" / "case_1" / entry["file"])
        assert (
            stored.SOPInstanceUID == entry["sop_instance_uid"] == stored.file_meta.MediaStorageSOPInstanceUID
        )
        assert stored.SeriesInstanceUID == entry["series_instance_uid"]
    assert report["dicom"]["seg"]["segments"] == {"left kidney": 1, "liver": 2}
    mask = nib.load(tmp_path / "run" / "case_1" / "mask.nii.gz")
    assert (np.asarray(mask.dataobj) == prediction.mask).all()
    np.testing.assert_allclose(mask.affine, prediction.case.affine, atol=1e-4)


def test_an_older_result_is_replaced(tmp_path: Path, prediction: Prediction) -> None:
    run(prediction, tmp_path / "run", probability="parametric_map")
    files, _ = run(prediction, tmp_path / "run", sr=False)
    assert "seg.dcm" in files and "sr.dcm" not in files and "probability.dcm" not in files
    assert not (tmp_path / "run" / "case_1" / "sr.dcm").exists()


def test_a_second_run_with_every_object_replaces_the_first_and_the_pages_link_to_all(
    tmp_path: Path, prediction: Prediction
) -> None:
    for _ in range(2):
        files, _ = run(prediction, tmp_path / "run", rtstruct=True, probability="fractional")
    assert set(files) <= set(known_files()) and "rtstruct.dcm" in files
    page = (tmp_path / "run" / "case_1" / "index.html").read_text(encoding="utf-8")
    assert '<a href="./rtstruct.dcm">rtstruct.dcm</a> <span class="dim">DICOM RT structure set, ' in page
    entry = {"id": "case_1", "status": "done", "files": [f"case_1/{name}" for name in files]}
    index = write_index(tmp_path / "run", {"cases": [entry]}).read_text(encoding="utf-8")
    for name in ("seg.dcm", "sr.dcm", "rtstruct.dcm", "probability.dcm"):
        assert f'<a href="./case_1/{name}">{name}</a>' in index
    assert '<a href="./case_1/mask.nii.gz">mask</a>' in index and "viewer.js</a>" not in index
    run(prediction, tmp_path / "run", seg=False)
    assert not (tmp_path / "run" / "case_1" / "rtstruct.dcm").exists()


def test_other_input_is_as_before(tmp_path: Path, make_prediction: Make) -> None:
    files, report = run(make_prediction(), tmp_path / "run")
    assert files == sorted([*NAMES, "uncertainty.nii.gz"])
    assert "dicom" not in report and report["warnings"] == []


def test_asking_for_dicom_of_a_nifti_is_answered_once(tmp_path: Path, make_prediction: Make) -> None:
    files, report = run(make_prediction(), tmp_path / "run", seg=True, probability="fractional")
    assert files == sorted([*NAMES, "uncertainty.nii.gz"])
    assert report["warnings"] == ["The input is not DICOM: no DICOM objects were written."]


def test_none_are_written_where_none_are_wanted(tmp_path: Path, prediction: Prediction) -> None:
    files, report = run(prediction, tmp_path / "run", seg=False)
    assert "seg.dcm" not in files and "dicom" not in report and report["warnings"] == []


def test_nothing_found_is_no_segmentation(tmp_path: Path, prediction: Prediction) -> None:
    prediction.mask[:] = 0
    files, report = run(prediction, tmp_path / "run", probability="fractional")
    assert "seg.dcm" not in files and "sr.dcm" not in files and "probability.dcm" in files
    assert report["warnings"] == ["No structure was found: no DICOM segmentation or report was written."]
    nothing = replace(prediction, labels={}, probability=prediction.probability[:0])
    for form in ("fractional", "parametric_map"):
        _, report = run(nothing, tmp_path / "run", probability=form)
        assert len(report["warnings"]) == 2 and "dicom" not in report


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientSex": "X", "PatientBirthDate": "unknown", "StudyTime": "noon"},
        {"AccessionNumber": None, "StudyID": None, "ReferringPhysicianName": None, "StudyDate": None},
        {"PatientName": None, "PatientID": None, "PatientSex": None, "PatientBirthDate": None},
        {"FrameOfReferenceUID": None, "PositionReferenceIndicator": None},
        {"FrameOfReferenceUID": ""},
        {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "\u5c71\u7530^\u592a\u90ce"},
        {"SpecificCharacterSet": None, "PatientName": "Doe^Jane"},
        {"ContentDate": None, "ContentTime": None, "SeriesDate": None, "SeriesTime": None},
        {"PatientName": "a" * 80, "PatientID": "b" * 80},
        {"SeriesNumber": None, "InstanceNumber": None},
        {"PatientAge": "0Y", "PatientWeight": "", "StudyDate": "2024.05.06"},
        {"SliceThickness": None},
        {"SliceThickness": ""},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_odd_headers_still_get_a_segmentation(tmp_path: Path, changes: dict[str, Any]) -> None:
    case = made.volume_case(made.write_ct(tmp_path / "series", **changes))
    files, report = run(made.predicted(case, LABELS), tmp_path / "run")
    assert report["warnings"] == [] and {"seg.dcm", "sr.dcm"} <= set(files)
    seg = pydicom.dcmread(tmp_path / "run" / "case_1" / "seg.dcm")
    assert seg.FrameOfReferenceUID and seg.ContentDate
    if "\u5c71" in str(changes.get("PatientName")):
        assert str(seg.PatientName) == changes["PatientName"]


def test_numbers_with_too_many_digits_are_read(tmp_path: Path) -> None:
    """A decimal string holds 16 characters (PS3.5 6.2), which many exporters do not count."""
    files = made.write_ct(tmp_path / "series", made.OBLIQUE)
    for path in files:
        header = pydicom.dcmread(path)
        texts = {"ImagePositionPatient": "-12.50000000000000000", "PixelSpacing": "0.900000000000000022"}
        for keyword, first in texts.items():
            rest = [f"{float(value):.18f}" for value in header.get(keyword)[1:]]
            raw = "\\".join([first, *rest]).encode()
            tag = header[keyword].tag
            header[tag] = pydicom.dataelem.RawDataElement(
                tag, "DS", len(raw) + len(raw) % 2, raw + b" " * (len(raw) % 2), 0, False, True
            )
        header.save_as(path)
    case = made.volume_case(files)
    assert len(str(case.header.datasets()[1].PixelSpacing[0].original_string)) > 16
    files_written, report = run(made.predicted(case, LABELS), tmp_path / "run")
    assert report["warnings"] == [] and "seg.dcm" in files_written


def test_an_impossible_header_costs_the_segmentation_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    case = made.volume_case(
        made.write_ct(tmp_path / "series", PatientName="Secret^Name^^^^^^", PatientID="S-99")
    )
    prediction = made.predicted(case, LABELS)
    first = pydicom.dcmread(case.header.files[3])
    first.FrameOfReferenceUID = f"{made.ROOT}.77"
    first.save_as(case.header.files[3])
    caplog.clear()
    files, report = run(prediction, tmp_path / "run", probability="fractional")
    assert files == sorted([*NAMES, "uncertainty.nii.gz"])
    assert len(report["warnings"]) == 2
    assert report["warnings"][0] == (
        "The DICOM segmentation and report could not be written: "
        "the source's header does not allow it (ValueError)."
    )
    seen = "".join(capfd.readouterr()) + caplog.text + json.dumps(report)
    assert "Secret" not in seen and "S-99" not in seen


@pytest.mark.filterwarnings("ignore")
def test_no_identifier_reaches_a_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    case = made.volume_case(made.write_ct(tmp_path / "series", PatientName="Secret Name", PatientID="S-99"))
    prediction = made.predicted(case, LABELS)
    caplog.clear()
    files, report = run(prediction, tmp_path / "run")
    seen = "".join(capfd.readouterr()) + caplog.text + json.dumps(report) + "".join(files)
    assert "Secret" not in seen and "S-99" not in seen and "1950" not in seen


def test_a_resampled_volume_is_not_taken_for_the_images(tmp_path: Path, prediction: Prediction) -> None:
    source = prediction.case.header
    prediction.case.header = replace(source, files=source.files[:-1])
    files, report = run(prediction, tmp_path / "run")
    assert "seg.dcm" not in files
    assert len(report["warnings"]) == 1 and "not on the grid of the DICOM images" in report["warnings"][0]


def test_images_in_another_order_or_place_are_refused(tmp_path: Path, prediction: Prediction) -> None:
    source, affine = prediction.case.header, prediction.case.affine
    assert affine is not None
    prediction.case.header = replace(source, files=source.files[::-1])
    _, report = run(prediction, tmp_path / "run")
    assert report["warnings"] == [
        "The DICOM images do not lie where the mask has their slices: no DICOM objects were written."
    ]
    prediction.case.header = source
    # one row further
    prediction.case.affine = affine.copy()
    prediction.case.affine[:3, 3] += affine[:3, 1]
    assert len(run(prediction, tmp_path / "run")[1]["warnings"]) == 1


def test_a_tiled_slide_is_refused(tmp_path: Path) -> None:
    case = made.film_case(made.write_film(tmp_path / "film", NumberOfFrames=1))
    prediction = made.predicted(case, LABELS)
    header = pydicom.dcmread(case.header.files[0])
    header.NumberOfFrames = 4
    header.save_as(case.header.files[0])
    _, report = run(prediction, tmp_path / "run")
    assert len(report["warnings"]) == 1 and "several frames" in report["warnings"][0]


def test_a_film_has_no_parametric_map(tmp_path: Path) -> None:
    case = made.film_case(made.write_film(tmp_path / "film"))
    files, report = run(made.predicted(case, LABELS), tmp_path / "run", probability="parametric_map")
    assert "seg.dcm" in files and "probability.dcm" not in files
    assert len(report["warnings"]) == 1 and "fractional" in report["warnings"][0]


@pytest.mark.parametrize(
    "options",
    [{"seg": "yes"}, {"seg": 1}, {"seg_type": "binary"}, {"seg_type": "FRACTIONAL"}, {"probability": True}],
)
def test_an_option_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        DicomResults(**options)


def test_uids_follow_from_a_request_where_there_is_one(tmp_path: Path, prediction: Prediction) -> None:
    def uids(prediction: Prediction, request: str, **options: Any) -> dict[str, str]:
        folder = tmp_path / f"{request}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        supplement = DicomResults(probability="fractional", **options)(prediction, folder, request=request)
        assert supplement is not None
        return {kind: entry["sop_instance_uid"] for kind, entry in supplement.entries["dicom"].items()}

    # as another device may compute a voxel otherwise
    mask, probability = prediction.mask.copy(), prediction.probability.copy()
    mask[tuple(np.argwhere(mask)[0])] = 0
    probability[0, 0, 0, 0] = 1.0 - probability[0, 0, 0, 0]
    other = replace(prediction, mask=mask, probability=probability)
    asked = uids(prediction, "a")
    assert len(set(asked.values())) == 3
    assert uids(other, "a") == asked
    for others in (
        uids(prediction, "b"),
        uids(replace(prediction, settings={"seed": 99}), "a"),
        uids(prediction, "a", weights=Path(__file__)),
        uids(prediction, ""),
    ):
        assert not set(others.values()) & set(asked.values())
    assert not set(uids(other, "").values()) & set(uids(prediction, "").values())
