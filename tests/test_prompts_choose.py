"""With a text prior the segmenter trains, evaluates and segments by the same commands, and prompts choose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bundle.networks import count_parameters
from tests.conftest import TINY

SETTINGS = {
    **TINY,
    "read_text": True,
    "text_fusion_width": 16,
    "image_size": 64,
    "prompt_shares": {"silent": 0.3, "own": 0.4, "reworded": 0.3, "foreign": 0.2},
    "mirrored_xrays": 0.5,
    "pure_noise_share": 0.5,
    "images_per_epoch": 8,
    "batch_size": 4,
    "epochs": 1,
    "schedule_epochs": 2,
    "validation_text": ["off"],
    "bfloat16": False,
    "num_workers": 0,
}
HOSTILE = ["$__import__('pathlib').Path('touched').touch()", "@network_def", "%configs/train.yaml::seed"]


@pytest.fixture(scope="module")
def trained(commands: Any, phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training on all three modalities, two epochs in two commands."""
    folder = tmp_path_factory.mktemp("prompted")
    (folder / "sizes.yaml").write_text(yaml.safe_dump(SETTINGS))
    lists = "[" + ",".join(f"'{path}'" for path in phantoms.values()) + "]"
    files = f"['configs/inference.yaml','configs/train.yaml','{folder / 'sizes.yaml'}']"
    for epochs in (1, 2):
        done = commands(
            "monai.bundle", "run", "--config_file", files, "--datalist", lists, "--epochs", epochs,
            "--validation_datalist", phantoms["CT"], "--output_dir", folder,
        )  # fmt: skip
        assert done.code == 0, done.stderr
    return folder


@pytest.fixture
def prompted(trained: Path, segment: Callable[..., int]) -> Callable[..., None]:
    """Segment with the trained network."""

    def run(*arguments: object) -> None:
        assert segment(*arguments, "--config", trained / "sizes.yaml", weights=trained / "model.pt") == 0

    return run


def report(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*/report.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_all_weights_are_in_one_file(trained: Path, workflow: Any) -> None:
    network = workflow("inference.yaml", read_text=True, text_fusion_width=16).parser.get_parsed_content(
        "network_def"
    )
    state = torch.load(trained / "model.pt", weights_only=True)
    assert {name.split(".")[0] for name in state} == {
        "image_prior", "denoiser", "text_prior", "text_conditioning", "naming",
    }  # fmt: skip
    learnt = {name for name, _ in network.named_parameters()}
    assert sum(tensor.numel() for name, tensor in state.items() if name in learnt) == count_parameters(
        network
    )


def test_each_structure_is_asked_for_in_every_way(
    commands: Any, phantoms: dict[str, Path], trained: Path, tmp_path: Path
) -> None:
    names = [f"configs/{name}.yaml" for name in ("inference", "evaluate", "evaluate_prompts")]
    files = str([*names, str(trained / "sizes.yaml")])
    done = commands(
        "monai.bundle", "run", "--config_file", files, "--datalist", phantoms["CT"], "--split", "validation",
        "--output_dir", tmp_path, "--weights", trained / "model.pt", "--unseen_words", 1,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    ways = json.loads((tmp_path / "summary.json").read_text())["text"]
    assert list(ways) == ["name", "unseen 1", "other", "meaningless 1", "meaningless 2"]
    # what is not named is not segmented
    for way in ("meaningless 1", "meaningless 2"):
        assert ways[way]["dice"] == 0.0
        assert {label["left_empty"] for label in ways[way]["per_label"].values()} <= {100.0, None}


@pytest.mark.parametrize("prompt", ["bicycle", *HOSTILE])
def test_what_names_nothing_leaves_an_empty_mask(
    prompted: Callable[..., None],
    phantoms: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prompt: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    image = sorted((phantoms["CT"].parent / "images").iterdir())[0]
    prompted(image, "--output", "out", f"--prompt={prompt}")
    content = report(tmp_path / "out")
    assert content["prompt"] == prompt and content["found"] is False and content["labels"] == {}
    assert any("names nothing that this network segments" in text for text in content["warnings"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_a_prompt_every_structure_of_the_modality_is_segmented(
    prompted: Callable[..., None], phantoms: dict[str, Path], tmp_path: Path
) -> None:
    image = sorted((phantoms["CT"].parent / "images").iterdir())[0]
    prompted(image, "--output", tmp_path / "out")
    assert len(report(tmp_path / "out")["labels"]) == 9


def test_the_report_says_whose_sides_were_meant(
    prompted: Callable[..., None], phantoms: dict[str, Path], tmp_path: Path
) -> None:
    image = sorted((phantoms["X-ray"].parent / "images").iterdir())[0]
    options = ["--prompt", "infection of the left lung", "--xray-sides"]
    for sides in ("image", "patient"):
        prompted(image, "--output", tmp_path / sides, *options, sides)
        assert report(tmp_path / sides)["settings"]["sides"] == sides
