"""`python -m bundle pacs`: what starts, what does not, how it ends, and what it says meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import filelock
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from bundle.cases.dicom.headers import MANUFACTURER
from bundle.commands.main import parser
from bundle.commands.pacs_node import series_segmenter
from tests.support.dicom_files import save
from tests.support.pacs_node import NAMES, free_port, phantom_series, study_report, wait_for

Pacs = Callable[..., int]


def test_without_its_packages_one_sentence(
    pacs: Pacs, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pynetdicom", "dicomweb_client"):
        monkeypatch.setitem(sys.modules, module, None)
    assert pacs("listen", "--allow", "A", "--state", tmp_path / "state") == 2
    packages = "dicomweb-client and pynetdicom; run: python -m pip install dicomweb-client pynetdicom"
    assert capfd.readouterr().err == f"error: a PACS node needs {packages}\n"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["dicomweb", "--url", "http://nurse:s3cret-pw@127.0.0.1"], "BUNDLE_DICOMWEB_USER"),
        (["dicomweb", "--url", "http://127.0.0.1", "--query", "PatientName"], "--query"),
        (["dicomweb", "--url", "http://127.0.0.1", "--ca", "nowhere.pem"], "--ca: nowhere.pem"),
        (["dicomweb", "--url", "http://127.0.0.1", "--days", "-1"], "--days"),
        (["dicomweb", "--url", "http://127.0.0.1", "--settle", "-1"], "--settle"),
        (["dicomweb", "--url", "http://127.0.0.1", "--poll", "nan"], "--poll"),
        (["dicomweb", "--url", "http://127.0.0.1", "--attempts", "0"], "--attempts"),
        (["listen", "--allow", "A" * 17], "AE title"),
        (["listen", "--allow", "A,"], "AE title"),
        (["listen", "--allow", "A", "--forward-to", "somewhere"], "host:port:AET"),
        (["listen", "--allow", "A", "--forward-tls"], "--tls-cert"),
        (["listen", "--allow", "A", "--tls-cert", "nowhere.pem"], "--tls-cert: nowhere.pem"),
        (["listen", "--allow", "A", "--max-gb", "0"], "--max-gb"),
    ],
)
def test_what_cannot_start_says_why(
    pacs: Pacs, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert pacs(*arguments, "--state", tmp_path / "state") == 2
    said = capfd.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and named in said
    assert "s3cret-pw" not in said and "Traceback" not in said


def test_weights_that_cannot_be_used_start_nothing(
    pacs: Pacs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "nonsense.pt"
    weights.write_bytes(b"nonsense")
    state = ["--state", tmp_path / "state"]
    assert pacs("dicomweb", "--url", "http://127.0.0.1:1", *state, "--steps", "0") == 2
    assert "steps" in capfd.readouterr().err


def test_two_nodes_share_no_folder(pacs: Pacs, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").mkdir()
    with filelock.FileLock(tmp_path / "state" / "lock"):
        assert pacs("dicomweb", "--url", "http://127.0.0.1:1", "--state", tmp_path / "state") == 2
    assert "another node works with this folder" in capfd.readouterr().err


def test_a_journal_that_cannot_be_written_ends_the_node(
    pacs: Pacs, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bundle.commands.pacs_node.Node.run", run)
    assert pacs("dicomweb", "--url", "http://127.0.0.1:1", "--state", tmp_path / "state") == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert (
        said
        == f"error: {tmp_path / 'state'}: cannot be written (No space left on device); free space and start again."
    )


def test_credentials_are_nowhere(
    pacs: Pacs, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLE_DICOMWEB_USER", "nurse")
    monkeypatch.setenv("BUNDLE_DICOMWEB_PASSWORD", "s3cret-pw")
    arguments = ["dicomweb", "--url", "http://127.0.0.1:1/dicom-web", "--state", tmp_path / "state"]
    query = ["--query", "PatientID=HX-48151"]
    assert pacs(*arguments, *query, "--once", "--debug") == 2
    output = capfd.readouterr()
    assert "error: The server cannot be reached." in output.err
    for path in (tmp_path / "state").rglob("*"):
        assert path.is_dir() or b"s3cret-pw" not in path.read_bytes()
    assert not any(
        secret in output.err + output.out for secret in ("nurse", "s3cret-pw", "bnVyc2U6", "HX-48151")
    )


def sent(port: int, folder: Path) -> None:
    """Send a series, once the node listens."""
    entity = AE("SCANNER")
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    tried: list[Any] = []

    def associated() -> bool:
        tried.append(entity.associate("127.0.0.1", port, ae_title="BUNDLE"))
        return bool(tried[-1].is_established)

    wait_for(associated, 60)
    association = tried[-1]
    for path in sorted(folder.iterdir()):
        assert association.send_c_store(path).Status == 0
    association.release()


def test_what_is_sent_is_segmented_until_asked_to_end(commands: Any, tiny: Any, tmp_path: Path) -> None:
    ct, broken, own = phantom_series(1), phantom_series(2), phantom_series(3)
    broken.slices.pop(4)
    for dataset in own.slices:
        dataset.Manufacturer = MANUFACTURER
    state, port = tmp_path / "state", free_port()
    journal = state / "journal.jsonl"

    def lines() -> list[dict[str, Any]]:
        text = journal.read_text() if journal.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def ended() -> dict[str, dict[str, Any]]:
        return {line["series"]: line for line in lines() if line["status"] in ("done", "failed", "left out")}

    def watch(process: int) -> None:
        for number, series in enumerate((ct, broken, own)):
            sent(port, series.write(tmp_path / f"series_{number}"))
        wait_for(lambda: len(ended()) == 3 and not any(files for *_, files in os.walk(state / "spool")), 60)
        os.kill(process, signal.SIGTERM)

    node = ["pacs", "listen", "--allow", "SCANNER", "--port", port, "--state", state, "--settle", 0.3]
    network = ["--config", tiny.config, "--weights", tiny.random, "--device", "cpu", "--poll", 0.1]
    done = commands("bundle", *node, *network, watch=watch)
    assert done.code == 130, done.stderr
    assert done.stderr.splitlines()[-1].startswith("Stopped; what was begun is done again")
    found = ended()
    assert found[ct.series]["status"] == "done" and len(found[ct.series]["objects"]) == 2
    assert found[broken.series]["status"] == "failed" and "resample_slices" in found[broken.series]["reason"]
    assert found[own.series]["status"] == "left out" and "this software" in found[own.series]["reason"]
    assert str(state) not in journal.read_text()
    [seg] = (state / "results").rglob("seg.dcm")
    [sr] = (state / "results").rglob("sr.dcm")
    made = [pydicom.dcmread(path) for path in (seg, sr)]
    assert [one.SOPInstanceUID for one in made] == found[ct.series]["objects"]
    assert {one.StudyInstanceUID for one in made} == {ct.study}
    assert (state.stat().st_mode & 0o777) == 0o700
    said = journal.read_text() + done.stderr + done.stdout
    said += "".join(path.read_text() for path in state.rglob("*.json"))
    assert not any(name in said for name in NAMES)


def test_the_same_series_gets_the_same_objects(tiny: Any, tmp_path: Path) -> None:
    """UIDs follow from series and settings: not from the batch size, but from the seed and the prompt."""
    folder = phantom_series(4).write(tmp_path / "series")
    options = [
        "--config",
        tiny.config,
        "--weights",
        tiny.random,
        "--device",
        "cpu",
        "--state",
        "unused",
        "--modality",
        "CT",
    ]
    uids = []
    for number, further in enumerate(([], ["--batch-size", 3], ["--seed", 1], ["--prompt", "liver"])):
        node = ["pacs", "listen", "--allow", "A", *options, *further]
        output = tmp_path / f"results_{number}"
        segment = series_segmenter(parser().parse_args([str(one) for one in node]), output)
        objects = segment(folder, output).objects
        assert {pydicom.dcmread(output / path).SOPInstanceUID for path in objects.values()} == set(objects)
        uids.append(list(objects))
    assert uids[0] == uids[1] and len({uid for found in uids for uid in found}) == 6


def test_the_report_of_the_study_is_the_prompt(tiny: Any, tmp_path: Path) -> None:
    ct = phantom_series(4)
    folder = ct.write(tmp_path / "series")
    options = [
        "--config",
        tiny.config,
        "--weights",
        tiny.random,
        "--device",
        "cpu",
        "--state",
        "unused",
        "--modality",
        "CT",
    ]
    node = ["pacs", "listen", "--allow", "A", "--prompt-from-report", *options]
    output = tmp_path / "results"
    segment = series_segmenter(parser().parse_args([str(one) for one in node]), output)
    segment.network.read = read = Mock(wraps=segment.network.read)
    texts = {
        "none": [],
        "own": [study_report(ct.study, "Spleen.", MANUFACTURER)],
        "other": [study_report("1.2.3", "Spleen.")],
        "liver": [study_report(ct.study, "Sorrow: liver enlarged.")],
        "amended": [
            study_report(ct.study, "Liver enlarged."),
            study_report(ct.study, "Spleen enlarged."),
            study_report(ct.study, "Kidney.", MANUFACTURER),
        ],
    }
    texts["amended"][1].ContentDate = texts["amended"][2].ContentDate = "20200301"
    prompts, objects = {}, {}
    for name, written in texts.items():
        files = [save(one, tmp_path / name / f"{number}.dcm") for number, one in enumerate(written)]
        outcome = segment(folder, output / name, files)
        told = json.loads(next((output / name).glob("*/report.json")).read_text())
        prompts[name], objects[name] = told["prompt"], set(outcome.objects)
        prose = name in ("liver", "amended")
        assert (told["prompt_source"] or "") == outcome.prompt_source == ("DICOM SR" if prose else "")
        assert any("no report in prose" in note for note in outcome.notes) is not prose
    assert prompts["amended"] == "Spleen enlarged." and not any(
        prompts[name] for name in ("none", "own", "other")
    )
    assert read.call_count == 3, "each text once, however many series come with it"
    assert "iver enlarged." in prompts["liver"] and not any(name in prompts["liver"] for name in NAMES)
    # what the words say decides on the objects, and that there are none does not
    assert objects["none"] == objects["own"] == objects["other"]
    assert len({*objects["none"], *objects["liver"], *objects["amended"]}) == 6
    with pytest.raises(SystemExit):
        parser().parse_args([*map(str, node), "--prompt", "liver"])
