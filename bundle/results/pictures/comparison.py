"""A picture of masks beside their truth: image | truth | mask, Dice and prompt underneath, a row a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.results.pictures.colours import structure_colour
from bundle.results.pictures.encoding import encode_png
from bundle.results.pictures.lettering import printable, shorten
from bundle.results.pictures.sheet import (
    AMBER,
    DIM,
    FOOT,
    GAP,
    LEGEND_COLUMNS,
    LINE,
    MARGIN,
    WIDTH,
    Sheet,
    draw_image,
    draw_letters,
    draw_scale_bar,
    draw_structure,
    kept_colours,
    outlined,
    prompt_lines,
)
from bundle.results.pictures.views import View, compared_views
from bundle.results.prediction import Prediction

#: PNG text chunk: left, top, right, bottom of the first row's mask in pixels.
COMPARED_KEY = "compared-mask"
_PANEL = (WIDTH - 2 * MARGIN - 2 * GAP) / 3
_HIGHEST = 640.0
_HEAD, _COLUMN_HEAD, _SPACE, _BETWEEN = 52, 28, 8, 18
_MAX_BYTES = 490_000
_TITLE_SIZE, _TITLE_ROOM = 15.0, 50.0


@dataclass(frozen=True)
class ComparedCase:
    """A case with its truth.

    Attributes:
        prediction: what was found.
        truth: uint8, of the mask's shape, its values those of the mask.
        dice: of the case, in per cent.
        labels: mask value -> name and Dice in per cent, of the structures that truth or mask shows.
    """

    prediction: Prediction
    truth: NDArray[np.uint8]
    dice: float
    labels: Mapping[int, tuple[str, float]]


class _Row:
    """Where the parts of a case lie, in pixels from the top of its row."""

    def __init__(self, case: ComparedCase) -> None:
        self.case = case
        self.truth, self.mask, self.note = compared_views(case.prediction, case.truth)
        scale = min(_PANEL / self.truth.size[0], _HIGHEST / self.truth.size[1])
        self.wide, self.high = (max(side * scale, 8.0) for side in self.truth.size)
        self.legend = [(name, f"Dice {dice:.1f} %") for name, dice in case.labels.values()]
        self.prompt = prompt_lines(case.prediction.case.reference.prompt)
        self.panels_top = _HEAD + _COLUMN_HEAD
        self.legend_top = self.panels_top + self.high + _SPACE
        self.prompt_top = self.legend_top + LINE * -(-len(self.legend) // LEGEND_COLUMNS)
        self.height = self.prompt_top + LINE * len(self.prompt) + _BETWEEN

    def left(self, column: int) -> float:
        return MARGIN + column * (_PANEL + GAP) + (_PANEL - self.wide) / 2


def write_comparison(cases: Sequence[ComparedCase], path: Path) -> None:
    """Write the picture, a PNG at most 1500 pixels wide and under 500 KB.

    Of each case that slice or, of H&E, that detail is shown where mask and truth differ most; volumes in radiological
    convention at the right aspect in mm.

    Args:
        cases: at least one.
        path: the PNG file.

    Raises:
        ValueError: no case.
        OSError: when the file cannot be written.
    """
    if not cases:
        raise ValueError("there is no case to show")
    rows = [_Row(case) for case in cases]
    sheet = Sheet(round(sum(row.height for row in rows) + FOOT))
    top = 0.0
    for row in rows:
        _draw_row(sheet, row, top)
        top += row.height
    first = rows[0]
    left = first.left(2)
    panel = (left, first.panels_top, left + first.wide, first.panels_top + first.high)
    names = dict.fromkeys(name for case in cases for name, _ in case.labels.values())
    path.write_bytes(encode_png(sheet.pixels(), kept_colours(names), _MAX_BYTES, COMPARED_KEY, panel))


def _draw_row(sheet: Sheet, row: _Row, top: float) -> None:
    prediction = row.case.prediction
    title = shorten(printable(prediction.case.reference.id), _TITLE_ROOM)
    sheet.text(MARGIN, top + 32, title, fontsize=_TITLE_SIZE, weight="bold")
    dice = f"Dice {row.case.dice:.1f} %"
    sheet.text(WIDTH - MARGIN, top + 32, dice, fontsize=_TITLE_SIZE, weight="bold", color=AMBER, ha="right")
    panels: list[tuple[str, View, bool]] = [
        ("Image" + (f"   {row.note}" if row.note else ""), row.truth, False),
        ("Truth", row.truth, True),
        ("Prediction", row.mask, True),
    ]
    for column, (name, view, masked) in enumerate(panels):
        sheet.text(row.left(column), top + _HEAD + _COLUMN_HEAD / 2, name, color=DIM)
        axes = sheet.axes(row.left(column), top + row.panels_top, row.wide, row.high)
        draw_image(axes, view)
        draw_letters(axes, view, row.high)
        if masked:
            for value, (label, _) in row.case.labels.items():
                draw_structure(axes, view.mask == value, structure_colour(label), row.high)
            continue
        outlined(axes, 0.02, 8 / row.high, view.title, fontsize=9, va="bottom")
        if view.letters:
            draw_scale_bar(axes, view.size[0], row.wide, row.high)
    sheet.legend(row.legend, top + row.legend_top + LINE / 2)
    for index, (text, colour) in enumerate(row.prompt):
        sheet.text(MARGIN, top + row.prompt_top + LINE * (index + 0.5), text, color=colour)
