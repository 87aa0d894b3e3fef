"""The outlines of a mask: closed polygons around what is inside, with the holes in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import approximate_polygon, find_contours, points_in_poly

#: How far, in pixels, a simplified outline may leave the exact one, which passes all pixels at more than 0.35.
_TOLERANCE = 0.25

Ring = NDArray[Any]


def outlines(inside: NDArray[np.bool_]) -> list[tuple[Ring, list[Ring]]]:
    """The regions of a mask, 4-connected, each as its outline and its holes.

    Args:
        inside: (rows, columns).

    Returns:
        (outline, holes) of each region; rings are (points, 2) of row and column, pixel centres at whole numbers, first
        and last point equal. A pixel's centre lies within a region's outline and outside its holes if and only if the
        pixel is inside.
    """
    padded = np.pad(np.asarray(inside, dtype=np.float32), 1)
    outer: list[Ring] = []
    holes: list[Ring] = []
    for contour in find_contours(padded, 0.5, fully_connected="low", positive_orientation="high"):
        ring = approximate_polygon(contour, _TOLERANCE) - 1.0
        # contours wind one way around what is inside and the other way around holes
        (outer if signed_area(ring) > 0.0 else holes).append(ring)
    regions: list[tuple[Ring, list[Ring]]] = [(ring, []) for ring in outer]
    smallest_first = sorted(regions, key=lambda region: signed_area(region[0]))
    for hole in holes:
        # a pixel of the hole, since outlines may touch and pixel centres are on none
        pixel = _pixel_within(hole)
        owner = next(region for region in smallest_first if points_in_poly(pixel, region[0])[0])
        owner[1].append(hole)
    return regions


def _pixel_within(ring: Ring) -> Ring:
    low, high = np.floor(ring.min(axis=0)), np.ceil(ring.max(axis=0))
    grid = np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1].reshape(2, -1).T
    return grid[points_in_poly(grid, ring)][:1]


def signed_area(ring: Ring) -> float:
    """Of a closed ring, in square pixels, by the shoelace formula; positive as `outlines` winds outlines."""
    row, column = ring[:, 0], ring[:, 1]
    return float(np.sum(row[:-1] * column[1:] - row[1:] * column[:-1])) / 2.0


def keyholed(outline: Ring, holes: list[Ring]) -> Ring:
    """One ring that runs along an outline and, by channels of no width, around its holes (PS3.3 C.8.8.6.3, 'keyhole').

    Returns:
        (points, 2), first and last point equal.
    """
    ring = outline[:-1]
    for hole in sorted(holes, key=lambda hole: float(hole[:, 0].min())):
        around = hole[:-1]
        distance = ((ring[:, None] - around[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(distance.argmin()), distance.shape)
        turned = np.roll(around, -int(there), axis=0)
        ring = np.concatenate([ring[: here + 1], turned, turned[:1], ring[here:]])
    return np.concatenate([ring, ring[:1]])
