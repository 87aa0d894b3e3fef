"""An image as a PNG that is small enough to send around, with as little visible loss as that takes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

#: Red, green, blue in [0, 1].
RGB = tuple[float, float, float]

_KEPT_BITS = 0b11111100
_MANY_COLOURS, _FEW_COLOURS = 128, 64  # taken from the image itself, on top of those to keep
# By what factor each step can be hoped to bring the size down; further away it is not worth its time.
_LOSS_OF_BITS, _LOSS_OF_COLOURS = 2.0, 3.0
_MARGIN = 0.985


def encode_png(
    pixels: NDArray[np.uint8], keep: Sequence[RGB], limit: int, key: str, box: Sequence[float]
) -> bytes:
    """Encode (H, W, 3) RGB as PNG of at most `limit` bytes; identical arguments give identical bytes.

    Tried in turn: as it is; with 6 bits a channel; with a palette; with a smaller palette; smaller.

    Args:
        pixels: the image.
        keep: colours in [0, 1] that a palette must hold, however few pixels have them; up to 128.
        limit: the most bytes.
        key: name of a text chunk that holds `box`.
        box: left, top, right and bottom in pixels, scaled with the image.
    """
    image = Image.fromarray(pixels)
    data = _png(image, key, box)
    if limit < len(data) <= _LOSS_OF_BITS * limit:
        data = _png(Image.fromarray(pixels & _KEPT_BITS), key, box)
    if limit < len(data) <= _LOSS_OF_COLOURS * limit:
        data = _png(_with_palette(image, keep, _MANY_COLOURS), key, box)
    if len(data) > limit:
        data = _png(_with_palette(image, keep, _FEW_COLOURS), key, box)
    scale = 1.0
    while len(data) > limit and scale > 0.1:
        scale *= _MARGIN * (limit / len(data)) ** 0.5
        size = round(image.width * scale), round(image.height * scale)
        smaller = image.resize(size, Image.Resampling.LANCZOS)
        data = _png(_with_palette(smaller, keep, _FEW_COLOURS), key, [edge * scale for edge in box])
    return data


def _with_palette(image: Image.Image, keep: Sequence[RGB], size: int) -> Image.Image:
    """The image's `size` main colours and those in `keep`, which a median cut alone would merge away."""
    main = image.quantize(size, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).getpalette() or []
    kept = [round(channel * 255) for colour in keep for channel in colour]
    palette = Image.new("P", (1, 1))
    palette.putpalette((main[: 3 * size] + kept)[: 3 * 256])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def _png(image: Image.Image, key: str, box: Sequence[float]) -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_text(key, ",".join(str(round(edge)) for edge in box))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=notes, compress_level=6)
    return buffer.getvalue()
