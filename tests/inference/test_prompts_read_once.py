"""The text prior sees each distinct text once a run, however many images, passes, cases and ways to ask there are."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from bundle.inference import CaseEvaluator
from bundle.inference.prompts import PromptReader
from bundle.networks import TextPrior
from bundle.networks.text_prior import TextFeatures
from bundle.phantoms import xray_phantom
from tests.support.fake_segmenter import FakeSegmenter, TextReader

NETWORK: dict[str, Any] = {"read_text": True, "text_fusion_width": 16, "steps": 2, "members": 2}


@pytest.fixture
def texts_read(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of each pass of the text prior."""
    calls: list[list[str]] = []
    forward = TextPrior.forward

    def counted(self: TextPrior, prompts: Any) -> TextFeatures:
        calls.append(list(prompts))
        return forward(self, prompts)

    monkeypatch.setattr(TextPrior, "forward", counted)
    return calls


@pytest.fixture(scope="module")
def weights(workflow: Callable[..., ConfigWorkflow], tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    network = workflow("inference.yaml", **NETWORK).parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.fixture
def run(
    workflow: Callable[..., ConfigWorkflow], weights: str, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Run a configuration; its run.json."""

    def made(config: str, prompt: str | None = None, **overrides: Any) -> dict[str, Any]:
        if prompt is not None:
            (tmp_path / "prompt.txt").write_text(prompt)
            overrides["prompt_file"] = str(tmp_path / "prompt.txt")
        workflow(config, output_dir=str(tmp_path / "out"), weights=weights, **{**NETWORK, **overrides}).run()
        content: dict[str, Any] = json.loads((tmp_path / "out" / "run.json").read_text())
        assert all(case["status"] == "done" for case in content["cases"])
        return content

    return made


def test_volumes_share_what_was_read_for_all_their_slices(
    run: Callable[..., dict[str, Any]], phantoms: dict[str, Path], texts_read: list[list[str]]
) -> None:
    done = run("inference.yaml", "the liver", input=str(phantoms["CT"]), split="test", batch_size=3)
    assert len(done["cases"]) == 3 and texts_read == [["the liver"]]


@pytest.mark.parametrize(
    ("sides", "prompt", "expected"),
    [
        (
            "image",
            "infection in the left lung",
            ["infection in the left lung", "infection in the right lung"],
        ),
        (
            "patient",
            "infection in the left lung",
            ["infection in the left lung", "infection in the right lung"],
        ),
        ("image", "infection", ["infection"]),
    ],
)
def test_films_of_a_folder_and_their_mirrored_passes_share_a_text_and_the_exchanged_one(
    run: Callable[..., dict[str, Any]],
    texts_read: list[list[str]],
    tmp_path: Path,
    sides: str,
    prompt: str,
    expected: list[str],
) -> None:
    (tmp_path / "films").mkdir()
    for number in range(5):
        film = Image.fromarray(xray_phantom(number, size=96).image)
        film.save(tmp_path / "films" / f"{number}.png")
    done = run(
        "inference.yaml",
        prompt,
        input=str(tmp_path / "films"),
        modality="X-ray",
        **{"xray#mirrored": True, "xray#sides": sides},
    )
    assert len(done["cases"]) == 5
    assert sorted(texts_read) == [[text] for text in expected]


def test_an_evaluation_reads_each_distinct_text_once(
    run: Callable[..., dict[str, Any]], phantoms: dict[str, Path], texts_read: list[list[str]]
) -> None:
    cases = json.loads(phantoms["X-ray"].read_text())["test"]
    texts = {"", *(case["text"] for case in cases)}
    run("evaluate.yaml", datalist=str(phantoms["X-ray"]))
    assert len(texts) > 2 and sorted(texts_read) == [[text] for text in sorted(texts)]


def test_a_slide_reads_its_prompt_once_for_all_tiles(
    run: Callable[..., dict[str, Any]], texts_read: list[list[str]], tmp_path: Path
) -> None:
    pytest.importorskip("openslide", reason="the extra 'slides' is not installed")
    pytest.importorskip("imagecodecs", reason="the extra 'slides' is not installed")
    from bundle.phantoms.slide import write_slide_phantom

    write_slide_phantom(tmp_path / "slide.tif", 1200, 900, tissue=0.35)
    run("inference.yaml", "nuclei", input=str(tmp_path / "slide.tif"), tile_size=128)
    assert texts_read == [["nuclei"]]


# --- the reader ------------------------------------------------------------------------------------------


def test_readings_last_as_long_as_the_weights_may_stay_the_same() -> None:
    network = TextReader(3)
    reader = PromptReader()

    def evaluator(**options: Any) -> CaseEvaluator:
        dataset: Any = []
        return CaseEvaluator(dataset, network, None, lambda item: item, **options)  # type: ignore[arg-type]

    for evaluated, times in ((evaluator(reader=reader), 1), (evaluator(), 3)):
        for _ in range(2):
            evaluated.run()
            for _ in range(2):
                evaluated.case_segmenter.reader(network, "liver")
        assert len(network.texts_read) == times
    other = TextReader(3)
    reader(other, "liver")
    assert other.texts_read == ["liver"], "another network reads for itself"


def test_the_text_that_was_not_used_for_longest_is_dropped() -> None:
    network, reader = FakeSegmenter(3, lambda image, _: image), PromptReader(most_bytes=8)
    for text in ("a", "b", "a", "c", "a", "b", "c"):
        reader(network, text)
    assert network.texts_read == ["a", "b", "c", "b", "c"]


def test_another_process_reads_anew() -> None:
    network, reader = FakeSegmenter(3, lambda image, _: image), PromptReader(12)
    reader(network, "liver")
    sent = pickle.loads(pickle.dumps(reader))
    sent(network, "liver")
    assert sent.most_bytes == 12 and network.texts_read == ["liver"] * 2


def test_exchanged_sides_are_read_only_where_they_are_asked_for() -> None:
    network, reader = FakeSegmenter(3, lambda image, _: image), PromptReader()
    assert reader(network, "left lung").exchanged is None and network.texts_read == ["left lung"]
    both = reader(network, "left lung", exchanged=True)
    assert both.exchanged is not None and (both.text, both.exchanged.text) == ("left lung", "right lung")
    same = reader(network, "liver", exchanged=True)
    assert same.exchanged is not None and same.exchanged.features is same.features
    assert network.texts_read == ["left lung", "right lung", "liver"]
