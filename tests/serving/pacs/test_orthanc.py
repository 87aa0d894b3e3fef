"""Beside Orthanc: over DICOMweb and over C-STORE, and killed over and over."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests

from bundle.root import ROOT
from tests.conftest import ENVIRONMENT
from tests.serving.conftest import Orthanc
from tests.support.pacs_node import NAMES, phantom_series, study_report, wait_for

Pacs = Callable[..., int]


def results_of(orthanc: Orthanc, study: str) -> dict[str, list[pydicom.Dataset]]:
    return {modality: orthanc.find(study, modality) for modality in ("SEG", "SR")}


def test_over_dicomweb(
    orthanc: Orthanc, pacs: Pacs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ct, broken = phantom_series(1), phantom_series(2)
    broken.slices.pop(3)
    for number, series in enumerate((ct, broken)):
        orthanc.store(series.write(tmp_path / f"series_{number}"))
    watch = ["dicomweb", "--url", orthanc.dicomweb, "--settle", 0, "--poll", 0.1, "--once", "--keep-results"]
    assert pacs(*watch, "--state", tmp_path / "state") == 1
    found = results_of(orthanc, ct.study)
    for name, objects in (("seg", found["SEG"]), ("sr", found["SR"])):
        [written] = (tmp_path / "state" / "results" / ct.series).rglob(f"{name}.dcm")
        assert objects == [pydicom.dcmread(written)]
    assert found["SEG"][0].PatientID == "HX-48151" and found["SEG"][0].ReferencedSeriesSequence
    assert results_of(orthanc, broken.study) == {"SEG": [], "SR": []}
    said = capfd.readouterr().err
    journal = (tmp_path / "state" / "journal.jsonl").read_text()
    assert said.count("resample_slices") == 1 and journal.count("resample_slices") == 1
    assert not any(name in said + journal for name in NAMES)

    # nothing is done twice: not by the same node, nor by one that has lost its state
    assert pacs(*watch, "--state", tmp_path / "state") == 0
    assert (tmp_path / "state" / "journal.jsonl").read_text() == journal
    assert pacs(*watch, "--state", tmp_path / "other") == 1
    assert results_of(orthanc, ct.study) == found


def test_the_report_of_a_study_is_its_prompt_and_ours_never_is(
    orthanc: Orthanc, pacs: Pacs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    read, silent = phantom_series(6), phantom_series(7)
    read.slices.append(study_report(read.study, "Mrs Sorrow: the liver is enlarged."))
    for number, series in enumerate((read, silent)):
        orthanc.store(series.write(tmp_path / f"series_{number}"))
    watch = ["dicomweb", "--url", orthanc.dicomweb, "--settle", 0, "--poll", 0.1, "--once", "--keep-results"]
    watch += ["--query", f"StudyInstanceUID={read.study},{silent.study}", "--prompt-from-report"]

    def told(state: str) -> dict[str, tuple[Any, Any, list[Any]]]:
        """Series -> prompt and its source in the report, and what the journal says of the source."""
        lines = [json.loads(line) for line in (tmp_path / state / "journal.jsonl").read_text().splitlines()]
        found = {}
        for series in (read.series, silent.series):
            [path] = (tmp_path / state / "results" / series).rglob("report.json")
            report = json.loads(path.read_text())
            sources = [one.get("prompt_source") for one in lines if one["series"] == series]
            found[series] = report["prompt"], report["prompt_source"], sources
        return found

    assert pacs(*watch, "--state", tmp_path / "state") == 0
    first = told("state")
    prompt, source, journalled = first[read.series]
    assert prompt.endswith(": the liver is enlarged.") and source == "DICOM SR"
    assert journalled == [None, "DICOM SR", "DICOM SR"]
    assert first[silent.series] == ("", None, [None, None, None])
    said = capfd.readouterr().err + (tmp_path / "state" / "journal.jsonl").read_text()
    assert said.count("no report in prose") == 2 and "enlarged" not in said
    assert not any(name in said + prompt for name in NAMES)
    found = {series.study: results_of(orthanc, series.study) for series in (read, silent)}
    assert len(found[read.study]["SR"]) == 2 and len(found[silent.study]["SR"]) == 1

    # a node that has lost its state finds our own report beside the hospital's, and the same comes of it
    assert pacs(*watch, "--state", tmp_path / "other") == 0
    assert told("other") == first
    assert {series.study: results_of(orthanc, series.study) for series in (read, silent)} == found


def test_over_c_store(orthanc: Orthanc, commands: Any, tiny: Any, tmp_path: Path) -> None:
    ct = phantom_series(5)
    ct.slices.append(study_report(ct.study, "The spleen is enlarged."))
    study = orthanc.store(ct.write(tmp_path / "series"))
    # Orthanc takes objects from those it knows only; it knows the node as 'bundle'
    node = ["pacs", "listen", "--allow", "ORTHANC", "--port", orthanc.listener, "--state", tmp_path / "state"]
    node += ["--forward-to", f"127.0.0.1:{orthanc.dicom}:ORTHANC", "--settle", 0.5, "--poll", 0.1]
    node += ["--prompt-from-report"]
    network = ["--config", tiny.config, "--weights", tiny.random, "--device", "cpu", "--keep-results"]
    echo = f"{orthanc.url}/modalities/bundle/echo"
    journal = tmp_path / "state" / "journal.jsonl"

    def watch(process: int) -> None:
        wait_for(lambda: requests.post(echo, data="{}", timeout=60).ok, 60)
        orthanc.post("/modalities/bundle/store", study)
        wait_for(lambda: journal.exists() and '"done"' in journal.read_text(), 60)
        os.kill(process, signal.SIGTERM)

    done = commands("bundle", *node, *network, watch=watch)
    assert done.code == 130, done.stderr
    found = results_of(orthanc, ct.study)
    found["SR"] = [one for one in found["SR"] if one.SOPClassUID != ct.slices[-1].SOPClassUID]
    for name, objects in (("seg", found["SEG"]), ("sr", found["SR"])):
        [written] = (tmp_path / "state" / "results").rglob(f"{name}.dcm")
        assert objects == [pydicom.dcmread(written)]
    [report] = (tmp_path / "state" / "results").rglob("report.json")
    told = json.loads(report.read_text())
    assert (told["prompt"], told["prompt_source"]) == ("The spleen is enlarged.", "DICOM SR")
    assert (
        journal.read_text().count('"prompt_source": "DICOM SR"') == 2
        and "enlarged" not in journal.read_text()
    )


@pytest.mark.slow
def test_killed_at_twenty_moments_every_study_has_one_seg_and_one_sr(
    orthanc: Orthanc, tiny: Any, tmp_path: Path
) -> None:
    studies = [phantom_series(seed) for seed in range(20, 30)]
    for number, ct in enumerate(studies):
        orthanc.store(ct.write(tmp_path / f"study_{number}"))
    state = tmp_path / "state"
    node = [
        sys.executable,
        "-m",
        "bundle",
        "pacs",
        "dicomweb",
        "--url",
        orthanc.dicomweb,
        "--state",
        str(state),
    ]
    node += ["--settle", "0", "--poll", "0.1", "--config", str(tiny.config), "--weights", str(tiny.random)]
    node += ["--query", f"StudyInstanceUID={','.join(ct.study for ct in studies)}", "--device", "cpu"]
    moments = random.Random(0)
    killed: Counter[str] = Counter()
    for _ in range(20):
        steps = min(len(statuses(state)) + moments.randrange(4), 3 * len(studies))
        with subprocess.Popen(node, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None and process.stderr.readline().startswith("Watching")
            # so many steps further, whatever the machine's speed, and then anywhere within the step
            wait_for(partial(reached, state, steps), 60)
            time.sleep(moments.uniform(0.0, 0.2))
            process.kill()
        killed[statuses(state)[-1]] += 1
    done = subprocess.run(
        [*node, "--once"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for ct in studies:
        found = results_of(orthanc, ct.study)
        assert {modality: len(objects) for modality, objects in found.items()} == {"SEG": 1, "SR": 1}, killed
    assert sum(killed.values()) == 20 and killed.keys() >= {"started", "segmented"}, killed
    assert statuses(state).count("done") == 10
    assert not any((state / "results").iterdir())


def statuses(state: Path) -> list[str]:
    """Of the lines of the journal, which a process may be writing."""
    journal = state / "journal.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [json.loads(line)["status"] for line in lines if line.endswith("}")] or ["nothing"]


def reached(state: Path, steps: int) -> bool:
    return len(statuses(state)) >= steps
