"""Text on an image: only what the fonts at hand can draw, wrapped, and cut where there is no room."""

from __future__ import annotations

from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

MISSING = "\u25a1"
ELLIPSIS = "\u2026"
_MAIN = "DejaVu Sans"  # comes with matplotlib
_FALLBACKS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
)
_MEASURED_AT, _POINTS_PER_INCH, _FIXED_POINT = 64, 72, 65536
_LOOKED_AT = 4000  # characters: no preview shows more, however long the prompt


@cache
def families() -> tuple[str, ...]:
    """The fonts to draw with: matplotlib's own and, for other scripts, those that this machine has."""
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return (_MAIN, *(name for name in _FALLBACKS if name in installed))


@cache
def _fonts() -> tuple[FT2Font, ...]:
    fonts = tuple(FT2Font(font_manager.findfont(family)) for family in families())
    for font in fonts:
        font.set_size(_MEASURED_AT, _POINTS_PER_INCH)
    return fonts


@cache
def _advance(character: str) -> float | None:
    """How wide one character is drawn, in units of the type size; None where no font has it."""
    code = ord(character)
    for font in _fonts():
        if font.get_char_index(code):
            return float(font.load_char(code).linearHoriAdvance) / _FIXED_POINT / _MEASURED_AT
    return None


def printable(text: str) -> str:
    """`text` on one line, with a box for each character that no font at hand can draw."""
    line = " ".join(text[:_LOOKED_AT].split())
    return "".join(MISSING if _advance(character) is None else character for character in line)


def width(text: str) -> float:
    """How wide `text` is drawn, in units of the type size; kerning is left out."""
    return sum(_advance(character) or 1.0 for character in text)


def shorten(text: str, room: float) -> str:
    """`text`, cut with an ellipsis when it is wider than `room` type sizes."""
    if width(text) <= room:
        return text
    return text[: _fitting(text, room - width(ELLIPSIS))].rstrip() + ELLIPSIS


def wrap(text: str, room: float, lines: int) -> tuple[list[str], int]:
    """`text` in at most `lines` lines of `room` type sizes, and how many characters did not fit.

    Words are kept whole where they fit on a line; scripts without spaces break anywhere.
    """
    wrapped: list[str] = []
    rest = text.strip()
    while rest and len(wrapped) < lines:
        end = _fitting(rest, room)
        if end < len(rest):
            space = rest.rfind(" ", 1, end + 1)
            end = space if space > 0 else end
        wrapped.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return wrapped, len(rest)


def _fitting(text: str, room: float) -> int:
    """How many of the first characters fit; at least one."""
    used = 0.0
    for index, character in enumerate(text):
        used += width(character)
        if used > room:
            return max(index, 1)
    return len(text)
