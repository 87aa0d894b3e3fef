"""Augmentation repeats with its seed, keeps sides where they mean something, and moves labels with images."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from bundle.cases import MODALITIES, Modality
from bundle.transforms import augmentation

SIZE = 64


def item(modality: Modality, label: Tensor) -> dict[Hashable, Any]:
    """An image whose intensities are those of its label: bright structures, in H&E dark ones on glass."""
    shown = (label > 0).float().expand(3, *label.shape[1:])
    image = 1.0 - 0.8 * shown if modality == "H&E" else 0.05 + 0.9 * shown
    meta = {"modality": modality}
    return {
        "image": MetaTensor(image.clone(), meta=dict(meta)),
        "label": MetaTensor(label.clone(), meta=dict(meta)),
    }


def three_marks(size: int = SIZE) -> Tensor:
    """Values 3, 7 and 9 in three discs that no rotation brings onto their mirror image."""
    label = torch.zeros(1, size, size, dtype=torch.uint8)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for value, (row, column) in {3: (22, 26), 7: (42, 26), 9: (26, 44)}.items():
        label[0][(rows - row) ** 2 + (columns - column) ** 2 <= 25] = value
    return label


def centre(label: Tensor, value: int) -> Tensor:
    return (label[0].as_subclass(Tensor) == value).nonzero().double().mean(dim=0)


def draws(modality: Modality, label: Tensor, count: int, **settings: Any) -> list[dict[Hashable, Any]]:
    transform = augmentation(SIZE, **settings)
    drawn = []
    for seed in range(count):
        transform.set_random_state(seed=seed)
        drawn.append(transform(item(modality, label)))
    return drawn


@cache
def draws_of_marks(modality: Modality) -> list[dict[Hashable, Any]]:
    return draws(modality, three_marks(), 50 if modality == "CT" else 20)


def handedness(label: Tensor) -> float:
    """Sign of the area that the three marks go round; a mirror turns it over, a rotation does not."""
    first, second, third = (centre(label, value) for value in (3, 7, 9))
    a, b = second - first, third - first
    return float(a[0] * b[1] - a[1] * b[0])


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_same_seed_gives_the_same_image_whatever_was_drawn_before(modality: Modality) -> None:
    transform, other = augmentation(SIZE), augmentation(SIZE)
    other(item(modality, three_marks()))
    results = []
    for augmenter in (transform, other, transform):
        augmenter.set_random_state(seed=11)
        results.append(augmenter(item(modality, three_marks())))
    for result in results[1:]:
        assert torch.equal(result["image"], results[0]["image"])
        assert torch.equal(result["label"], results[0]["label"])


@pytest.mark.parametrize("modality", MODALITIES)
def test_other_seeds_give_other_images(modality: Modality) -> None:
    images = [drawn["image"] for drawn in draws_of_marks(modality)[:5]]
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


@pytest.mark.parametrize("modality", MODALITIES)
def test_without_variation_images_are_only_cut(modality: Modality) -> None:
    given = item(modality, three_marks())
    for drawn in draws(modality, three_marks(), 3, vary=False):
        assert torch.equal(drawn["image"], given["image"])
        assert torch.equal(drawn["label"], given["label"])


def test_ct_is_never_mirrored() -> None:
    expected = np.sign(handedness(three_marks()))
    for drawn in draws_of_marks("CT"):
        assert np.sign(handedness(drawn["label"])) == expected
        # the left mark stays left of the right one, the front mark in front
        assert centre(drawn["label"], 3)[0] < centre(drawn["label"], 7)[0]
        assert centre(drawn["label"], 3)[1] < centre(drawn["label"], 9)[1]


def test_xray_is_never_mirrored() -> None:
    expected = np.sign(handedness(three_marks()))
    assert {np.sign(handedness(drawn["label"])) for drawn in draws_of_marks("X-ray")} == {expected}


def test_histology_has_no_sides() -> None:
    signs = {np.sign(handedness(drawn["label"])) for drawn in draws_of_marks("H&E")}
    assert signs == {-1.0, 1.0}


def test_histology_keeps_its_sides_where_texts_name_them() -> None:
    expected = np.sign(handedness(three_marks()))
    for drawn in draws("H&E", three_marks(), 30, histology_flips=False):
        assert np.sign(handedness(drawn["label"])) == expected
        assert centre(drawn["label"], 3)[0] < centre(drawn["label"], 7)[0]
        assert centre(drawn["label"], 3)[1] < centre(drawn["label"], 9)[1]


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("shape", [(64, 64), (40, 50), (64, 97), (120, 31)])
def test_results_are_squares_of_the_size_with_values_of_the_label_alone(
    modality: Modality, shape: tuple[int, int]
) -> None:
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    label[0, 5:25, 5:25] = 3
    label[0, 12:18, 12:30] = 200
    transform = augmentation(SIZE)
    for seed in range(3):
        transform.set_random_state(seed=seed)
        drawn = transform(item(modality, label))
        assert drawn["image"].shape == (3, SIZE, SIZE) and drawn["label"].shape == (1, SIZE, SIZE)
        assert set(drawn["label"].unique().tolist()) <= {0, 3, 200}
        assert torch.isfinite(drawn["image"]).all()


@pytest.mark.parametrize("modality", MODALITIES)
def test_image_and_label_move_together(modality: Modality) -> None:
    label = three_marks()
    moved, overlaps = [], []
    for drawn in draws_of_marks(modality)[:20]:
        truth = drawn["label"][0].as_subclass(Tensor) > 0
        image = drawn["image"].as_subclass(Tensor).mean(dim=0)
        moved.append(float(2 * ((label[0] > 0) & truth).sum() / ((label[0] > 0).sum() + truth.sum())))
        # squares that were dropped out of a CT image are exactly 0
        seen = image != 0
        if (truth & seen).sum() < 60:
            continue
        half = (image[truth & seen].median() + image[~truth & seen].median()) / 2
        shown = (image < half if modality == "H&E" else image > half) & seen
        overlaps.append(float(2 * (shown & truth).sum() / (shown.sum() + (truth & seen).sum())))
        stayed = (label[0] > 0) & seen
        behind = float(2 * (shown & stayed).sum() / (shown.sum() + stayed.sum()))
        assert overlaps[-1] > behind or moved[-1] > 0.95
    # noise and blur drawn together may leave little of the marks' edges in an image
    assert len(overlaps) >= 15 and np.quantile(overlaps, 0.1) > 0.85 and np.median(overlaps) > 0.93
    assert np.median(moved) < 0.85


@pytest.mark.parametrize("modality", MODALITIES)
def test_place_and_size_vary_along_both_axes(modality: Modality) -> None:
    label = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    label[0, 24:40, 24:40] = 3
    centres, extents = [], []
    for drawn in draws(modality, label, 25):
        centres.append(centre(drawn["label"], 3).numpy())
        shown = drawn["label"][0].as_subclass(Tensor) == 3
        extents.append([int(shown.any(dim=1 - axis).sum()) for axis in range(2)])
    assert np.std(centres, axis=0).min() > 0.7
    assert np.std(extents, axis=0).min() > 0.7


@pytest.mark.parametrize("sides", [{"H&E": 64}, {"CT": 64, "X-ray": 64, "MR": 64}])
def test_sizes_that_are_not_one_a_modality_are_refused(sides: Any) -> None:
    with pytest.raises(ValueError, match="image_size must be a number, or one for each of CT, X-ray, H&E"):
        augmentation(sides)


@pytest.mark.parametrize("vary", [True, False])
def test_each_modality_may_have_its_own_size(vary: bool) -> None:
    sides: dict[Modality, int] = {"CT": 48, "X-ray": 64, "H&E": 96}
    transform = augmentation(sides, vary=vary)
    for modality, side in sides.items():
        transform.set_random_state(seed=3)
        drawn = transform(item(modality, three_marks()))
        assert drawn["image"].shape == (3, side, side) and drawn["label"].shape == (1, side, side)


def test_geometric_strength_of_ct_can_be_turned_off() -> None:
    for drawn in draws("CT", three_marks(), 10, ct_strength=0.0):
        assert torch.equal(drawn["label"].as_subclass(Tensor).round().to(torch.uint8), three_marks())


def test_geometric_strength_of_xrays_can_be_turned_off() -> None:
    for drawn in draws("X-ray", three_marks(), 10, xray_strength=0.0):
        assert torch.equal(drawn["label"].as_subclass(Tensor).round().to(torch.uint8), three_marks())


@pytest.mark.parametrize("strength", [-0.5, 2.5])
def test_strength_of_xrays_has_a_range(strength: float) -> None:
    with pytest.raises(ValueError, match=r"xray_augmentation must be in \[0, 2\]"):
        augmentation(SIZE, xray_strength=strength)


def test_beyond_its_usual_strength_xrays_lose_squares_and_their_labels_do_not() -> None:
    everywhere = torch.ones(1, SIZE, SIZE, dtype=torch.uint8)
    usual = draws("X-ray", everywhere, 30)
    stronger = draws("X-ray", everywhere, 30, xray_strength=1.5)
    hidden = [drawn["image"] == 0 for drawn in stronger if (drawn["image"] == 0).any()]
    assert not any((drawn["image"] == 0).any() for drawn in usual)
    assert 3 <= len(hidden) < 20  # three tenths are aimed at
    assert all(20**2 <= squares[0].sum() <= 4 * 20**2 for squares in hidden)
    assert all((drawn["label"] == 1).all() for drawn in stronger)


def test_the_input_is_left_as_it_was() -> None:
    given = item("H&E", three_marks())
    image, label = given["image"].clone(), given["label"].clone()
    transform = augmentation(SIZE)
    transform.set_random_state(seed=1)
    transform(given)
    assert torch.equal(given["image"], image) and torch.equal(given["label"], label)
