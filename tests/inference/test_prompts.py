"""A prompt reaches the network as written, and the report says what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from bundle.phantoms import xray_phantom
from tests.support.fake_segmenter import READER, TEXTS, TextReader


@pytest.fixture
def segmented(
    workflow: Callable[..., ConfigWorkflow], tmp_path: Path
) -> Callable[[dict[str, str]], dict[str, Any]]:
    """Segment an X-ray for each prompt with the reader; case id -> report."""
    torch.save(TextReader(12).state_dict(), tmp_path / "reader.pt")

    def run(prompts: dict[str, str]) -> dict[str, Any]:
        (tmp_path / "in").mkdir()
        for case in prompts:
            Image.fromarray(xray_phantom(3, size=96).image).save(tmp_path / "in" / f"{case}.png")
        (tmp_path / "prompts.json").write_text(json.dumps(prompts))
        TextReader.told.clear()
        workflow(
            "inference.yaml",
            input=str(tmp_path / "in"),
            output_dir=str(tmp_path / "out"),
            prompt_file=str(tmp_path / "prompts.json"),
            weights=str(tmp_path / "reader.pt"),
            network_def=READER,
        ).run()
        reports = sorted((tmp_path / "out").glob("*/report.json"))
        return {path.parent.name: json.loads(path.read_text()) for path in reports}

    return run


def test_texts_reach_network_and_report_as_written(
    segmented: Callable[[dict[str, str]], dict[str, Any]], tmp_path: Path
) -> None:
    prompts = {f"case_{number:02d}": text for number, text in enumerate(TEXTS)}
    reports = segmented(prompts)
    assert TextReader.told == list(prompts.values())
    assert {case: report["prompt"] for case, report in reports.items()} == prompts
    for case, text in prompts.items():
        with Image.open(tmp_path / "out" / case / "mask.png") as picture:
            mask = np.array(picture) > 0
        assert mask[:, :48].all() == mask[:, :48].any() == ("left" in text)
        assert mask[:, 48:].all() == mask[:, 48:].any() == ("right" in text)
        assert reports[case]["found"] == ("left" in text or "right" in text)
    assert not Path("evaluated").exists()


@pytest.mark.parametrize(
    ("words", "warning"), [(100, None), (101, "1 token of the prompt was cut"), (8192, "8,092 tokens")]
)
def test_the_report_says_how_many_tokens_were_cut(
    words: int, warning: str | None, segmented: Callable[[dict[str, str]], dict[str, Any]]
) -> None:
    report = segmented({"film": " ".join(["left"] * words)})["film"]
    if warning is None:
        assert report["warnings"] == []
    else:
        assert len(report["warnings"]) == 1 and report["warnings"][0].startswith(warning)


@pytest.mark.parametrize("prompt", ["", "left lung"])
def test_a_network_that_reads_no_text_says_so(
    prompt: str, segment: Callable[..., int], tmp_path: Path
) -> None:
    Image.fromarray(xray_phantom(3, size=96).image).save(tmp_path / "film.png")
    assert segment(tmp_path / "film.png", "--output", tmp_path / "out", "--prompt", prompt) == 0
    warnings = json.loads((tmp_path / "out" / "film" / "report.json").read_text())["warnings"]
    assert [warning.startswith("This network reads no text") for warning in warnings] == [True] * bool(prompt)
