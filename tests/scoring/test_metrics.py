"""Overlaps and distances equal straightforward computations, and have no value where they have no meaning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from bundle.scoring import score_label, score_masks

Mask = NDArray[np.bool_]


def blob(shape: Sequence[int], seed: int, level: float = 0.55) -> Mask:
    noise = np.random.default_rng(seed).random(shape)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return np.asarray(smooth > np.quantile(smooth, level))


def naive_hd95(predicted: Mask, truth: Mask, spacing: Sequence[float]) -> float:
    """Surfaces by erosion, distances in the whole image, the larger of both directions' percentiles."""
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted, truth)]
    distances = []
    for one, other in (surfaces, surfaces[::-1]):
        to_other: Any = ndimage.distance_transform_edt(~other, sampling=spacing)
        distances.append(float(np.percentile(to_other[one], 95)))
    return max(distances)


@pytest.mark.parametrize("shape", [(20, 17), (14, 11, 9)])
@pytest.mark.parametrize("seed", range(5))
def test_overlaps_equal_sets_of_voxels(shape: tuple[int, ...], seed: int) -> None:
    predicted, truth = blob(shape, seed), blob(shape, seed + 100, 0.7)
    ours, theirs = ({tuple(place) for place in np.argwhere(mask)} for mask in (predicted, truth))
    score = score_label("c", "liver", predicted, truth)
    assert score.dice == pytest.approx(100 * 2 * len(ours & theirs) / (len(ours) + len(theirs)))
    assert score.iou == pytest.approx(100 * len(ours & theirs) / len(ours | theirs))
    assert (score.predicted, score.truth, score.overlap) == (len(ours), len(theirs), len(ours & theirs))
    assert math.isnan(score.hd95_mm)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.8, 5.0), (3.0, 0.5, 1.25)])
@pytest.mark.parametrize("seed", range(4))
def test_hd95_equals_distance_transforms_of_the_whole_volume(spacing: tuple[float, ...], seed: int) -> None:
    predicted, truth = blob((18, 15, 10), seed, 0.8), blob((18, 15, 10), seed + 50, 0.9)
    found = score_label("c", "liver", predicted, truth, spacing).hd95_mm
    assert found == pytest.approx(naive_hd95(predicted, truth, spacing), rel=1e-5)


def test_hd95_of_small_things_far_apart_and_at_the_border() -> None:
    predicted, truth = (np.zeros((30, 30, 12), dtype=bool) for _ in range(2))
    predicted[0, 0, 0] = truth[29, 29, 11] = True
    spacing = (0.5, 1.0, 4.0)
    expected = math.dist((0, 0, 0), (29 * 0.5, 29 * 1.0, 11 * 4.0))
    assert score_label("c", "x", predicted, truth, spacing).hd95_mm == pytest.approx(expected, rel=1e-5)
    truth[:] = False
    truth[0, 0, 3] = True
    assert score_label("c", "x", predicted, truth, spacing).hd95_mm == pytest.approx(12.0)
    slab = np.zeros((30, 30, 12), dtype=bool)
    slab[:4] = True
    wider = slab.copy()
    wider[:6] = True
    found = score_label("c", "x", slab, wider, spacing).hd95_mm
    assert found == pytest.approx(naive_hd95(slab, wider, spacing), rel=1e-5)
    assert found == pytest.approx(1.0)


def test_a_mask_equal_to_its_truth_is_perfect() -> None:
    mask = blob((12, 12, 8), 3)
    score = score_label("c", "liver", mask, mask, (1.0, 2.0, 3.0))
    assert (score.dice, score.iou, score.hd95_mm) == (100.0, 100.0, 0.0)


def test_figures_without_a_meaning_are_nan() -> None:
    something, nothing = blob((8, 8, 8), 0), np.zeros((8, 8, 8), dtype=bool)
    spacing = (1.0, 1.0, 1.0)
    missed = score_label("c", "liver", nothing, something, spacing)
    invented = score_label("c", "liver", something, nothing, spacing)
    right = score_label("c", "liver", nothing, nothing, spacing)
    for score in (missed, invented):
        assert (score.dice, score.iou) == (0.0, 0.0) and math.isnan(score.hd95_mm)
    assert all(math.isnan(figure) for figure in (right.dice, right.iou, right.hd95_mm))
    assert (right.truth, right.predicted, right.overlap) == (0, 0, 0)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="case_7"):
        score_label("case_7", "liver", np.zeros((4, 4), bool), np.zeros((4, 1), bool))


def test_every_label_is_compared_with_its_own_value_in_the_mask() -> None:
    truth = np.array([[1, 1, 2, 0]], dtype=np.uint8)
    mask = np.array([[5, 0, 9, 7]], dtype=np.uint8)
    scores = score_masks("c", mask, truth, {1: (5, "liver"), 2: (9, "spleen"), 3: (7, "lung")}, text="on")
    assert [(score.label, score.truth, score.predicted, score.overlap) for score in scores] == [
        ("liver", 2, 1, 1),
        ("spleen", 1, 1, 1),
        ("lung", 0, 1, 0),
    ]
    assert {score.text for score in scores} == {"on"} and {score.case for score in scores} == {"c"}
