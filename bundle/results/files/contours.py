"""The outlines of a mask: closed polygons around what is inside, with the holes in them.

`find_contours` leaves open which ring is a hole of which. `rasterio.features.shapes` holds all polygons of a slide in
memory and brings GDAL along; `shapely.union_all` over rows of pixels gives the same polygons five times slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours

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
    regions = []
    for corner, piece in pieces_of(ndimage.label(inside)[0]):
        rings = _largest_first(_rings(piece, "low"))
        simple = [approximate_polygon(ring, _TOLERANCE) + corner for ring in rings]
        regions.append((simple[0], simple[1:]))
    return regions


def pixel_edges(piece: NDArray[np.bool_]) -> list[Ring]:
    """The rings along the pixel edges around a piece whose pixels are connected by their edges, and around its holes.

    Args:
        piece: (H, W).

    Returns:
        (N, 2) row and column of corners, closed, in pixels from the upper left corner of the array; the outer ring
        first, which turns the other way than those of holes. Where pixels meet at a corner only, rings touch there,
        and none of them itself.
    """
    # 'high': the pieces of a pinch belong together, so that what they enclose becomes a hole
    return _largest_first(_corners(ring) for ring in _rings(piece, "high"))


def pieces_of(pieces: NDArray[np.int32]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """The corner (row, column) and the pixels of each numbered piece, see `scipy.ndimage.label`."""
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        assert box is not None  # all numbers up to the highest are there
        yield np.array([box[0].start, box[1].start]), pieces[box] == number


def _rings(piece: NDArray[np.bool_], connected: str) -> Iterator[Ring]:
    """Around a piece and its holes, through the middles of pixel edges."""
    contours = find_contours(np.pad(piece, 1).astype(np.float32), 0.5, fully_connected=connected)
    return (contour - 1.0 for contour in contours)  # without the padding


def _largest_first(rings: Iterable[Ring]) -> list[Ring]:
    """By area, so that the outer ring comes first."""

    def area(ring: Ring) -> float:
        rows, columns = ring.T
        return abs(float(np.dot(rows[:-1], columns[1:]) - np.dot(rows[1:], columns[:-1])))

    return sorted(rings, key=area, reverse=True)


def _corners(contour: Ring) -> Ring:
    """From the middles of pixel edges, which the contour of a binary image consists of, to the corners between them.

    At a corner the contour goes from an upright edge, whose column is that of the corner, to a level one, whose row
    is; or the other way round.
    """
    contour = contour[:-1]
    following = np.roll(contour, -1, axis=0)
    level = contour[:, 0] % 1 != 0  # between two rows
    turns = level != np.roll(level, -1)
    rows = np.where(level, contour[:, 0], following[:, 0])
    columns = np.where(level, following[:, 1], contour[:, 1])
    # from the middles of pixels to their upper left corners
    corners = np.stack([rows, columns], axis=1)[turns] + 0.5
    return np.concatenate([corners, corners[:1]])


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
