"""Which parts of a case its preview shows, each as upright two-dimensional arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bundle.results.prediction import Prediction

_MAX_EDGE = 1000  # pixels; a preview's panel has about half as many
_DETAIL_EDGE = 256
_DETAIL_FROM_EDGE = 600
_THIN = 0.15  # a plane whose short side is under this part of its long side shows too little
_OBLIQUE_COSINE = 0.99


class Window(NamedTuple):
    """The range of values that is shown from black to white."""

    low: float
    high: float
    note: str


_SOFT_TISSUE = Window(-135.0, 215.0, "window 350 / level 40 HU")
_LUNG = Window(-1350.0, 150.0, "window 1500 / level -600 HU")
_LUNG_WORDS = ("lung", "covid", "infection", "pneumo")


class _Plane(NamedTuple):
    """An anatomical plane in a RAS+ grid: the axis it fixes, the two it shows, the letters around it."""

    name: str
    fixed: int
    across: int
    down: int
    letters: tuple[str, str, str, str]


_PLANES = (
    _Plane("Axial", 2, 0, 1, ("R", "L", "A", "P")),
    _Plane("Coronal", 1, 0, 2, ("R", "L", "S", "I")),
    _Plane("Sagittal", 0, 1, 2, ("A", "P", "S", "I")),
)


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
    assert case.affine is not None and case.spacing is not None
    orientation = _orientation(case.affine)
    image, mask, uncertainty = (
        nib.orientations.apply_orientation(array, orientation)
        for array in (case.array[0], prediction.mask, prediction.uncertainty)
    )
    order = np.argsort(orientation[:, 0])  # RAS+ axis -> axis of the file
    edges = np.asarray(case.spacing)
    spacing = np.where(edges > 0, edges, 1.0)[order]
    flipped = orientation[order, 1] < 0
    oblique = _is_oblique(case.affine)
    window = _volume_window(prediction)
    views = []
    for plane in _useful_planes(mask.shape, spacing):
        index = _best_slice(mask, plane.fixed)
        count = mask.shape[plane.fixed]
        number = count - index if flipped[plane.fixed] else index + 1
        cut = [_upright(array, plane, index) for array in (image, mask, uncertainty)]
        views.append(
            View(
                title=f"{plane.name}{' (oblique)' if oblique else ''}, slice {number} of {count}",
                image=_to_grey(cut[0], window),
                mask=cut[1],
                uncertainty=cut[2],
                size=(
                    float(mask.shape[plane.across] * spacing[plane.across]),
                    float(mask.shape[plane.down] * spacing[plane.down]),
                ),
                letters=plane.letters,
            )
        )
    return views, window.note


def _orientation(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the file's axes to the closest RAS+ ones; a degenerate affine is shown as it is stored."""
    orientation: NDArray[np.float64] = nib.orientations.io_orientation(affine)
    if np.isnan(orientation).any():
        return np.array([[0, 1], [1, 1], [2, 1]], dtype=np.float64)
    return orientation


def _is_oblique(affine: NDArray[np.float64]) -> bool:
    directions = np.abs(affine[:3, :3]) / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12)
    return bool((directions.max(axis=0) < _OBLIQUE_COSINE).any())


def _useful_planes(shape: tuple[int, ...], spacing: NDArray[np.float64]) -> list[_Plane]:
    extent = np.asarray(shape) * spacing

    def slenderness(plane: _Plane) -> float:
        sides = extent[[plane.across, plane.down]]
        return float(sides.min() / max(sides.max(), 1e-12))

    useful = [plane for plane in _PLANES if slenderness(plane) >= _THIN]
    return useful[:2] or [max(_PLANES, key=slenderness)]


def _best_slice(mask: NDArray[np.uint8], axis: int) -> int:
    """Where most structures are near their largest cross-section; the middle of an empty mask."""
    areas = np.stack([np.bincount(cut.ravel(), minlength=256)[1:] for cut in np.moveaxis(mask, axis, 0)])
    largest = areas.max(axis=0)
    if not largest.any():
        return int(mask.shape[axis]) // 2
    nearness: NDArray[np.float64] = (areas / np.maximum(largest, 1)).sum(axis=1)
    return int(nearness.argmax())


def _upright(volume: NDArray[Any], plane: _Plane, index: int) -> NDArray[Any]:
    return np.ascontiguousarray(np.take(volume, index, axis=plane.fixed)[::-1, ::-1].T)


def _volume_window(prediction: Prediction) -> Window:
    if prediction.case.modality != "CT":
        return _percentile_window(prediction.case.array[0])
    names = [name.lower() for name in prediction.labels.values()]
    chest = bool(names) and all(any(word in name for word in _LUNG_WORDS) for name in names)
    return _LUNG if chest else _SOFT_TISSUE


def _percentile_window(values: NDArray[np.float32]) -> Window:
    step = max(1, int((values.size / 1_000_000) ** (1 / values.ndim)))
    sample = values[(slice(None, None, step),) * values.ndim]
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, (0.5, 99.5)) if sample.size else (0.0, 1.0)
    return Window(float(low), float(high), "")


def _to_grey(values: NDArray[np.float32], window: Window) -> NDArray[np.uint8]:
    scaled = (values - window.low) / max(window.high - window.low, 1e-6)
    grey: NDArray[np.uint8] = (np.nan_to_num(np.clip(scaled, 0, 1)) * 255).astype(np.uint8)
    return grey


def _picture_views(prediction: Prediction) -> list[View]:
    array, mask = prediction.case.array, prediction.mask
    if array.shape[0] == 1:
        window = _percentile_window(array[0])
    else:
        window = Window(0.0, 255.0 if array.max() <= 255 else 65535.0, "")

    def view(title: str, rows: slice, columns: slice) -> View:
        part = array[:, rows, columns]
        step = max(1, -(-max(part.shape[1:]) // _MAX_EDGE))
        shown = _to_grey(_block_mean(part, step), window)
        return View(
            title=title,
            image=shown[0] if len(shown) == 1 else np.moveaxis(shown, 0, -1),
            mask=mask[rows, columns][::step, ::step],
            uncertainty=_block_mean(prediction.uncertainty[rows, columns][None], step)[0],
            size=(float(part.shape[2]), float(part.shape[1])),
        )

    height, width = mask.shape
    whole = view(f"{width} x {height} pixels", slice(None), slice(None))
    if prediction.case.modality != "H&E" or min(height, width) < _DETAIL_FROM_EDGE or not mask.any():
        return [whole]
    top, left = _densest_corner(mask, _DETAIL_EDGE)
    rows, columns = slice(top, top + _DETAIL_EDGE), slice(left, left + _DETAIL_EDGE)
    whole.inset = (left / width, top / height, _DETAIL_EDGE / width, _DETAIL_EDGE / height)
    return [whole, view(f"Detail, {_DETAIL_EDGE} x {_DETAIL_EDGE} pixels", rows, columns)]


def _block_mean(array: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """(C, H, W) -> (C, ceil(H / step), ceil(W / step)): the mean of 2 x 2 samples of each block."""
    if step == 1:
        return array
    half = max(1, step // 2)
    corner = array[:, ::step, ::step]
    mean: NDArray[np.float32] = corner.copy()
    for down, across in ((half, 0), (0, half), (half, half)):
        other = array[:, down::step, across::step]
        # A block cut off by the edge has no further sample: its own corner stands in.
        full = corner.copy()
        full[:, : other.shape[1], : other.shape[2]] = other
        mean += full
    return mean / np.float32(4)


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
