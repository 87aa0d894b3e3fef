"""Text for a picture: only what the fonts at hand can draw, wrapped, and cut where there is no room."""

from __future__ import annotations

import unicodedata
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
_LOOKED_AT = 4000  # characters: no preview shows more, however long the prompt


@cache
def families() -> tuple[str, ...]:
    """The fonts to draw with: matplotlib's own and, for other scripts, those that this machine has."""
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return (_MAIN, *(name for name in _FALLBACKS if name in installed))


@cache
def _drawable() -> frozenset[int]:
    paths = [font_manager.findfont(family) for family in families()]
    return frozenset(code for path in paths for code in FT2Font(path).get_charmap())


def printable(text: str) -> str:
    """`text` on one line, with a box for each character that no font at hand can draw."""
    line = " ".join(text[:_LOOKED_AT].split())
    return "".join(character if ord(character) in _drawable() else MISSING for character in line)


def width(text: str) -> float:
    """About how many average Latin letters wide `text` is drawn."""
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.8
    if character in "MWmw@%" or character == MISSING:
        return 1.5
    return (
        1.15
        if character.isupper() or character.isdigit()
        else 0.55
        if character in " iljtf.,:;'|!()"
        else 1.0
    )


def shorten(text: str, room: float) -> str:
    """`text`, cut with an ellipsis when it is wider than `room` average letters."""
    if width(text) <= room:
        return text
    kept = ""
    for character in text:
        if width(kept) + _character_width(character) > room - 1:
            break
        kept += character
    return kept.rstrip() + ELLIPSIS


def wrap(text: str, room: float, lines: int) -> tuple[list[str], int]:
    """`text` in at most `lines` lines of `room` average letters, and how many characters did not fit.

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
        used += _character_width(character)
        if used > room:
            return max(index, 1)
    return len(text)
