"""The pictures of a case that its page shows: slices in three planes, or the picture itself."""

from __future__ import annotations

import base64
import io
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from bundle.results.page.rendering import data_uri, times
from bundle.results.pictures.planes import Plane, UprightGrid, best_slice, upright
from bundle.results.pictures.windows import Window, block_mean, display_window, to_grey
from bundle.results.prediction import Prediction

_MOST_SLICES = {"Axial": 32}
_MOST_OTHER_SLICES = 16
_SLICE_EDGE, _PICTURE_EDGE = 512, 1600  # pixels, longest side
_UNCERTAINTY_EDGE = 256
_QUALITY, _UNCERTAINTY_QUALITY = 82, 75
_COLOUR_MAP = "magma"


@dataclass(frozen=True)
class Slice:
    """One picture with what lies over it.

    Attributes:
        title: which one it is.
        image: JPEG.
        labels: mask values, row by row, as deflated bytes; empty where there is no structure.
        uncertainty: JPEG in the colours of `_COLOUR_MAP`, which begins with black: made to be added to the image.
    """

    title: str
    image: bytes
    labels: bytes
    uncertainty: bytes


@dataclass(frozen=True)
class Stack:
    """Pictures to leaf through.

    Attributes:
        title: the plane's name; of a picture its size.
        letters: orientation at the left, right, top and bottom edge; None for pictures.
        size: width and height as they should look: in mm for volumes, in pixels for pictures.
        grid: columns and rows of each slice's labels.
        start: the most informative slice.
        step: how many slices of the volume one of these stands for.
    """

    title: str
    letters: tuple[str, str, str, str] | None
    size: tuple[float, float]
    grid: tuple[int, int]
    start: int
    step: int
    slices: list[Slice]

    def content(self) -> dict[str, Any]:
        """For the page's script."""
        return {
            "title": self.title,
            "size": self.size,
            "grid": self.grid,
            "millimetres": self.letters is not None,
            "slices": [
                {
                    "title": one.title,
                    "image": data_uri(one.image, "image/jpeg"),
                    "labels": base64.b64encode(one.labels).decode(),
                    "uncertainty": data_uri(one.uncertainty, "image/jpeg"),
                }
                for one in self.slices
            ],
        }


def picture_stacks(prediction: Prediction) -> list[Stack]:
    """A stack a plane, the most informative plane first; one of one picture for pictures."""
    return _volume_stacks(prediction) if prediction.case.is_volume else [_picture_stack(prediction)]


def _volume_stacks(prediction: Prediction) -> list[Stack]:
    case = prediction.case
    assert case.affine is not None
    grid = UprightGrid(case.affine, prediction.mask.shape)
    volumes = [grid.turned(array) for array in (case.array[0], prediction.mask, prediction.uncertainty)]
    window = display_window(prediction)
    return [_plane_stack(grid, plane, volumes, window) for plane in grid.useful_planes()]


def _plane_stack(grid: UprightGrid, plane: Plane, volumes: list[NDArray[Any]], window: Window) -> Stack:
    count = grid.shape[plane.fixed]
    step = -(-count // _MOST_SLICES.get(plane.name, _MOST_OTHER_SLICES))
    best = best_slice(volumes[1], plane.fixed)
    indices = list(range(best % step, count, step))
    slices = []
    for index in indices:
        image, mask, uncertainty = (upright(volume, plane, index) for volume in volumes)
        title = f"slice {grid.number(plane, index)} of {count}"
        slices.append(_slice(title, image[None], mask, uncertainty, window, _SLICE_EDGE))
    return Stack(
        title=grid.title(plane),
        letters=plane.letters,
        size=grid.size(plane),
        grid=_reduced((grid.shape[plane.across], grid.shape[plane.down]), _SLICE_EDGE),
        start=indices.index(best),
        step=step,
        slices=slices,
    )


def _picture_stack(prediction: Prediction) -> Stack:
    height, width = prediction.mask.shape
    title = f"{times((width, height))} pixels"
    image, window = prediction.case.array, display_window(prediction)
    return Stack(
        title=title,
        letters=None,
        size=(float(width), float(height)),
        grid=_reduced((width, height), _PICTURE_EDGE),
        start=0,
        step=1,
        slices=[_slice(title, image, prediction.mask, prediction.uncertainty, window, _PICTURE_EDGE)],
    )


def _slice(
    title: str,
    image: NDArray[np.float32],
    mask: NDArray[np.uint8],
    uncertainty: NDArray[np.float32],
    window: Window,
    edge: int,
) -> Slice:
    """From (C, H, W), (H, W) and (H, W), no side of the result longer than `edge`."""
    step = _step(mask.shape, edge)
    grey = to_grey(block_mean(image, step), window)
    pixels = grey[0] if len(grey) == 1 else np.ascontiguousarray(np.moveaxis(grey, 0, -1))
    labels = np.ascontiguousarray(mask[::step, ::step])
    heat = block_mean(uncertainty[None], _step(mask.shape, _UNCERTAINTY_EDGE))[0]
    colours = (colormaps[_COLOUR_MAP](heat)[..., :3] * 255).astype(np.uint8)
    return Slice(
        title=title,
        image=_jpeg(pixels, _QUALITY),
        labels=zlib.compress(labels.tobytes(), 9) if labels.any() else b"",
        uncertainty=_jpeg(colours, _UNCERTAINTY_QUALITY),
    )


def _step(shape: tuple[int, ...], edge: int) -> int:
    return -(-max(shape) // edge)


def _reduced(size: tuple[int, int], edge: int) -> tuple[int, int]:
    step = _step(size, edge)
    return -(-size[0] // step), -(-size[1] // step)


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
