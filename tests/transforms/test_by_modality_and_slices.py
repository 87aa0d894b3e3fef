"""The branch of a pipeline is the image's own; slices bring their neighbours along."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, RandGaussianNoised, RandomizableTransform

from bundle.cases.modality_settings import View
from bundle.transforms import (
    ByModalityd,
    RandByModalityd,
    back_from,
    neighbouring_slices,
    seen_from,
)


class Add(MapTransform):
    """Adds a number, and takes it away again."""

    def __init__(self, number: float) -> None:
        super().__init__("image")
        self.number = number

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, "image": data["image"] + self.number}


def item(modality: str) -> dict[Hashable, Any]:
    return {"image": MetaTensor(torch.zeros(1, 4, 4), meta={"modality": modality}), "other": 5}


def test_the_branch_is_that_of_the_modality() -> None:
    transform = ByModalityd({"CT": [Add(1), Add(10)], "X-ray": [Add(100)]})
    assert transform(item("CT"))["image"].unique().tolist() == [11]
    assert transform(item("X-ray"))["image"].unique().tolist() == [100]
    assert transform(item("CT"))["other"] == 5


@pytest.mark.parametrize("modality", ["MRI", "ct"])
def test_an_unknown_modality_is_refused_in_one_sentence(modality: str) -> None:
    transform = ByModalityd({"CT": [], "X-ray": []})
    expected = f"^no transforms for modality '{modality}', only for CT, X-ray$"
    with pytest.raises(ValueError, match=expected):
        transform(item(modality))
    with pytest.raises(ValueError, match=expected):
        transform.inverse(item(modality))


def test_an_outer_pipeline_seeds_every_branch() -> None:
    branches = {name: [RandGaussianNoised("image", prob=1.0)] for name in ("CT", "H&E")}
    results = []
    for _ in range(2):
        pipeline = Compose([RandByModalityd(branches)])
        pipeline.set_random_state(seed=4)
        results.append([pipeline(item(name))["image"] for name in ("CT", "H&E")])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second) and first.abs().max().item() > 0
    assert isinstance(branches["CT"][0], RandomizableTransform)


@pytest.mark.parametrize(
    ("index", "neighbours", "expected"),
    [
        (0, 1, [0, 0, 1]),
        (3, 1, [2, 3, 4]),
        (6, 1, [5, 6, 6]),
        (0, 2, [0, 0, 0, 1, 2]),
        (5, 2, [3, 4, 5, 6, 6]),
        (2, 0, [2]),
    ],
)
def test_slices_come_with_their_neighbours_and_repeat_at_the_ends(
    index: int, neighbours: int, expected: list[int]
) -> None:
    volume = torch.arange(7.0).expand(1, 3, 5, 7)
    slices = neighbouring_slices(volume, index, neighbours)
    assert slices.shape == (2 * neighbours + 1, 3, 5)
    assert [channel.unique().tolist() for channel in slices] == [[float(position)] for position in expected]


def test_a_slice_keeps_its_axes() -> None:
    volume = torch.from_numpy(np.random.default_rng(0).random((1, 3, 5, 4)))
    assert torch.equal(neighbouring_slices(volume, 2)[1], volume[0, :, :, 2])


def test_the_only_slice_of_a_volume_is_its_own_neighbour() -> None:
    volume = torch.rand(1, 3, 5, 1)
    assert torch.equal(neighbouring_slices(volume, 0), volume[0, :, :, 0].expand(3, 3, 5))


@pytest.mark.parametrize("index", [0, 3, 6])
def test_neighbours_at_a_distance(index: int) -> None:
    volume = torch.arange(7.0).expand(1, 2, 2, 7)
    slices = neighbouring_slices(volume, index, distance=2)
    assert slices[:, 0, 0].tolist() == [max(index - 2, 0), index, min(index + 2, 6)]


@pytest.mark.parametrize(
    ("view", "slices"), [("axial", (3, 4, 5)), ("coronal", (3, 5, 4)), ("sagittal", (4, 5, 3))]
)
def test_a_view_has_its_slices_last_and_is_turned_back(view: View, slices: tuple[int, ...]) -> None:
    volume = torch.arange(2.0 * 3 * 4 * 5).view(2, 3, 4, 5)
    seen = seen_from(volume, view)
    assert tuple(seen.shape[1:]) == slices
    assert torch.equal(back_from(seen, view), volume)
    assert torch.equal(seen_from(volume, "coronal")[..., 2], volume[:, :, 2])
