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

from bundle.segment_options import ROOT
from tests.conftest import ENVIRONMENT
from tests.serving.conftest import Orthanc
from tests.serving.helpers import NAMES, phantom_series, wait_for

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
    assert said.count("--resample-slices") == 1 and journal.count("--resample-slices") == 1
    assert not any(name in said + journal for name in NAMES)

    # nothing is done twice: not by the same node, nor by one that has lost its state
    assert pacs(*watch, "--state", tmp_path / "state") == 0
    assert (tmp_path / "state" / "journal.jsonl").read_text() == journal
    assert pacs(*watch, "--state", tmp_path / "other") == 1
    assert results_of(orthanc, ct.study) == found


def test_over_c_store(orthanc: Orthanc, commands: Any, tiny: Any, tmp_path: Path) -> None:
    ct = phantom_series(5)
    study = orthanc.store(ct.write(tmp_path / "series"))
    # Orthanc takes objects from those it knows only; it knows the node as 'bundle'
    node = ["pacs", "listen", "--allow", "ORTHANC", "--port", orthanc.listener, "--state", tmp_path / "state"]
    node += ["--forward-to", f"127.0.0.1:{orthanc.dicom}:ORTHANC", "--settle", 0.5, "--poll", 0.1]
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
    for name, objects in (("seg", found["SEG"]), ("sr", found["SR"])):
        [written] = (tmp_path / "state" / "results").rglob(f"{name}.dcm")
        assert objects == [pydicom.dcmread(written)]


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
