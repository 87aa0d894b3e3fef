"""Configuration and command line lead to the DICOM results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

from tests.support import dicom_series as made

Segment = Callable[..., int]


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(-200, 300, (24, 20, 4)).astype(np.int16)
    path = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([4.0, 4.0, 8.0, 1.0])), path)  # type: ignore[attr-defined, no-untyped-call]
    return path


@pytest.fixture
def series(tmp_path: Path) -> Path:
    made.write_ct(tmp_path / "volume")
    return tmp_path / "volume"


def report_of(output: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((output / "volume" / "report.json").read_text(encoding="utf-8"))
    return report


def test_dicom_input_gets_seg_and_sr_without_asking(series: Path, segment: Segment, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert segment(series, "--output", output) == 0
    report = report_of(output)
    identity = {key: report["source_series"][key] for key in ("study_instance_uid", "series_instance_uid")}
    assert identity == {"study_instance_uid": made.STUDY, "series_instance_uid": made.SERIES}
    assert report["dicom"]["seg"]["type"] == "BINARY"
    sha256 = json.loads((output / "run.json").read_text())["weights_sha256"]
    seg = pydicom.dcmread(output / "volume" / "seg.dcm")
    assert seg.DeviceSerialNumber == sha256
    [entry] = json.loads((output / "run.json").read_text())["cases"]
    assert {"volume/seg.dcm", "volume/sr.dcm"} <= set(entry["files"])
    assert "seg.dcm" in (output / "index.html").read_text(encoding="utf-8")
    assert segment(series, "--output", output) == 0
    assert pydicom.dcmread(output / "volume" / "seg.dcm").SOPInstanceUID == seg.SOPInstanceUID


def test_the_options_reach_the_writer(series: Path, segment: Segment, tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    config.write_text("dicom_sr: false\nprobability_dicom: fractional\n")
    output = tmp_path / "out"
    assert segment(series, "--output", output, "--seg-type", "LABELMAP", "--config", config) == 0
    assert set(report_of(output)["dicom"]) == {"seg", "probability"}
    assert pydicom.dcmread(output / "volume" / "seg.dcm").SegmentationType == "LABELMAP"


def test_dicom_of_a_nifti_is_answered_with_a_warning(nifti: Path, segment: Segment, tmp_path: Path) -> None:
    assert segment(nifti, "--output", tmp_path / "asked", "--dicom-seg") == 0
    assert segment(nifti, "--output", tmp_path / "not_asked") == 0
    sentence = "The input is not DICOM: no DICOM objects were written."
    assert report_of(tmp_path / "asked")["warnings"].count(sentence) == 1
    assert sentence not in report_of(tmp_path / "not_asked")["warnings"]
    names = [{path.name for path in (tmp_path / run / "volume").iterdir()} for run in ("asked", "not_asked")]
    assert names[0] == names[1] and "seg.dcm" not in names[0]


def test_an_option_that_is_none_starts_nothing(
    nifti: Path, segment: Segment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "options.yaml"
    config.write_text("probability_dicom: float\n")
    assert segment(nifti, "--output", tmp_path / "out", "--config", config) == 2
    assert "probability_dicom must be one of none, fractional, parametric_map" in capfd.readouterr().err
