"""An open slide: its size, its resolution, and any region of it at any resolution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.cases.errors import CaseError, broken_file

MppSource = Literal["file", "option"]
#: A level is taken for a resolution that it misses by less than this part.
_TOLERANCE = 1.01


class Pyramid(Protocol):
    """What reads the levels of a slide's file.

    Attributes:
        sizes: width and height of each level in pixels, the largest first.
        mpp: micrometres per pixel of level 0, across and down, as the file states them; None where it does not.
        format: of the file, for the report.
        notes: what a reader of the report should know.
    """

    sizes: list[tuple[int, int]]
    mpp: tuple[float, float] | None
    format: str
    notes: list[str]

    def region(self, level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """(height, width, 3), transparent parts on white; the region lies within the level."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True)
class SlideGrid:
    """A grid of pixels over the whole of level 0.

    Attributes:
        width, height: in pixels of the grid.
        scale: pixels of level 0 per pixel of the grid, across and down.
        mpp: micrometres per pixel of the grid, across and down.
    """

    width: int
    height: int
    scale: tuple[float, float]
    mpp: tuple[float, float]


class Slide:
    """A slide that is open; a context manager, or closed by `close`.

    Args:
        path: the file.
        pyramid: reads its levels.
        mpp: micrometres per pixel of level 0, across and down.
        mpp_source: who said so.
    """

    def __init__(self, path: Path, pyramid: Pyramid, mpp: tuple[float, float], mpp_source: MppSource) -> None:
        self.path = path
        self.pyramid = pyramid
        self.mpp = mpp
        self.mpp_source = mpp_source

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.pyramid.close()

    @property
    def width(self) -> int:
        """Of level 0 in pixels, as `height`."""
        return self.pyramid.sizes[0][0]

    @property
    def height(self) -> int:
        return self.pyramid.sizes[0][1]

    def grid(self, mpp: float) -> SlideGrid:
        """The grid of about `mpp` micrometres per pixel whose whole pixels cover the slide."""
        width = max(1, round(self.width * self.mpp[0] / mpp))
        height = max(1, round(self.height * self.mpp[1] / mpp))
        scale = (self.width / width, self.height / height)
        return SlideGrid(width, height, scale, (self.mpp[0] * scale[0], self.mpp[1] * scale[1]))

    def read(self, grid: SlideGrid, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """(height, width, 3) uint8: a region of a grid, averaged from the level that is just finer than it.

        Of a grid finer than level 0, level 0 is enlarged.

        Raises:
            CaseError: the region cannot be read.
        """
        level = self._level(max(grid.scale))
        wide, high = self.pyramid.sizes[level]
        across, down = wide / grid.width, high / grid.height  # pixels of the level per pixel of the grid
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        first = int(box[0]), int(box[1])
        last = min(wide, max(first[0] + 1, _up(box[2]))), min(high, max(first[1] + 1, _up(box[3])))
        with slide_errors(self.path):
            pixels = self.pyramid.region(level, *first, last[0] - first[0], last[1] - first[1])
        if pixels.shape[:2] == (height, width):
            return pixels
        inner = (
            box[0] - first[0],
            box[1] - first[1],
            min(box[2], last[0]) - first[0],
            min(box[3], last[1]) - first[1],
        )
        method = Image.Resampling.BOX if min(across, down) >= 1.0 else Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(pixels).resize((width, height), method, box=inner))

    def _level(self, scale: float) -> int:
        """The smallest level of no less than the resolution of `scale` pixels of level 0 a pixel."""
        fit = [
            level
            for level, (wide, high) in enumerate(self.pyramid.sizes)
            if max(self.width / wide, self.height / high) <= scale * _TOLERANCE
        ]
        return max(fit, key=lambda level: self.width / self.pyramid.sizes[level][0], default=0)


def _up(value: float) -> int:
    return int(np.ceil(value - 1e-6))


@contextmanager
def slide_errors(path: Path) -> Iterator[None]:
    """Turn whatever the libraries raise for a broken file, or are missing, into one sentence."""
    with broken_file(path):
        try:
            yield
        except ImportError as error:
            problem = f"is a slide, which needs a package that is not installed ({error.name or error})"
            raise CaseError(path, problem, "install the extra 'slides'") from error
