"""A prompt means the same however it comes: from a file of a run, in a call, in a request to a server, for a slide."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from PIL import Image

from bundle.inference.inferer import SegmentationInferer
from bundle.inference.prompts import PromptReader
from bundle.networks.prompt_reading import PromptReading
from bundle.phantoms import xray_phantom
from bundle.transforms.content_key import CONTENT_KEY
from tests.support.fake_segmenter import READER, TextReader

PROMPTS = [
    "RLL consolidation, left clear",
    "no consolidation on the left",
    "infektion, but not the spleeen",
    "everything except the infection",
    "$__import__('os').mkdir('evaluated'); infection",
]
PACKAGE = Path(__file__).resolve().parents[2] / "bundle"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, PromptReading]]:
    """(text, reading) of each call of the one method that reads prompts."""
    calls: list[tuple[str, PromptReading]] = []
    original = SegmentationInferer.read

    def noted(self: Any, network: Any, modality: Any, text: str, *rest: Any) -> PromptReading:
        calls.append((text, original(self, network, modality, text, *rest)))
        return calls[-1][1]

    monkeypatch.setattr(SegmentationInferer, "read", noted)
    return calls


def test_a_run_a_call_and_a_request_read_a_prompt_alike(
    workflow: Callable[..., ConfigWorkflow], tmp_path: Path, read: list[tuple[str, PromptReading]]
) -> None:
    torch.save(TextReader(12).state_dict(), tmp_path / "reader.pt")
    (tmp_path / "in").mkdir()
    for number in range(len(PROMPTS)):
        Image.fromarray(xray_phantom(3, size=96).image).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "prompts.json").write_text(json.dumps({str(n): text for n, text in enumerate(PROMPTS)}))
    run = workflow(
        "inference.yaml",
        input=str(tmp_path / "in"),
        output_dir=str(tmp_path / "out"),
        prompt_file=str(tmp_path / "prompts.json"),
        weights=str(tmp_path / "reader.pt"),
        network_def=READER,
    )
    run.run()
    by_run = {text: _told(reading) for text, reading in read}
    reports = {
        n: json.loads((tmp_path / "out" / str(n) / "report.json").read_text()) for n in range(len(PROMPTS))
    }
    assert [reports[n]["not_understood"] for n in reports] == [list(by_run[text][1]) for text in PROMPTS]

    inferer = run.parser.get_parsed_content("inferer")
    image = MetaTensor(torch.zeros(1, 3, 96, 96), meta={"modality": "X-ray", CONTENT_KEY: "film"})
    requested = partial(inferer, reader=PromptReader())  # as MONAI Label's task hands it on
    for asked in (inferer, requested):
        read.clear()
        readings = {text: asked(image, TextReader(12), prompt=text).meta["reading"] for text in PROMPTS}
        assert {text: _told(reading) for text, reading in readings.items()} == by_run
        assert [text for text, _ in read] == PROMPTS
    assert not Path("evaluated").exists()


def _told(reading: PromptReading) -> tuple[object, ...]:
    return reading.channels, reading.not_understood, dict(reading.read_as), reading.text


def test_no_other_place_reads_prompts() -> None:
    readers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "asked_for"
    }
    assert readers == {"inference/inferer.py"}
    task = (PACKAGE / "serving" / "label" / "tasks.py").read_text(encoding="utf-8")
    assert "partial(super().inferer(data), reader=self._reader)" in task
