"""Masks beside the ground truth: image | ground truth | prediction, Dice and prompt underneath, a row a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.results.pictures.encoding import encode_png
from bundle.results.pictures.sheet import (
    AMBER,
    FOOT,
    GAP,
    MARGIN,
    MOST_BYTES,
    WIDTH,
    Section,
    Sheet,
    draw_image,
    draw_labels,
    draw_notes,
    kept_colours,
    prompt_lines,
)
from bundle.results.pictures.views import View, compared_views
from bundle.results.prediction import Prediction

#: PNG text chunk: left, top, right, bottom of the first row's mask in pixels.
COMPARED_KEY = "compared-mask"
_PANEL = (WIDTH - 2 * MARGIN - 2 * GAP) / 3
_HIGHEST = 640.0
_TITLE_ROOM = 50.0


@dataclass(frozen=True)
class ComparedCase:
    """A case with its ground truth.

    Attributes:
        prediction: what was found.
        ground_truth: uint8, of the mask's shape, its values those of the mask.
        dice: of the case, in per cent.
        labels: mask value -> name and Dice in per cent, of the structures that ground truth or mask shows.
    """

    prediction: Prediction
    ground_truth: NDArray[np.uint8]
    dice: float
    labels: Mapping[int, tuple[str, float]]


def write_comparison(cases: Sequence[ComparedCase], path: Path) -> None:
    """Write the comparison, a PNG at most 1500 pixels wide and under 500 KB.

    Of each case that slice or, of H&E, that detail is shown where mask and ground truth differ most; volumes in
    radiological convention at the right aspect in mm.

    Args:
        cases: at least one.
        path: the PNG file.

    Raises:
        ValueError: no case.
        OSError: when the file cannot be written.
    """
    if not cases:
        raise ValueError("there is no case to show")
    compared = [compared_views(case.prediction, case.ground_truth) for case in cases]
    sections = [_section(case, view, note) for case, (view, _, note) in zip(cases, compared, strict=True)]
    sheet = Sheet(round(sum(section.height for section in sections) + FOOT))
    top = 0.0
    for case, section, (reference, found, _) in zip(cases, sections, compared, strict=True):
        colours = {value: case.prediction.structures.rgb(name) for value, (name, _) in case.labels.items()}
        [axes] = section.draw(sheet, top)
        high = section.sizes[0][1]
        for panel, view, drawn in zip(
            axes, (reference, reference, found), ({}, colours, colours), strict=True
        ):
            draw_image(panel, view)
            draw_labels(panel, view, drawn, high)
        draw_notes(axes, reference, section.sizes[0])
        top += section.height
    shown = dict.fromkeys(colour for section in sections for _, _, colour in section.legend)
    box = sections[0].box(2)
    path.write_bytes(encode_png(sheet.pixels(), kept_colours(shown), MOST_BYTES, COMPARED_KEY, box))


def _section(case: ComparedCase, view: View, note: str) -> Section:
    scale = min(_PANEL / view.size[0], _HIGHEST / view.size[1])
    return Section(
        title=case.prediction.case.reference.id,
        title_room=_TITLE_ROOM,
        aside=f"Dice {case.dice:.1f} %",
        aside_style={"fontsize": 15.0, "weight": "bold", "color": AMBER},
        columns=(f"Image   {note}".rstrip(), "Ground truth", "Prediction"),
        panel=_PANEL,
        sizes=[(max(view.size[0] * scale, 8.0), max(view.size[1] * scale, 8.0))],
        legend=[
            (name, f"Dice {dice:.1f} %", case.prediction.structures.rgb(name))
            for name, dice in case.labels.values()
        ],
        lines=prompt_lines(case.prediction.case.reference.prompt),
    )
