"""No file of a run, and nothing on the screen, says whose study it is; DICOM objects alone do, for the archive."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
import pytest

from tests.support import dicom_series as made
from tests.support.dicom_files import report, save

NAMED = "M\u00fcller Jos\u00e9 19500203"
SIGNS = ("m\u00fcller", "mueller", "jos\u00e9", "jose", "p-4711", "19500203", "3.2.1950", "a-1-99")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A folder named after its patient, with a series, its report, a broken film and a localizer."""
    folder = tmp_path / NAMED
    made.write_ct(folder / "P-4711 CT", AccessionNumber="A-1-99")
    (folder / "P-4711 CT" / "report.txt").write_text("Jose Mueller, born 3.2.1950 (A-1-99): liver enlarged.")
    other = made.write_ct(
        folder / "jose",
        StudyInstanceUID=f"{made.ROOT}.5",
        SeriesInstanceUID=f"{made.ROOT}.6",
        PixelSpacing=None,
    )
    assert len(other) == made.SLICES
    for path in made.write_ct(folder / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]):
        header = pydicom.dcmread(path)
        header.SeriesInstanceUID = f"{made.ROOT}.9"
        header.save_as(path)
    text = report(made.STUDY, ("Findings", "Frau M\u00fcller: spleen."))
    text.PatientName = "M\u00fcller^Jos\u00e9"
    text.SpecificCharacterSet = "ISO_IR 100"
    save(text, folder / "Mueller_SR.dcm")
    (folder / "Mueller_cut.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\x00")
    return folder


def everything(output: Path, captured: Any) -> str:
    names = [str(path.relative_to(output)) for path in output.rglob("*")]
    texts = [
        path.read_text(encoding="utf-8")
        for path in output.rglob("*")
        if path.suffix in (".json", ".jsonl", ".html")
    ]
    return "\n".join([*names, *texts, captured.out, captured.err]).lower()


def test_nothing_that_is_written_names_the_patient(
    export: Path, segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert segment(export, "--output", tmp_path / "out") == 1
    captured = capfd.readouterr()
    found = everything(tmp_path / "out", captured)
    assert [sign for sign in SIGNS if sign in found] == []
    assert str(tmp_path).lower() not in found.replace(str(tmp_path / "out").lower(), "")
    assert "[name], born [date] ([number]): liver enlarged." in found
    assert "is a localizer; series" in captured.err and "is a structured report (sr)" in found
    (seg,) = (tmp_path / "out").glob("*/seg.dcm")
    assert str(pydicom.dcmread(seg).PatientName) == "M\u00fcller^Jos\u00e9"


def test_replaced_identifiers_are_the_same_in_all_objects_of_a_study(
    export: Path, segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "secret.yaml"
    config.write_text("replacement_seed: a secret\nprobability_dicom: fractional\n")
    options = ["--identifiers", "replace", "--config", config]
    for run in ("one", "two"):
        assert segment(export, "--output", tmp_path / run, *options) == 1
    found = everything(tmp_path / "one", capfd.readouterr())
    (folder,) = (path.parent for path in (tmp_path / "one").glob("*/seg.dcm"))
    objects = [pydicom.dcmread(folder / f"{name}.dcm") for name in ("seg", "sr", "probability")]
    original = [
        str(header.SOPInstanceUID) for header in map(pydicom.dcmread, (export / "P-4711 CT").glob("*.dcm"))
    ]
    for one in objects:
        text = str(one).lower()
        uids = [made.STUDY, made.SERIES, made.FRAME, *original]
        assert [sign for sign in (*SIGNS, *uids) if sign in text + found] == []
        assert one.DeidentificationMethod == "DICOGNITO" and one.PatientName and one.PatientID
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "StudyDate"):
        assert len({str(one[keyword].value) for one in objects}) == 1
    seg, sr, _ = objects
    (referenced,) = (
        item.ReferencedSOPInstanceUID
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
        if item.ReferencedSOPClassUID == seg.SOPClassUID
    )
    assert referenced == seg.SOPInstanceUID
    told = json.loads((folder / "report.json").read_text())
    assert told["dicom"]["seg"]["sop_instance_uid"] == seg.SOPInstanceUID
    assert told["source_series"]["study_instance_uid"] == seg.StudyInstanceUID
    again = pydicom.dcmread(tmp_path / "two" / folder.name / "seg.dcm")
    assert (again.PatientID, again.SOPInstanceUID) == (seg.PatientID, seg.SOPInstanceUID)
    assert hd.seg.segread(folder / "seg.dcm").get_volume().array.any()


def test_keep_leaves_all_as_it_is(
    export: Path, segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert segment(export, "--output", tmp_path / "out", "--identifiers", "keep") == 1
    found = everything(tmp_path / "out", capfd.readouterr())
    assert str(export / "P-4711 CT").lower() in found
    assert "jose mueller, born 3.2.1950 (a-1-99): liver enlarged." in found
    assert (tmp_path / "out" / "P-4711_CT" / "mask.nii.gz").is_file()
