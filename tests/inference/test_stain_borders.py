"""Where a network is unsure, the stain of the picture has a say in where nuclei end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bundle.inference.stain_borders import CANDIDATES, at_stain_borders, stain_threshold

SIDE = 64
_ROW, _COLUMN = np.mgrid[:SIDE, :SIDE]
distance = np.hypot(_ROW - SIDE / 2, _COLUMN - SIDE / 2)
#: Falls evenly from the centre: at 20 pixels 0.5, at 12 pixels 0.7, at 28 pixels 0.3.
chance = np.clip(1.0 - distance / 40.0, 0.0, 1.0)


def slide(radius: float, seed: int = 0) -> NDArray[np.float64]:
    """One nucleus of that radius in eosin, with the noise of a camera."""
    inside = distance < radius
    rgb = np.where(
        inside, np.array([0.35, 0.25, 0.55])[:, None, None], np.array([0.9, 0.6, 0.75])[:, None, None]
    )
    return (rgb + np.random.default_rng(seed).normal(0.0, 0.02, rgb.shape)).clip(0.0, 1.0)


@pytest.mark.parametrize(("radius", "best"), [(12, 0.7), (20, 0.5), (28, 0.3)])
def test_the_threshold_lies_half_way_to_where_the_stain_ends(radius: float, best: float) -> None:
    assert stain_threshold(chance, slide(radius)) == pytest.approx((best + 0.5) / 2)


def test_it_is_what_trying_every_candidate_on_the_whole_picture_gives() -> None:
    random = np.random.default_rng(1)
    found, image = random.random((40, 50)), random.random((3, 40, 50))
    image[0] = image[0] * 0.7 + 0.3 * (found < 0.63)
    density = -np.log(np.maximum(image[0], 1 / 255))
    distances = []
    for candidate in CANDIDATES:
        inside, outside = density[found >= candidate], density[found < candidate]
        distances.append((inside.mean() - outside.mean()) / np.sqrt((inside.var() + outside.var()) / 2))
    expected = (CANDIDATES[int(np.argmax(distances))] + 0.5) / 2
    assert stain_threshold(found, image) == pytest.approx(expected)


@pytest.mark.parametrize("found", [np.zeros_like(chance), np.ones_like(chance)])
def test_where_nothing_or_everything_is_found_one_half_stays(found: NDArray[np.float64]) -> None:
    assert stain_threshold(found, slide(20)) == 0.5


def test_a_picture_whose_stain_says_nothing_of_what_was_found_leaves_one_half() -> None:
    assert stain_threshold(chance, np.ones((3, SIDE, SIDE))) == 0.5
    assert stain_threshold(chance, 1.0 - slide(28)) == 0.5, "what was found is paler than the rest"


def test_of_candidates_with_the_same_mask_the_one_nearest_to_one_half_counts() -> None:
    votes = np.where(distance < 12, 1.0, np.where(distance < 20, 0.5, 0.0))
    assert stain_threshold(votes, slide(20)) == 0.5
    assert stain_threshold(votes, slide(12)) == pytest.approx((0.55 + 0.5) / 2)


def test_a_few_dark_pixels_do_not_decide() -> None:
    found, image = np.minimum(chance, 0.6), slide(20)
    found[:5, :5], image[:, :5, :5] = 0.9, 0.0
    assert stain_threshold(found, image) == pytest.approx(0.5)


@pytest.mark.parametrize("radius", [12, 28])
def test_what_has_the_threshold_is_found_and_probabilities_still_add_up(radius: float) -> None:
    image = slide(radius)
    # two structures that share what is found
    share = torch.from_numpy(chance)
    probability = torch.stack([1.0 - share, 0.75 * share, 0.25 * share]).float()
    moved = at_stain_borders(probability, torch.from_numpy(image).float())
    torch.testing.assert_close(moved.sum(dim=0), torch.ones(SIDE, SIDE))
    torch.testing.assert_close(moved[1], 3.0 * moved[2])
    threshold = stain_threshold(chance, image)
    clear = np.abs(chance - threshold) > 1e-4
    assert ((moved[0].numpy() < 0.5) == (chance >= threshold))[clear].all()


def test_certainty_stays_certain() -> None:
    probability = torch.from_numpy(np.stack([distance >= 20, distance < 20])).float()
    assert torch.equal(at_stain_borders(probability, torch.from_numpy(slide(28)).float()), probability)
