"""Weights fit wholly or are refused in one sentence that names the file, and nothing in a file is run."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from bundle.networks import DiffusionSegmenter, WeightsError, file_sha256, load_weights
from bundle.networks.weights import read_state_dict

Make = Callable[..., DiffusionSegmenter]
KEY = "denoiser.head.weight"


@pytest.fixture
def network(make_segmenter: Make) -> DiffusionSegmenter:
    return make_segmenter()


@pytest.fixture
def state(network: DiffusionSegmenter) -> dict[str, Tensor]:
    """Weights other than those the network was made with."""
    generator = torch.Generator().manual_seed(9)
    return {key: torch.randn(value.shape, generator=generator) for key, value in network.state_dict().items()}


def refused(network: DiffusionSegmenter, path: Path, *words: str) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(network, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(".") and ". " not in message and len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_a_state_dict_is_loaded_whole_and_ready_for_inference(
    network: DiffusionSegmenter, state: dict[str, Tensor], tmp_path: Path
) -> None:
    loaded = load_weights(network.train(), saved(state, tmp_path / "model.pt"))
    assert loaded is network and not network.training
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_weights_of_earlier_versions_have_the_names_of_today(tmp_path: Path) -> None:
    path = saved({"guidance.leave.0.weight": torch.ones(2)}, tmp_path / "model.pt")
    assert list(read_state_dict(path)) == ["text_conditioning.leave.0.weight"]


def test_a_training_checkpoint_gives_its_averaged_weights(
    network: DiffusionSegmenter, state: dict[str, Tensor], make_segmenter: Make, tmp_path: Path
) -> None:
    trained = make_segmenter()
    averaged = AveragedModel(trained)
    averaged.module.load_state_dict(state)
    optimizer = torch.optim.AdamW(trained.parameters())
    checkpoint = {
        "network": trained.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": {"epoch": 3, "best": 0.5},
    }
    load_weights(network, saved(checkpoint, tmp_path / "latest.pt"))
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_loaded_as_float32(
    network: DiffusionSegmenter, state: dict[str, Tensor], tmp_path: Path, dtype: torch.dtype
) -> None:
    half = {key: value.to(dtype) for key, value in state.items()}
    load_weights(network, saved(half, tmp_path / "half.pt"))
    for key, value in network.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, half[key].float())


def test_a_missing_key_is_named(
    network: DiffusionSegmenter, state: dict[str, Tensor], tmp_path: Path
) -> None:
    del state[KEY]
    refused(network, saved(state, tmp_path / "model.pt"), "1 tensors are missing", KEY)


def test_an_unknown_key_is_named(
    network: DiffusionSegmenter, state: dict[str, Tensor], tmp_path: Path
) -> None:
    state["text_prior.weight"] = torch.zeros(3)
    refused(network, saved(state, tmp_path / "model.pt"), "1 are unknown", "text_prior.weight")


def test_a_wrong_shape_is_named_with_both_shapes(
    network: DiffusionSegmenter, state: dict[str, Tensor], tmp_path: Path
) -> None:
    state[KEY] = torch.zeros(7, 8, 1, 1)
    refused(network, saved(state, tmp_path / "model.pt"), KEY, "(7, 8, 1, 1)", "(4, 8, 1, 1)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(
    network: DiffusionSegmenter, state: dict[str, Tensor], tmp_path: Path, value: float
) -> None:
    state[KEY][0, 0] = value
    refused(network, saved(state, tmp_path / "model.pt"), KEY, "not finite")


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch", "legacy torch", "pickle"])
def test_an_object_in_the_file_is_not_run(
    network: DiffusionSegmenter, state: dict[str, Tensor], tmp_path: Path, form: str
) -> None:
    trace, path = tmp_path / "was_run", tmp_path / "model.pt"
    content = {**state, "extra": Touch(trace)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"extra": Touch(trace)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    refused(network, path, "objects other than tensors")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Touch(trace)))
    assert trace.exists(), "the object must be one that would have acted"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(
    network: DiffusionSegmenter, state: dict[str, Tensor], tmp_path: Path, zipped: bool, share: float
) -> None:
    path = tmp_path / "model.pt"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(network, path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_damage_to_a_file_raises_anything_but_a_weights_error(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    generator = torch.Generator().manual_seed(0)
    answers = {"refused": 0, "read": 0}
    for zipped in (True, False):
        torch.save({"a": torch.zeros(3), "b": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for _ in range(200):
            damaged = bytearray(whole)
            for place in torch.randint(len(whole), (3,), generator=generator).tolist():
                damaged[place] = int(torch.randint(256, (1,), generator=generator))
            path.write_bytes(damaged)
            try:
                read_state_dict(path)
                answers["read"] += 1
            except WeightsError:
                answers["refused"] += 1
    assert answers["refused"] > 50


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n" * 50,
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        bytes(range(256)) * 4,
    ],
    ids=["text", "empty", "large-file pointer", "bytes"],
)
def test_a_file_of_another_kind_is_refused(
    network: DiffusionSegmenter, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    refused(network, path)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        torch.zeros(3),
        None,
        {"a": "text"},
        {"averaged": 3, "optimizer": {}},
        {"averaged": {1: torch.zeros(2)}, "optimizer": {}},
        {},
    ],
    ids=["list", "tensor", "none", "strings", "odd checkpoint", "odd keys", "nothing"],
)
def test_contents_that_are_no_state_dict_are_refused(
    network: DiffusionSegmenter, tmp_path: Path, content: object
) -> None:
    refused(network, saved(content, tmp_path / "model.pt"))


def test_a_missing_file_and_a_folder_are_refused(network: DiffusionSegmenter, tmp_path: Path) -> None:
    refused(network, tmp_path / "nowhere.pt", "no such weights file")
    refused(network, tmp_path, "no such weights file")


@pytest.mark.parametrize("strict", [True, False])
def test_loading_leniently_refuses_what_does_not_fit_all_the_same(
    network: DiffusionSegmenter, state: dict[str, Tensor], strict: bool
) -> None:
    before = network.state_dict()[KEY].clone()
    odd: dict[str, Any]
    for odd in (
        {key: value for key, value in state.items() if key != KEY},
        {**state, "extra": torch.zeros(1)},
        {**state, KEY: torch.zeros(2, 2)},
        {**state, KEY: "text"},
    ):
        with pytest.raises(WeightsError):
            network.load_state_dict(odd, strict=strict)
        assert torch.equal(network.state_dict()[KEY], before)
    network.load_state_dict(state, strict=strict)
    assert torch.equal(network.state_dict()[KEY], state[KEY])


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 1000)
    assert file_sha256(path) == hashlib.sha256(b"abc" * 1000).hexdigest()
