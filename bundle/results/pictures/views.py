"""Which parts of a case its preview shows, each as upright two-dimensional arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from skimage.transform import integral_image, integrate

from bundle.results.pictures.planes import Plane, UprightGrid, best_slice, upright
from bundle.results.pictures.windows import Window, block_mean, display_window, to_grey
from bundle.results.prediction import Prediction

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
        size: width and height in mm for volumes, in pixels of the source for two-dimensional images.
        letters: orientation at the left, right, top and bottom edge; None for two-dimensional images.
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


def compared_views(prediction: Prediction, ground_truth: NDArray[np.uint8]) -> tuple[View, View, str]:
    """The view where mask and ground truth differ most, with the one, with the other, and a note on the display window.

    Args:
        ground_truth: uint8, of the mask's shape, its values those of the mask.
    """
    wrong = np.where(prediction.mask != ground_truth, np.maximum(prediction.mask, ground_truth), np.uint8(0))
    if not wrong.any():
        wrong = ground_truth
    shown = [replace(prediction, mask=mask) for mask in (ground_truth, prediction.mask)]
    if prediction.case.is_volume:
        grid = _upright_grid(prediction)
        plane = grid.useful_planes()[0]
        index = best_slice(grid.turned(wrong), plane.fixed)
        window = display_window(prediction)
        first, second = (_plane_view(one, grid, plane, index, window) for one in shown)
        return first, second, window.note
    title, parts = f"{wrong.shape[1]} x {wrong.shape[0]} pixels", (slice(None), slice(None))
    if prediction.case.modality == "H&E" and min(wrong.shape) > _DETAIL_EDGE:
        title = f"Detail, {_DETAIL_EDGE} x {_DETAIL_EDGE} of {title}"
        parts = _detail(*_densest_corner(wrong, _DETAIL_EDGE))
    first, second = (_part_view(one, title, *parts) for one in shown)
    return first, second, ""


def _volume_views(prediction: Prediction) -> tuple[list[View], str]:
    """In radiological convention: the patient's right on the left, anterior and superior up."""
    grid, window = _upright_grid(prediction), display_window(prediction)
    mask = grid.turned(prediction.mask)
    views = [
        _plane_view(prediction, grid, plane, best_slice(mask, plane.fixed), window)
        for plane in grid.useful_planes()[:_MAX_PLANES]
    ]
    return views, window.note


def _upright_grid(prediction: Prediction) -> UprightGrid:
    assert prediction.case.affine is not None
    return UprightGrid(prediction.case.affine, prediction.mask.shape)


def _plane_view(prediction: Prediction, grid: UprightGrid, plane: Plane, index: int, window: Window) -> View:
    image, mask, uncertainty = (
        upright(grid.turned(array), plane, index)
        for array in (prediction.case.array[0], prediction.mask, prediction.uncertainty)
    )
    return View(
        title=f"{grid.title(plane)}, slice {grid.number(plane, index)} of {grid.shape[plane.fixed]}",
        image=to_grey(image, window),
        mask=mask,
        uncertainty=uncertainty,
        size=grid.size(plane),
        letters=plane.letters,
    )


def _picture_views(prediction: Prediction) -> list[View]:
    mask = prediction.mask
    height, width = mask.shape
    kind = "Overview, " if prediction.is_overview else ""
    whole = _part_view(prediction, f"{kind}{width} x {height} pixels", slice(None), slice(None))
    if prediction.case.modality != "H&E" or min(height, width) < _DETAIL_FROM_EDGE or not mask.any():
        return [whole]
    top, left = _densest_corner(mask, _DETAIL_EDGE)
    whole.inset = (left / width, top / height, _DETAIL_EDGE / width, _DETAIL_EDGE / height)
    part = "Detail of it" if prediction.is_overview else "Detail"
    title = f"{part}, {_DETAIL_EDGE} x {_DETAIL_EDGE} pixels"
    return [whole, _part_view(prediction, title, *_detail(top, left))]


def _detail(top: int, left: int) -> tuple[slice, slice]:
    return slice(top, top + _DETAIL_EDGE), slice(left, left + _DETAIL_EDGE)


def _part_view(prediction: Prediction, title: str, rows: slice, columns: slice) -> View:
    """Of an image; the window is that of the whole."""
    part = prediction.case.array[:, rows, columns]
    step = max(1, -(-max(part.shape[1:]) // _MAX_EDGE))
    shown = to_grey(block_mean(part, step), display_window(prediction))
    return View(
        title=title,
        image=shown[0] if len(shown) == 1 else np.moveaxis(shown, 0, -1),
        mask=prediction.mask[rows, columns][::step, ::step],
        uncertainty=block_mean(prediction.uncertainty[rows, columns][None], step)[0],
        size=(float(part.shape[2]), float(part.shape[1])),
    )


def _densest_corner(mask: NDArray[np.uint8], edge: int) -> tuple[int, int]:
    """Top and left of the square with the most labelled pixels, on a grid of a quarter of its edge."""
    tops, lefts = (np.arange(0, length - edge + 1, edge // 4) for length in mask.shape)
    corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)
    areas = integrate(integral_image((mask > 0).astype(np.int64)), corners, corners + edge - 1)
    top, left = corners[np.argmax(areas)].tolist()
    return top, left
