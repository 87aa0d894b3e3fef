"""A whole-slide image of phantom tissue on glass: a tiled JPEG pyramid as scanners write it, of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from bundle.phantoms.histology import histology_phantom

_BLOCK = 512  # pixels of level 0
_TILE = 256
_SHRINK = 4  # from level to level
_GLASS = np.array([243, 242, 244], dtype=np.uint8)


def slide_phantom_layout(rows: int, columns: int, tissue: float, variants: int) -> NDArray[np.int64]:
    """(rows, columns): which tissue lies in a block, -1 for glass; an ellipse in the middle.

    Args:
        tissue: share of the slide, up to 0.78, which is the ellipse that touches its edges.
        variants: how many kinds of tissue there are.
    """
    y, x = (
        np.arange(rows)[:, None] + 0.5 - rows / 2,
        np.arange(columns)[None] + 0.5 - columns / 2,
    )
    inside = (y / rows) ** 2 + (x / columns) ** 2 <= tissue / np.pi
    return np.where(inside, (np.arange(rows)[:, None] * 7 + np.arange(columns)[None] * 3) % variants, -1)


def write_slide_phantom(
    path: Path,
    width: int,
    height: int,
    mpp: float | None = 0.25,
    tissue: float = 0.25,
    seeds: Sequence[int] = (0, 1, 2, 3),
    levels: int = 3,
) -> None:
    """Write a slide block by block, so that its size is not bound by memory.

    Args:
        path: of the TIFF file.
        width, height: of level 0 in pixels.
        mpp: micrometres per pixel of level 0; None to state none.
        tissue: see `slide_phantom_layout`.
        seeds: of the phantoms that it consists of.
        levels: each a quarter as wide as the one before; 1 for no pyramid.

    Raises:
        OSError: the file cannot be written.
    """
    layout = slide_phantom_layout(-(-height // _BLOCK), -(-width // _BLOCK), tissue, len(seeds))
    blocks = np.stack([histology_phantom(seed, size=_BLOCK).image for seed in seeds])
    with tifffile.TiffWriter(path, bigtiff=width * height > 1 << 30) as writer:
        for level in range(levels):
            shrink = _SHRINK**level
            size = (-(-height // shrink), -(-width // shrink), 3)
            unit = "NONE" if mpp is None else "CENTIMETER"
            per_unit = 1.0 if mpp is None else 1e4 / (mpp * shrink)
            writer.write(
                _tiles(layout, blocks, size),
                shape=size,
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                photometric="rgb",
                compression="jpeg",
                resolution=(per_unit, per_unit),
                resolutionunit=unit,
                subfiletype=int(level > 0),
                metadata=None,
                maxworkers=1,
            )
            side = blocks.shape[1] // _SHRINK
            parts = blocks.reshape(len(blocks), side, _SHRINK, side, _SHRINK, 3)
            blocks = parts.mean(axis=(2, 4)).round().astype(np.uint8)


def _tiles(
    layout: NDArray[np.int64], blocks: NDArray[np.uint8], size: tuple[int, int, int]
) -> Iterator[NDArray[np.uint8]]:
    """The tiles of a level, row by row."""
    side = blocks.shape[1]
    every = np.concatenate([blocks, np.full((1, side, side, 3), _GLASS, dtype=np.uint8)])  # -1 is the last
    for top in range(0, size[0], _TILE):
        rows = np.minimum(np.arange(top, top + _TILE), size[0] - 1)
        for left in range(0, size[1], _TILE):
            columns = np.minimum(np.arange(left, left + _TILE), size[1] - 1)
            which = layout[np.ix_(rows // side, columns // side)]
            yield every[which, (rows % side)[:, None], columns % side]
