"""What a case's page shows of the case: slices in three planes, or the image itself."""

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
_SLICE_EDGE, _IMAGE_EDGE = 512, 1600  # pixels, longest side
_UNCERTAINTY_EDGE = 256
_QUALITY, _UNCERTAINTY_QUALITY = 82, 75
_COLOUR_MAP = "magma"


@dataclass(frozen=True)
class Stack:
    """Slices to leaf through, or one image.

    Attributes:
        title: the plane's name; of an image its size.
        letters: orientation at the left, right, top and bottom edge; None for images.
        size: width and height as they should look: in mm for volumes, in pixels for images.
        grid: columns and rows of each slice's labels.
        start: the most informative slice.
        step: how many slices of the volume one of these stands for.
        slices: of each its title, image (JPEG), labels (mask values, row by row, as deflated bytes; empty where there
            is no structure) and uncertainty (JPEG in the colours of `_COLOUR_MAP`, which begins with black: made to be
            added to the image), as the page's script takes them.
    """

    title: str
    letters: tuple[str, str, str, str] | None
    size: tuple[float, float]
    grid: tuple[int, int]
    start: int
    step: int
    slices: list[dict[str, str]]

    def content(self) -> dict[str, Any]:
        """For the page's script."""
        shown = {"title": self.title, "size": self.size, "grid": self.grid, "slices": self.slices}
        return {**shown, "millimetres": self.letters is not None}


def image_stacks(prediction: Prediction) -> list[Stack]:
    """Of a volume a stack a plane, the most informative plane first; otherwise one stack of one image."""
    window = display_window(prediction)
    if prediction.case.is_volume:
        assert prediction.case.affine is not None
        grid = UprightGrid(prediction.case.affine, prediction.mask.shape)
        arrays = (prediction.case.array[0], prediction.mask, prediction.uncertainty)
        volumes = [grid.turned(array) for array in arrays]
        return [_plane_stack(grid, plane, volumes, window) for plane in grid.useful_planes()]
    height, width = prediction.mask.shape
    title = f"{times((width, height))} pixels"
    shown = _slice(title, prediction.case.array, prediction.mask, prediction.uncertainty, window, _IMAGE_EDGE)
    size, grid_size = (float(width), float(height)), _reduced((width, height), _IMAGE_EDGE)
    return [Stack(title, None, size, grid_size, start=0, step=1, slices=[shown])]


def _plane_stack(grid: UprightGrid, plane: Plane, volumes: list[NDArray[Any]], window: Window) -> Stack:
    count = grid.shape[plane.fixed]
    step = -(-count // _MOST_SLICES.get(plane.name, _MOST_OTHER_SLICES))
    best = best_slice(volumes[1], plane.fixed)
    slices = []
    for index in range(best % step, count, step):
        image, mask, uncertainty = (upright(volume, plane, index) for volume in volumes)
        title = f"slice {grid.number(plane, index)} of {count}"
        slices.append(_slice(title, image[None], mask, uncertainty, window, _SLICE_EDGE))
    shown = _reduced((grid.shape[plane.across], grid.shape[plane.down]), _SLICE_EDGE)
    return Stack(
        grid.title(plane), plane.letters, grid.size(plane), shown, best // step, step=step, slices=slices
    )


def _slice(
    title: str,
    image: NDArray[np.float32],
    mask: NDArray[np.uint8],
    uncertainty: NDArray[np.float32],
    window: Window,
    edge: int,
) -> dict[str, str]:
    """From (C, H, W), (H, W) and (H, W), no side of the result longer than `edge`."""
    step = _step(mask.shape, edge)
    grey = to_grey(block_mean(image, step), window)
    pixels = grey[0] if len(grey) == 1 else np.ascontiguousarray(np.moveaxis(grey, 0, -1))
    labels = np.ascontiguousarray(mask[::step, ::step])
    heat = block_mean(uncertainty[None], _step(mask.shape, _UNCERTAINTY_EDGE))[0]
    colours = (colormaps[_COLOUR_MAP](heat)[..., :3] * 255).astype(np.uint8)
    return {
        "title": title,
        "image": _jpeg(pixels, _QUALITY),
        "labels": base64.b64encode(zlib.compress(labels.tobytes(), 9)).decode() if labels.any() else "",
        "uncertainty": _jpeg(colours, _UNCERTAINTY_QUALITY),
    }


def _step(shape: tuple[int, ...], edge: int) -> int:
    return -(-max(shape) // edge)


def _reduced(size: tuple[int, int], edge: int) -> tuple[int, int]:
    step = _step(size, edge)
    return -(-size[0] // step), -(-size[1] // step)


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, optimize=True)
    return data_uri(buffer.getvalue(), "image/jpeg")
