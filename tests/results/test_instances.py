"""Cells that touch are parted, single ones stay whole, and blocks change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import disk, ellipse

from bundle.results.instances import Instances, find_instances

Discs = list[tuple[float, float, float]]


def discs(shape: tuple[int, int], places: Discs) -> NDArray[np.uint8]:
    """(row, column, radius) of each."""
    mask = np.zeros(shape, dtype=np.uint8)
    for row, column, radius in places:
        mask[disk((row, column), radius, shape=shape)] = 1
    return mask


def found_in(mask: NDArray[np.uint8], **options: object) -> Instances:
    return find_instances(mask, None, [1], **options)  # type: ignore[arg-type]


def crowd(shape: tuple[int, int], count: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, shape, (count, 2))
    places = [
        (row, column, radius)
        for (row, column), radius in zip(corners, rng.uniform(6, 14, count), strict=True)
    ]
    return discs(shape, places)


@pytest.mark.parametrize("apart", [17.0, 19.0, 20.5])
def test_touching_discs_are_parted_where_they_meet(apart: float) -> None:
    mask = discs((60, 90), [(30, 25, 11), (30, 25 + apart, 11)])
    assert ndimage.label(mask)[1] == 1
    found = found_in(mask)
    assert len(found.pixels) == 2 and found.values.tolist() == [1, 1]
    assert abs(int(found.pixels[0]) - int(found.pixels[1])) <= 0.05 * found.pixels.sum()
    middle = 25 + apart / 2
    assert set(np.unique(found.numbers[:, : int(middle) - 1])) == {0, 1}
    assert set(np.unique(found.numbers[:, int(middle) + 2 :])) == {0, 2}


def test_three_in_a_row_are_three_and_a_small_one_is_parted_from_a_large_one() -> None:
    assert len(found_in(discs((60, 120), [(30, 25, 11), (30, 45, 11), (30, 65, 11)])).pixels) == 3
    assert len(found_in(discs((80, 90), [(40, 30, 18), (40, 54, 8)])).pixels) == 2


@pytest.mark.parametrize("radius", [5, 7, 12, 25])
def test_single_cells_stay_whole(radius: int) -> None:
    round_one = discs((80, 120), [(40, 50, radius)])
    long_one = np.zeros((80, 120), dtype=np.uint8)
    long_one[ellipse(40, 60, radius, 2 * radius, rotation=0.4)] = 1
    for mask in (round_one, long_one):
        rough = mask & (ndimage.gaussian_filter(np.random.default_rng(0).normal(size=mask.shape), 1) > -0.6)
        assert found_in(mask).pixels.tolist() == [mask.sum()]
        closed = ndimage.binary_closing(np.pad(rough, 2), iterations=2).astype(np.uint8)
        assert len(found_in(closed).pixels) == 1


def test_every_cell_is_connected_and_specks_alone_are_left_out() -> None:
    mask = crowd((300, 300), 130, 1)
    mask[5, 5] = mask[200, 3:6] = 1
    found = found_in(mask)
    for number in range(1, len(found.pixels) + 1):
        assert ndimage.label(found.numbers == number)[1] == 1
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())
    assert set(sizes[np.unique(pieces[(mask > 0) & (found.numbers == 0)])]) <= set(range(48))
    assert len(found.pixels) > count and not found.numbers[mask == 0].any()
    assert found.pixels.tolist() == np.bincount(found.numbers.ravel())[1:].tolist()


def test_a_lump_full_of_holes_loses_nothing() -> None:
    mask = (np.random.default_rng(0).random((120, 120)) < 0.75).astype(np.uint8)
    found = found_in(mask)
    pieces, _ = ndimage.label(mask)
    large = np.bincount(pieces.ravel())[pieces] >= 48
    assert len(found.pixels) > 5 and found.pixels.min() >= 48
    assert np.array_equal(found.numbers > 0, large & (mask > 0))


@pytest.mark.parametrize("block", [64, 100, 256])
def test_blocks_cut_nothing_and_count_nothing_twice(block: int) -> None:
    mask = crowd((400, 330), 160, 2)
    probability = np.clip(ndimage.gaussian_filter(mask.astype(np.float32), 2), 0.1, 1.0)
    whole = find_instances(mask, probability, [1])
    parts = find_instances(mask, probability, [1], block=block)
    assert len(whole.pixels) == len(parts.pixels) > 60
    pairs = np.unique(np.stack([whole.numbers.ravel(), parts.numbers.ravel()]), axis=1)
    assert pairs.shape[1] == len(whole.pixels) + 1  # each number stands for one of the others


def test_a_lump_larger_than_the_margin_is_shared_out_among_blocks() -> None:
    mask = np.ones((600, 600), dtype=np.uint8)
    mask[::40, ::40] = 0
    found = found_in(mask, block=100, pixel=1.0)
    assert (found.numbers[mask > 0] > 0).all()
    for number in range(1, len(found.pixels) + 1):
        assert ndimage.label(found.numbers == number)[1] == 1


def test_what_counts_as_touching_scales_with_the_pixel() -> None:
    mask = discs((60, 90), [(30, 25, 11), (30, 44, 11)])
    large = np.kron(mask, np.ones((3, 3), dtype=np.uint8))
    assert len(found_in(large, pixel=0.25 / 3).pixels) == len(found_in(mask).pixels) == 2
    assert found_in(discs((20, 20), [(10, 10, 3)]), pixel=0.25).pixels.tolist() == []
    assert len(found_in(discs((20, 20), [(10, 10, 3)]), pixel=0.5).pixels) == 1


def test_a_dip_in_probability_parts_what_the_outline_does_not() -> None:
    mask = np.zeros((40, 80), dtype=np.uint8)
    mask[10:30, 10:70] = 1
    probability = np.ones(mask.shape, dtype=np.float32)
    probability[:, 38:42] = 0.55
    assert len(found_in(mask).pixels) == 1
    assert len(find_instances(mask, probability, [1]).pixels) == 2
    as_bytes = find_instances(mask, (probability * 255).astype(np.uint8), [1])
    assert len(as_bytes.pixels) == 2
    assert as_bytes.probability == pytest.approx(find_instances(mask, probability, [1]).probability, abs=2e-3)


def test_cells_of_two_kinds_are_apart_and_other_structures_are_none() -> None:
    mask = np.zeros((60, 90), dtype=np.uint8)
    mask[disk((30, 30), 11)] = 1
    mask[disk((30, 50), 11)] = 3
    mask[:10] = 2
    found = find_instances(mask, None, [1, 3], mpp=(0.5, 0.5))
    assert found.values.tolist() == [1, 3]
    assert not found.numbers[mask == 2].any()
    assert found.measured(3) == {"count": 1, "median_area_um2": (mask == 3).sum() * 0.25}
    assert found.measured(2) == {"count": 0, "median_area_um2": None}


def test_an_empty_mask_has_none() -> None:
    found = found_in(np.zeros((5, 7), dtype=np.uint8))
    assert not len(found.pixels) and not found.numbers.any() and found.measured(1)["count"] == 0
    assert find_instances(np.ones((5, 7), dtype=np.uint8), None, []).measured(1)["count"] == 0
