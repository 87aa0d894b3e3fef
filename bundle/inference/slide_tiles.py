"""Tiles over a slide: where they lie, and how what they show is blended, in memory for one row of them.

MONAI's sliding_window_inference holds image and result whole, and its WSISlidingWindowSplitter with ZarrAvgMerger
weighs all pixels of a tile alike and writes all maps of the slide to disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bundle.cases.slides import SlideGrid
from bundle.inference.inferer import tile_importance

#: Left, top, right and bottom in pixels of a grid; right and bottom lie outside.
Box = tuple[int, int, int, int]


class Tiles:
    """Where tiles lie over tissue.

    Args:
        grid: that they are cut from.
        size: longest side of a tile.
        overlap: share by which neighbours overlap.
        overview, tissue: (H, W) of the overview, where there is tissue.
        box: of the grid, that alone is wanted; the tiles are those of the whole grid that reach into it.
    """

    def __init__(
        self,
        grid: SlideGrid,
        size: int,
        overlap: float,
        overview: SlideGrid,
        tissue: NDArray[np.bool_],
        box: Box | None = None,
    ) -> None:
        left, top, right, bottom = box or (0, 0, grid.width, grid.height)
        self.grid = grid
        self.height, self.width = min(size, grid.height), min(size, grid.width)
        self.tops = [
            one for one in _starts(grid.height, self.height, overlap) if top - self.height < one < bottom
        ]
        self.lefts = [
            one for one in _starts(grid.width, self.width, overlap) if left - self.width < one < right
        ]
        self._tissue = tissue
        self._scale = overview.height / grid.height, overview.width / grid.width

    @property
    def left(self) -> int:
        """The first column of the grid that tiles reach."""
        return self.lefts[0]

    @property
    def span(self) -> int:
        """Columns of the grid from there on."""
        return self.lefts[-1] + self.width - self.lefts[0]

    def row(self, top: int) -> list[tuple[int, int]]:
        """(top, left) of the tiles of a row that show tissue."""
        down, across = self._scale
        rows: NDArray[np.bool_] = np.any(
            self._tissue[int(top * down) : int(np.ceil((top + self.height) * down))], axis=0
        )
        return [
            (top, left)
            for left in self.lefts
            if rows[int(left * across) : int(np.ceil((left + self.width) * across))].any()
        ]


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    step = max(1, int(tile * (1.0 - overlap)))
    return [*range(0, length - tile, step), length - tile]


def blended(
    tiles: Tiles,
    channels: int,
    segment: Callable[[Sequence[tuple[int, int]]], Iterator[NDArray[np.float32]]],
    add: Callable[[int, NDArray[np.float32], NDArray[np.float32]], None],
) -> int:
    """Blend tiles, weighted as those of pictures are, and hand on rows of pixels as soon as no tile can change them.

    Args:
        segment: places -> (channels, H, W) of each.
        add: gets the first row, (channels, rows, W) of weighted sums, and (rows, W) of weights; W is `tiles.span`.

    Returns:
        How many tiles there were.
    """
    importance = tile_importance((tiles.height, tiles.width)).numpy()
    total = np.zeros((channels, tiles.height, tiles.span), dtype=np.float32)
    weight = np.zeros(total.shape[1:], dtype=np.float32)
    count = 0
    for number, top in enumerate(tiles.tops):
        places = tiles.row(top)
        for (_, left), maps in zip(places, segment(places), strict=True):
            columns = slice(left - tiles.left, left - tiles.left + tiles.width)
            total[:, :, columns] += maps * importance
            weight[:, columns] += importance
        count += len(places)
        last = number + 1 == len(tiles.tops)
        done = tiles.height if last else tiles.tops[number + 1] - top
        add(top, total[:, :done], weight[:done])
        for array in (total, weight):
            array[..., : tiles.height - done, :] = array[..., done:, :]
            array[..., tiles.height - done :, :] = 0.0
    return count
