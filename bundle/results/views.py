"""Which parts of a case its preview shows, each as upright two-dimensional arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.results.planes import UprightGrid, best_slice, upright
from bundle.results.prediction import Prediction
from bundle.results.windows import block_mean, display_window, to_grey

_MAX_EDGE = 1000  # pixels; a preview's panel has about half as many
_MAX_PLANES = 2
_DETAIL_EDGE = 256
_DETAIL_FROM_EDGE = 600


@dataclass
class View:
    """One row of a preview.

    Attributes:
        title: what is shown.
        image: uint8, (h, w) grey or (h, w, 3) RGB.
        mask: uint8 label values, (h, w).
        uncertainty: float32 in [0, 1], (h, w).
        size: width and height in mm for volumes, in pixels of the source for pictures.
        letters: orientation at the left, right, top and bottom edge; None for pictures.
        inset: left, top, width and height, as fractions, of the part that the next view enlarges.
    """

    title: str
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    uncertainty: NDArray[np.float32]
    size: tuple[float, float]
    letters: tuple[str, str, str, str] | None = None
    inset: tuple[float, float, float, float] | None = None


def select_views(prediction: Prediction) -> tuple[list[View], str]:
    """One or two views, the most informative first, and a note on the display window ('' for none)."""
    if prediction.case.is_volume:
        return _volume_views(prediction)
    return _picture_views(prediction), ""


def _volume_views(prediction: Prediction) -> tuple[list[View], str]:
    """In radiological convention: the patient's right on the left, anterior and superior up."""
    case = prediction.case
    assert case.affine is not None
    grid = UprightGrid(case.affine, prediction.mask.shape)
    image, mask, uncertainty = map(grid.turned, (case.array[0], prediction.mask, prediction.uncertainty))
    window = display_window(prediction)
    views = []
    for plane in grid.useful_planes()[:_MAX_PLANES]:
        index = best_slice(mask, plane.fixed)
        cut = [upright(array, plane, index) for array in (image, mask, uncertainty)]
        number, count = grid.number(plane, index), mask.shape[plane.fixed]
        views.append(
            View(
                title=f"{grid.title(plane)}, slice {number} of {count}",
                image=to_grey(cut[0], window),
                mask=cut[1],
                uncertainty=cut[2],
                size=grid.size(plane),
                letters=plane.letters,
            )
        )
    return views, window.note


def _picture_views(prediction: Prediction) -> list[View]:
    array, mask = prediction.case.array, prediction.mask
    window = display_window(prediction)

    def view(title: str, rows: slice, columns: slice) -> View:
        part = array[:, rows, columns]
        step = max(1, -(-max(part.shape[1:]) // _MAX_EDGE))
        shown = to_grey(block_mean(part, step), window)
        return View(
            title=title,
            image=shown[0] if len(shown) == 1 else np.moveaxis(shown, 0, -1),
            mask=mask[rows, columns][::step, ::step],
            uncertainty=block_mean(prediction.uncertainty[rows, columns][None], step)[0],
            size=(float(part.shape[2]), float(part.shape[1])),
        )

    height, width = mask.shape
    kind = "Overview, " if prediction.is_overview else ""
    whole = view(f"{kind}{width} x {height} pixels", slice(None), slice(None))
    if prediction.case.modality != "H&E" or min(height, width) < _DETAIL_FROM_EDGE or not mask.any():
        return [whole]
    top, left = _densest_corner(mask, _DETAIL_EDGE)
    rows, columns = slice(top, top + _DETAIL_EDGE), slice(left, left + _DETAIL_EDGE)
    whole.inset = (left / width, top / height, _DETAIL_EDGE / width, _DETAIL_EDGE / height)
    part = "Detail of it" if prediction.is_overview else "Detail"
    return [whole, view(f"{part}, {_DETAIL_EDGE} x {_DETAIL_EDGE} pixels", rows, columns)]


def _densest_corner(mask: NDArray[np.uint8], edge: int) -> tuple[int, int]:
    """Top and left of the square with the most labelled pixels, on a grid of a quarter of its edge."""
    sums = np.pad((mask > 0).astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    tops = np.arange(0, mask.shape[0] - edge + 1, edge // 4)
    lefts = np.arange(0, mask.shape[1] - edge + 1, edge // 4)

    def corners(down: int, across: int) -> NDArray[np.int64]:
        chosen: NDArray[np.int64] = sums[np.ix_(tops + down, lefts + across)]
        return chosen

    area = corners(edge, edge) - corners(0, edge) - corners(edge, 0) + corners(0, 0)
    row, column = np.unravel_index(int(np.argmax(area)), area.shape)
    return int(tops[row]), int(lefts[column])
