"""Cells one by one: those that touch are parted at narrow necks, by a watershed from one marker a cell.

Height is the distance to the cell's edge times the probability. Basins around its summits (Vincent and Soille 1991) are
joined again where the way from the lower summit to the higher one goes down too little: by its dynamics (Grimaud 1992),
and by the neck's width as a share of the cell's. skimage.morphology.h_maxima knows the first of these alone, and its
reconstruction takes a second a megapixel. docs/experiments.md says how the four numbers below were chosen.

Large masks are worked through in blocks with margins, in memory that does not grow with them. A cell belongs to the
block that its summit lies in, so that none is cut at a block's border or counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.cluster.hierarchy import DisjointSet
from skimage.morphology import local_maxima
from skimage.segmentation import watershed

#: Micrometres: standard deviation that heights are smoothed with, and how far they go down between two cells.
_SMOOTHING, _DEPTH = 0.25, 0.19
#: A neck is narrower than this share of the smaller cell.
_NECK = 0.85
#: Square micrometres of the smallest cell.
_LEAST_AREA = 3.0
#: Pixels of a block's side, and micrometres around it that are looked at too: more than a cell's length.
_BLOCK, _MARGIN = 1024, 32.0

_Window = tuple[slice, slice]


@dataclass(frozen=True)
class Instances:
    """The cells of an image, numbered from 1.

    Attributes:
        numbers: (H, W) int32, each pixel's cell; 0 where there is none, and in lone pieces too small for one.
        values: (N,) of the mask, of each cell.
        pixels: (N,) of each cell.
        probability: (N,) mean over its pixels, in [0, 1].
        pixel: side of a pixel in micrometres, as it was taken.
        mpp: micrometres per pixel, across and down; None where they are not known.
    """

    numbers: NDArray[np.int32]
    values: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    probability: NDArray[np.float64]
    pixel: float
    mpp: tuple[float, float] | None = None

    def only(self, value: int) -> NDArray[np.int32]:
        """`numbers` of the cells of one mask value, and 0."""
        kept = np.where(self.values == value, np.arange(1, len(self.values) + 1, dtype=np.int32), 0)
        numbers: NDArray[np.int32] = np.concatenate([np.zeros(1, dtype=np.int32), kept])[self.numbers]
        return numbers

    def measured(self, value: int) -> dict[str, Any]:
        """What a report says of the cells of one mask value: their count and, of any, the median of their areas."""
        pixels = self.pixels[self.values == value]
        found: dict[str, Any] = {"count": len(pixels)}
        middle = float(np.median(pixels)) if len(pixels) else None
        if self.mpp is None:
            return {**found, "median_area_px": middle}
        area = self.mpp[0] * self.mpp[1]
        return {**found, "median_area_um2": None if middle is None else middle * area}


def find_instances(
    mask: NDArray[np.uint8],
    probability: NDArray[Any] | None,
    values: Sequence[int],
    pixel: float = 0.25,
    mpp: tuple[float, float] | None = None,
    numbers: NDArray[np.int32] | None = None,
    block: int = _BLOCK,
) -> Instances:
    """The cells of a mask. Cells of different values are different ones; the mask stays as it is.

    Args:
        mask: (H, W) of labels.
        probability: (H, W) of each pixel's own label, in [0, 1], or in 255ths as uint8; None for 1 everywhere.
        values: of the mask whose pixels are cells.
        pixel: its side in micrometres, or what it is taken to be.
        mpp: micrometres per pixel, across and down, where they are known.
        numbers: (H, W) int32 zeros to write to, perhaps a file that is mapped into memory; None for a new array.
        block: pixels of a block's side.
    """
    if numbers is None:
        numbers = np.zeros(mask.shape, dtype=np.int32)
    if probability is None:
        probability = np.broadcast_to(np.uint8(255), mask.shape)
    of_value, count = [], 0
    for value in values:
        before = count
        windows = list(_windows(mask.shape, block, round(_MARGIN / pixel)))
        for core, view in windows:
            if (mask[core] == value).any():
                inside = mask[view] == value
                found, summits = _cells(inside, _shares(probability[view]), pixel)
                count = _take(found, summits, core, view, numbers, count)
        if len(windows) > 1:
            for core, view in windows:
                _fill(mask[view] == value, core, view, numbers)
        of_value.append(np.full(count - before, value, dtype=np.uint8))
    found_values = np.concatenate([*of_value, np.zeros(0, dtype=np.uint8)])
    return _without_specks(numbers, found_values, probability, pixel, mpp)


def _shares(probability: NDArray[Any]) -> NDArray[np.float32]:
    scale = 255.0 if probability.dtype == np.uint8 else 1.0
    # above 0, so that there is a summit in every piece
    return np.maximum(np.asarray(probability, dtype=np.float32) / np.float32(scale), np.float32(1 / 255))


def _windows(shape: tuple[int, ...], block: int, margin: int) -> Iterator[tuple[_Window, _Window]]:
    """Blocks, and each with its margin."""
    height, width = shape
    for top in range(0, height, block):
        for left in range(0, width, block):
            core = slice(top, min(top + block, height)), slice(left, min(left + block, width))
            rows, columns = (
                slice(max(one.start - margin, 0), min(one.stop + margin, length))
                for one, length in zip(core, shape, strict=True)
            )
            yield core, (rows, columns)


def _cells(
    inside: NDArray[np.bool_], probability: NDArray[np.float32], pixel: float
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """The cell of each pixel, and row and column of their summits, (N, 2)."""
    smoothing = _SMOOTHING / pixel
    distance = ndimage.distance_transform_edt(inside).astype(np.float32) * np.float32(pixel)
    height = ndimage.gaussian_filter(distance, smoothing) * ndimage.gaussian_filter(probability, smoothing)
    height[~inside] = 0.0
    markers, _ = ndimage.label(local_maxima(height, connectivity=1) & inside)
    basins = watershed(-height, markers, connectivity=1, mask=inside)
    return _joined(basins, height, pixel)


def _joined(
    basins: NDArray[np.int32], height: NDArray[np.float32], pixel: float
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Basins that are parts of one cell as one, numbered from 1, and their summits.

    One that is too small for a cell is part of the neighbour to which the way is the highest.
    """
    count = int(basins.max(initial=0))
    top = np.zeros(count + 1, dtype=np.float32)
    np.maximum.at(top, basins, height)
    sets = DisjointSet(range(count + 1))
    summit = top.tolist()
    area = (np.bincount(basins.ravel(), minlength=count + 1) * pixel**2).tolist()
    for one, other, saddle in _saddles(basins, height):
        first, second = sets[one], sets[other]
        if first == second:
            continue
        lower, higher = sorted((summit[first], summit[second]))
        shallow = lower - saddle < _DEPTH or saddle > _NECK * lower
        if shallow or min(area[first], area[second]) < _LEAST_AREA:
            together = area[first] + area[second]
            sets.merge(first, second)
            summit[sets[first]], area[sets[first]] = higher, together
    roots = np.array([sets[number] for number in range(count + 1)])
    kept, numbers = np.unique(roots, return_inverse=True)  # 0, the background, stays the first
    cells = numbers.astype(np.int32)[basins]
    highest = np.array([summit[root] for root in kept], dtype=np.float32)
    rows, columns = np.nonzero((height == highest[cells]) & (cells > 0))
    _, first_of = np.unique(cells[rows, columns], return_index=True)
    return cells, np.stack([rows, columns], axis=1)[first_of]


def _saddles(basins: NDArray[np.int32], height: NDArray[np.float32]) -> Iterator[tuple[int, int, float]]:
    """Pairs of basins that meet at pixel edges and the height of the way between them, the highest first."""
    pairs, heights = [], []
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        one, other = basins[here], basins[there]
        meet = (one != other) & (one > 0) & (other > 0)
        pairs.append(np.sort(np.stack([one[meet], other[meet]], axis=1), axis=1))
        heights.append(np.minimum(height[here][meet], height[there][meet]))
    pair, saddle = np.concatenate(pairs), np.concatenate(heights)
    order = np.lexsort((pair[:, 1], pair[:, 0], -saddle))
    pair, saddle = pair[order], saddle[order]
    first = np.sort(np.unique(pair, axis=0, return_index=True)[1])
    for (one, other), at in zip(pair[first].tolist(), saddle[first].tolist(), strict=True):
        yield one, other, at


def _take(
    cells: NDArray[np.int32],
    summits: NDArray[np.intp],
    core: _Window,
    view: _Window,
    numbers: NDArray[np.int32],
    count: int,
) -> int:
    """Write the cells of a view whose summits lie in its core; returns how many cells there are by now."""
    corner = [one.start for one in view]
    own = np.ones(len(summits), dtype=bool)
    for axis, one in enumerate(core):
        place = summits[:, axis] + corner[axis]
        own &= (place >= one.start) & (place < one.stop)
    new = np.zeros(len(summits) + 1, dtype=np.int32)
    new[1:][own] = np.arange(count + 1, count + 1 + own.sum())
    taken, wanted = numbers[view], new[cells]
    # blocks agree on what is smaller than a margin; of what is larger each pixel stays with the first
    disputed = np.unique(wanted[(wanted > 0) & (taken > 0)])
    free = (wanted > 0) & (taken == 0)
    for number in disputed.tolist():
        pieces, _ = ndimage.label(free & (wanted == number))
        largest = int(np.bincount(pieces.ravel(), minlength=2)[1:].argmax()) + 1
        free &= (wanted != number) | (pieces == largest)
    taken[free] = wanted[free]
    return int(count + own.sum())


def _fill(inside: NDArray[np.bool_], core: _Window, view: _Window, numbers: NDArray[np.int32]) -> None:
    """Give what no block took to the cells beside it."""
    taken = numbers[view]
    left = inside & (taken == 0)
    rows, columns = (
        slice(one.start - whole.start, one.stop - whole.start) for one, whole in zip(core, view, strict=True)
    )
    if left[rows, columns].any():
        flooded = watershed(np.zeros(inside.shape), np.where(inside, taken, 0), connectivity=1, mask=inside)
        taken[left] = flooded[left]


def _without_specks(
    numbers: NDArray[np.int32],
    values: NDArray[np.uint8],
    probability: NDArray[Any],
    pixel: float,
    mpp: tuple[float, float] | None,
) -> Instances:
    """Number the cells anew without those that are too small, and measure them."""
    count = len(values)
    pixels, total = np.zeros(count + 1, dtype=np.int64), np.zeros(count + 1)
    rows_at_once = max(1, _BLOCK**2 // max(1, numbers.shape[1]))
    chunks = [slice(start, start + rows_at_once) for start in range(0, len(numbers), rows_at_once)]
    for rows in chunks:
        flat = numbers[rows].ravel()
        pixels += np.bincount(flat, minlength=count + 1)
        total += np.bincount(flat, weights=_shares(probability[rows]).ravel(), minlength=count + 1)
    kept = pixels * pixel**2 >= _LEAST_AREA
    kept[0] = False
    new = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    for rows in chunks:
        numbers[rows] = new[numbers[rows]]
    means = total[kept] / pixels[kept]
    return Instances(numbers, values[kept[1:]], pixels[kept], means, pixel, mpp)
