"""A picture of one prediction to look at: image | mask | uncertainty, prompt underneath."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from bundle.results.pictures.colours import structure_colour
from bundle.results.pictures.encoding import encode_png
from bundle.results.pictures.lettering import printable, shorten, width, wrap
from bundle.results.pictures.sheet import (
    AMBER,
    DIM,
    FOOT,
    GAP,
    LEGEND_COLUMNS,
    LINE,
    LINE_ROOM,
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
from bundle.results.pictures.views import View, select_views
from bundle.results.prediction import Prediction

PANEL_KEY = "mask-panel"  # PNG text chunk: left, top, right, bottom of the first row's mask in pixels

_BAR_ROOM = 64
_PANEL = (WIDTH - 2 * MARGIN - 2 * GAP - _BAR_ROOM) / 3
_ROWS_HEIGHT = 980.0
_HEAD, _COLUMN_HEAD, _SPACE = 58, 30, 6
_NOT_FOUND_LINES = 2
_MAX_BYTES = 490_000
_TITLE_SIZE, _TITLE_ROOM = 15.0, 36.0
_COLOUR_MAP = "magma"
_FAINT = 0.22  # how bright the image lies under the uncertainty: enough to tell where one looks


def write_preview(prediction: Prediction, report: Mapping[str, Any], path: Path) -> None:
    """Write the preview, a PNG 1500 pixels wide and under 500 KB.

    Volumes are shown in radiological convention at the right aspect in mm; the position of the first mask
    panel is in the PNG's text chunk `PANEL_KEY`.

    Args:
        prediction: what is shown.
        report: its report, for sizes and for what was found.
        path: the PNG file.

    Raises:
        OSError: when the file cannot be written.
    """
    views, note = select_views(prediction)
    sizes = _panel_sizes(views)
    legend, below = _legend(report), _lines_below(prediction, report)
    legend_top = _HEAD + _COLUMN_HEAD + sum(high + GAP for _, high in sizes) + _SPACE
    below_top = legend_top + (LINE * -(-len(legend) // LEGEND_COLUMNS) + _SPACE if legend else 0)
    sheet = Sheet(round(below_top + LINE * len(below) + FOOT))
    _draw_head(sheet, prediction, facts_of(prediction, report), note)
    _draw_rows(sheet, prediction, views, sizes)
    _draw_colour_bar(sheet, _HEAD + _COLUMN_HEAD, sizes[0][1])
    sheet.legend(legend, legend_top + LINE / 2)
    for index, (text, colour) in enumerate(below):
        sheet.text(MARGIN, below_top + LINE * (index + 0.5), text, color=colour)
    left, top, (wide, high) = _panel_left(1, sizes[0][0]), _HEAD + _COLUMN_HEAD, sizes[0]
    panel = (left, top, left + wide, top + high)
    ramp = [to_rgb(colour) for colour in colormaps[_COLOUR_MAP](np.linspace(0, 1, 24))]
    kept = kept_colours(prediction.labels.values(), ramp)
    path.write_bytes(encode_png(sheet.pixels(), kept, _MAX_BYTES, PANEL_KEY, panel))


def _panel_sizes(views: list[View]) -> list[tuple[float, float]]:
    """Width and height of each row's panels in pixels; the rows of a volume share one scale."""
    widest = max(view.size[0] for view in views)
    scales = [_PANEL / (widest if view.letters else view.size[0]) for view in views]
    sizes = [(view.size[0] * scale, view.size[1] * scale) for view, scale in zip(views, scales, strict=True)]
    shrink = min(1.0, _ROWS_HEIGHT / sum(high for _, high in sizes))
    return [(max(wide * shrink, 8.0), max(high * shrink, 8.0)) for wide, high in sizes]


def _panel_left(column: int, wide: float) -> float:
    return MARGIN + column * (_PANEL + GAP) + (_PANEL - wide) / 2


def facts_of(prediction: Prediction, report: Mapping[str, Any]) -> list[str]:
    """What stands in the corner: modality, size, and resolution where it is known; of a slide those of its level 0."""
    case, slide = prediction.case, report.get("slide")
    if slide is not None:
        resolution = " x ".join(dict.fromkeys(f"{edge:.3g}" for edge in slide["mpp"]))
        return [case.modality, f"{slide['width']:,} x {slide['height']:,}", f"{resolution} µm"]
    facts: list[str] = [case.modality, " x ".join(str(edge) for edge in prediction.mask.shape)]
    if case.spacing is not None:
        facts.append(" x ".join(f"{edge:.3g}" for edge in case.spacing) + " mm")
    return facts


def _draw_head(sheet: Sheet, prediction: Prediction, facts: Sequence[str], note: str) -> None:
    case = prediction.case
    sheet.text(
        MARGIN, 32, shorten(printable(case.reference.id), _TITLE_ROOM), fontsize=_TITLE_SIZE, weight="bold"
    )
    sheet.text(WIDTH - MARGIN, 32, "   |   ".join(facts), color=DIM, ha="right")
    titles = ("Image" + (f"   {note}" if note else ""), "Mask", "Uncertainty   normalised predictive entropy")
    for column, title in enumerate(titles):
        sheet.text(_panel_left(column, _PANEL), _HEAD + _COLUMN_HEAD / 2, title, color=DIM)


def _draw_rows(
    sheet: Sheet, prediction: Prediction, views: list[View], sizes: list[tuple[float, float]]
) -> None:
    top = float(_HEAD + _COLUMN_HEAD)
    for index, (view, (wide, high)) in enumerate(zip(views, sizes, strict=True)):
        axes = [sheet.axes(_panel_left(column, wide), top, wide, high) for column in range(3)]
        _draw_row(axes, view, prediction.labels, wide, high)
        if index == 0 and not prediction.mask.any():
            outlined(axes[1], 0.5, 0.88, "No structure found", fontsize=14, color=AMBER, ha="center")
        top += high + GAP


def _draw_row(panels: list[Axes], view: View, labels: Mapping[int, str], wide: float, high: float) -> None:
    image, mask, uncertainty = panels
    for axes in (image, mask):
        draw_image(axes, view)
    uncertainty.imshow(_uncertainty_colours(view), aspect="auto", interpolation="bilinear")
    for value, name in labels.items():
        draw_structure(mask, view.mask == value, structure_colour(name), high)
    outlined(image, 0.02, 8 / high, view.title, fontsize=9, va="bottom")
    for axes in panels:
        draw_letters(axes, view, high)
    if view.letters:
        draw_scale_bar(image, view.size[0], wide, high)
    if view.inset:
        _draw_inset(mask, view.inset)


def _uncertainty_colours(view: View) -> NDArray[np.uint8]:
    """(h, w, 3): the colour map, over a faint grey image that fades out where the uncertainty rises."""
    colours = colormaps[_COLOUR_MAP](view.uncertainty)[..., :3]
    if view.image.ndim == 2:
        colours += (_FAINT / 255 * view.image * (1 - view.uncertainty) ** 2)[..., None]
    shown: NDArray[np.uint8] = (np.clip(colours, 0, 1) * 255).astype(np.uint8)
    return shown


def _draw_inset(axes: Axes, inset: tuple[float, float, float, float]) -> None:
    left, top, wide, high = inset
    frame = Rectangle((left, 1 - top - high), wide, high, transform=axes.transAxes, fill=False)
    frame.set(
        edgecolor="#ffffff", linewidth=1.4, path_effects=[withStroke(linewidth=3.6, foreground="#000000")]
    )
    axes.add_patch(frame)


def _draw_colour_bar(sheet: Sheet, top: float, high: float) -> None:
    left = WIDTH - MARGIN - _BAR_ROOM + 18.0
    bar = sheet.axes(left, top, 13, high)
    bar.imshow(np.linspace(1, 0, 256)[:, None], cmap=_COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    for value in (0.0, 0.5, 1.0):
        sheet.text(left + 19, top + (1 - value) * (high - 12) + 6, f"{value:g}", fontsize=9, color=DIM)


def _legend(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and size of each structure that was found."""
    pixels = math.prod(report["shape"])
    found = []
    for name, entry in report["labels"].items():
        if entry["found"]:
            size = (
                volume_text(entry["volume_ml"])
                if "volume_ml" in entry
                else _area_text(entry["area_px"], pixels)
            )
            found.append((name, size))
    return found


def volume_text(millilitres: float) -> str:
    """A volume as a reader wants it: '1,557 ml', '12.3 ml', '0.42 ml'."""
    if millilitres < 0.01:
        return "< 0.01 ml"
    decimals = 0 if millilitres >= 100 else 1 if millilitres >= 1 else 2
    return f"{millilitres:,.{decimals}f} ml"


def _area_text(area: int, pixels: int) -> str:
    part = 100 * area / pixels
    return "< 0.1 % of the image" if part < 0.1 else f"{part:.1f} % of the image"


def _lines_below(prediction: Prediction, report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands under the legend: what was not found, warnings, the prompt; each line with its colour."""
    lines = _missing_lines(report)
    for warning in report["warnings"][:1]:
        more = len(report["warnings"]) - 1
        suffix = f"  (+{more} more in report.json)" if more else ""
        lines.append((shorten(printable("Warning: " + warning), LINE_ROOM - width(suffix)) + suffix, AMBER))
    return lines + prompt_lines(prediction.case.reference.prompt)


def _missing_lines(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    missing = ", ".join(name for name, entry in report["labels"].items() if not entry["found"])
    if not report["found"]:
        text = f"No structure found: {missing}" if missing else "No structure found"
        return [(shorten(printable(text), LINE_ROOM), AMBER)]
    wrapped, rest = wrap(printable(f"Not found: {missing}"), LINE_ROOM, _NOT_FOUND_LINES)
    if rest:
        wrapped[-1] = shorten(wrapped[-1] + " " * rest, LINE_ROOM)
    return [(line, DIM) for line in wrapped] if missing else []
