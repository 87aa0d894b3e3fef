"""A picture of one prediction to look at: image | mask | uncertainty, prompt underneath."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from bundle.results.colours import RGB, structure_colour
from bundle.results.encoding import encode_png
from bundle.results.lettering import ELLIPSIS, MISSING, families, printable, shorten, width, wrap
from bundle.results.prediction import Prediction
from bundle.results.views import View, select_views

PANEL_KEY = "mask-panel"  # PNG text chunk: left, top, right, bottom of the first row's mask in pixels

_WIDTH, _MARGIN, _GAP, _BAR_ROOM = 1500, 30, 14, 64
_PANEL = (_WIDTH - 2 * _MARGIN - 2 * _GAP - _BAR_ROOM) / 3
_ROWS_HEIGHT = 980.0
_HEAD, _COLUMN_HEAD, _LINE, _SPACE, _FOOT = 58, 30, 25, 6, 40
_LEGEND_COLUMNS, _PROMPT_LINES, _NOT_FOUND_LINES = 4, 4, 2
_MAX_BYTES = 490_000
_DPI = 100
_TEXT_SIZE, _TITLE_SIZE = 10.5, 15.0  # points
_HINTING = 0.95  # drawn at a small size, letters are up to a twentieth wider than they were designed
# Rooms are widths in units of the type size.
_LINE_ROOM = _HINTING * (_WIDTH - 2 * _MARGIN) / (_TEXT_SIZE * _DPI / 72)
_TITLE_ROOM = 36.0
_CUT_ROOM = 13.0  # for the note on how much of a prompt was cut
_LEGEND_ROOM = _LINE_ROOM / _LEGEND_COLUMNS - 2.5
_BACKGROUND, _TEXT, _DIM, _AMBER = "#15181c", "#e9edf1", "#97a1ab", "#ffc663"
_NOTICE = "Research use only. Not for diagnosis."
_COLOUR_MAP = "magma"
_OPACITY, _THIN_OPACITY = 0.33, 0.2
_KEPT_STRUCTURES = 12
_FAINT = 0.22  # how bright the image lies under the uncertainty: enough to tell where one looks


class _Sheet:
    """A figure addressed in pixels from the top left."""

    def __init__(self, height: float) -> None:
        self.height = height
        self.figure = Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI, facecolor=_BACKGROUND)
        self.canvas = FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, wide: float, high: float) -> Axes:
        axes = self.figure.add_axes(
            (left / _WIDTH, 1 - (top + high) / self.height, wide / _WIDTH, high / self.height)
        )
        axes.set_axis_off()
        return axes

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        """One line; `top` is its middle. Dollar signs are text, never formulae."""
        merged = {"color": _TEXT, "fontsize": _TEXT_SIZE, "va": "center", "family": list(families()), **style}
        self.figure.text(left / _WIDTH, 1 - top / self.height, text, parse_math=False, **merged)

    def swatch(self, left: float, top: float, colour: Any) -> None:
        side = 13.0
        self.figure.add_artist(
            Rectangle(
                (left / _WIDTH, 1 - (top + side / 2) / self.height),
                side / _WIDTH,
                side / self.height,
                facecolor=colour,
                transform=self.figure.transFigure,
            )
        )


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
    legend_top = _HEAD + _COLUMN_HEAD + sum(high + _GAP for _, high in sizes) + _SPACE
    below_top = legend_top + (_LINE * -(-len(legend) // _LEGEND_COLUMNS) + _SPACE if legend else 0)
    sheet = _Sheet(round(below_top + _LINE * len(below) + _FOOT))
    _draw_head(sheet, prediction, facts_of(prediction, report), note)
    _draw_rows(sheet, prediction, views, sizes)
    _draw_colour_bar(sheet, _HEAD + _COLUMN_HEAD, sizes[0][1])
    _draw_legend(sheet, legend, legend_top + _LINE / 2)
    for index, (text, colour) in enumerate(below):
        sheet.text(_MARGIN, below_top + _LINE * (index + 0.5), text, color=colour)
    sheet.text(_WIDTH - _MARGIN, sheet.height - 20, _NOTICE, color=_DIM, ha="right", fontsize=9)
    left, top, (wide, high) = _panel_left(1, sizes[0][0]), _HEAD + _COLUMN_HEAD, sizes[0]
    sheet.canvas.draw()
    pixels = np.asarray(sheet.canvas.buffer_rgba())[..., :3]
    panel = (left, top, left + wide, top + high)
    path.write_bytes(encode_png(pixels, _kept_colours(prediction), _MAX_BYTES, PANEL_KEY, panel))


def _panel_sizes(views: list[View]) -> list[tuple[float, float]]:
    """Width and height of each row's panels in pixels; the rows of a volume share one scale."""
    widest = max(view.size[0] for view in views)
    scales = [_PANEL / (widest if view.letters else view.size[0]) for view in views]
    sizes = [(view.size[0] * scale, view.size[1] * scale) for view, scale in zip(views, scales, strict=True)]
    shrink = min(1.0, _ROWS_HEIGHT / sum(high for _, high in sizes))
    return [(max(wide * shrink, 8.0), max(high * shrink, 8.0)) for wide, high in sizes]


def _panel_left(column: int, wide: float) -> float:
    return _MARGIN + column * (_PANEL + _GAP) + (_PANEL - wide) / 2


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


def _draw_head(sheet: _Sheet, prediction: Prediction, facts: Sequence[str], note: str) -> None:
    case = prediction.case
    sheet.text(
        _MARGIN, 32, shorten(printable(case.reference.id), _TITLE_ROOM), fontsize=_TITLE_SIZE, weight="bold"
    )
    sheet.text(_WIDTH - _MARGIN, 32, "   |   ".join(facts), color=_DIM, ha="right")
    titles = ("Image" + (f"   {note}" if note else ""), "Mask", "Uncertainty   normalised predictive entropy")
    for column, title in enumerate(titles):
        sheet.text(_panel_left(column, _PANEL), _HEAD + _COLUMN_HEAD / 2, title, color=_DIM)


def _draw_rows(
    sheet: _Sheet, prediction: Prediction, views: list[View], sizes: list[tuple[float, float]]
) -> None:
    top = float(_HEAD + _COLUMN_HEAD)
    for index, (view, (wide, high)) in enumerate(zip(views, sizes, strict=True)):
        axes = [sheet.axes(_panel_left(column, wide), top, wide, high) for column in range(3)]
        _draw_row(axes, view, prediction.labels, wide, high)
        if index == 0 and not prediction.mask.any():
            _outlined(axes[1], 0.5, 0.88, "No structure found", fontsize=14, color=_AMBER, ha="center")
        top += high + _GAP


def _draw_row(panels: list[Axes], view: View, labels: Mapping[int, str], wide: float, high: float) -> None:
    image, mask, uncertainty = panels
    for axes in (image, mask):
        axes.imshow(view.image, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="bilinear")
    uncertainty.imshow(_uncertainty_colours(view), aspect="auto", interpolation="bilinear")
    small = len(view.mask) > 1.5 * high  # many source pixels a screen pixel: thick lines would hide them
    for value, name in labels.items():
        _draw_structure(mask, view.mask == value, structure_colour(name), small)
    _outlined(image, 0.02, 8 / high, view.title, fontsize=9, va="bottom")
    for axes in panels:
        _draw_letters(axes, view, high)
    if view.letters:
        _draw_scale_bar(image, view.size[0], wide, high)
    if view.inset:
        _draw_inset(mask, view.inset)


def _uncertainty_colours(view: View) -> NDArray[np.uint8]:
    """(h, w, 3): the colour map, over a faint grey image that fades out where the uncertainty rises."""
    colours = colormaps[_COLOUR_MAP](view.uncertainty)[..., :3]
    if view.image.ndim == 2:
        colours += (_FAINT / 255 * view.image * (1 - view.uncertainty) ** 2)[..., None]
    shown: NDArray[np.uint8] = (np.clip(colours, 0, 1) * 255).astype(np.uint8)
    return shown


def _draw_structure(axes: Axes, inside: NDArray[np.bool_], colour: RGB, small: bool) -> None:
    if not inside.any():
        return
    # A frame of background closes the contours of what touches the edge.
    padded = np.pad(inside.astype(np.float32), 1)
    down, across = (np.arange(-1, edge + 1) for edge in inside.shape)
    axes.contourf(
        across, down, padded, levels=[0.5, 1.5], colors=[colour], alpha=_THIN_OPACITY if small else _OPACITY
    )
    axes.contour(across, down, padded, levels=[0.5], colors=[colour], linewidths=0.7 if small else 1.3)
    axes.set_xlim(-0.5, inside.shape[1] - 0.5)
    axes.set_ylim(inside.shape[0] - 0.5, -0.5)


def _outlined(axes: Axes, across: float, up: float, text: str, **style: Any) -> None:
    """Text on a picture, readable on black and on white; the position is in fractions of the panel."""
    merged = {"color": _TEXT, "path_effects": [withStroke(linewidth=2.5, foreground="#000000")], **style}
    axes.text(across, up, text, transform=axes.transAxes, family=list(families()), parse_math=False, **merged)


def _draw_letters(axes: Axes, view: View, high: float) -> None:
    if view.letters is None or high < 60:
        return
    left, right, top, bottom = view.letters
    style = {"fontsize": 10, "weight": "bold", "ha": "center", "va": "center"}
    _outlined(axes, 0.025, 0.5, left, **style)
    _outlined(axes, 0.975, 0.5, right, **style)
    _outlined(axes, 0.5, 1 - 13 / high, top, **style)
    _outlined(axes, 0.5, 13 / high, bottom, **style)


def _draw_scale_bar(axes: Axes, width_mm: float, wide: float, high: float) -> None:
    length = next((step for step in (100, 50, 20, 10, 5, 2, 1) if step <= width_mm / 4), None)
    if length is None:
        return
    right, up = 1 - 14 / wide, 12 / high
    axes.plot(
        [right - length / width_mm, right], [up, up], transform=axes.transAxes, color=_TEXT, linewidth=2.2,
        path_effects=[withStroke(linewidth=4, foreground="#000000")],
    )  # fmt: skip
    _outlined(axes, right, 18 / high, f"{length} mm", fontsize=8, ha="right", va="bottom")


def _draw_inset(axes: Axes, inset: tuple[float, float, float, float]) -> None:
    left, top, wide, high = inset
    frame = Rectangle((left, 1 - top - high), wide, high, transform=axes.transAxes, fill=False)
    frame.set(
        edgecolor="#ffffff", linewidth=1.4, path_effects=[withStroke(linewidth=3.6, foreground="#000000")]
    )
    axes.add_patch(frame)


def _draw_colour_bar(sheet: _Sheet, top: float, high: float) -> None:
    left = _WIDTH - _MARGIN - _BAR_ROOM + 18.0
    bar = sheet.axes(left, top, 13, high)
    bar.imshow(np.linspace(1, 0, 256)[:, None], cmap=_COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    for value in (0.0, 0.5, 1.0):
        sheet.text(left + 19, top + (1 - value) * (high - 12) + 6, f"{value:g}", fontsize=9, color=_DIM)


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


def _draw_legend(sheet: _Sheet, legend: list[tuple[str, str]], top: float) -> None:
    step = (_WIDTH - 2 * _MARGIN) / _LEGEND_COLUMNS
    for index, (name, size) in enumerate(legend):
        left = _MARGIN + (index % _LEGEND_COLUMNS) * step
        middle = top + (index // _LEGEND_COLUMNS) * _LINE
        shown = shorten(printable(name), _LEGEND_ROOM - width(size))
        sheet.swatch(left, middle, structure_colour(name))
        sheet.text(left + 22, middle, f"{shown}   {size}")


def _lines_below(prediction: Prediction, report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands under the legend: what was not found, warnings, the prompt; each line with its colour."""
    lines = _missing_lines(report)
    for warning in report["warnings"][:1]:
        more = len(report["warnings"]) - 1
        suffix = f"  (+{more} more in report.json)" if more else ""
        lines.append((shorten(printable("Warning: " + warning), _LINE_ROOM - width(suffix)) + suffix, _AMBER))
    return lines + _prompt_lines(prediction.case.reference.prompt)


def _missing_lines(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    missing = ", ".join(name for name, entry in report["labels"].items() if not entry["found"])
    if not report["found"]:
        text = f"No structure found: {missing}" if missing else "No structure found"
        return [(shorten(printable(text), _LINE_ROOM), _AMBER)]
    wrapped, rest = wrap(printable(f"Not found: {missing}"), _LINE_ROOM, _NOT_FOUND_LINES)
    if rest:
        wrapped[-1] = shorten(wrapped[-1] + " " * rest, _LINE_ROOM)
    return [(line, _DIM) for line in wrapped] if missing else []


def _prompt_lines(prompt: str) -> list[tuple[str, str]]:
    prompt = " ".join(prompt.split())
    if not prompt:
        return [("No prompt.", _DIM)]
    title = "Prompt: "
    wrapped, _ = wrap(printable(title + prompt), _LINE_ROOM, _PROMPT_LINES)
    left_out = len(title) + len(prompt) - len(" ".join(wrapped))
    if left_out > 0:
        last, cut = wrap(wrapped[-1], _LINE_ROOM - _CUT_ROOM, 1)
        wrapped[-1] = f"{last[0]}{ELLIPSIS} (+{left_out + cut:,} characters)"
    lines = [(line, _TEXT) for line in wrapped]
    if MISSING in "".join(wrapped) and MISSING not in prompt:
        lines.append(
            (f"{MISSING} no font for this character here; the model was given the prompt as it is", _DIM)
        )
    return lines


def _kept_colours(prediction: Prediction) -> list[RGB]:
    """The page's own colours, the colour map's and the structures', plain and over greys, for a palette."""
    page = [to_rgb(colour) for colour in (_BACKGROUND, _TEXT, _DIM, _AMBER)]
    ramp = [to_rgb(colour) for colour in colormaps[_COLOUR_MAP](np.linspace(0, 1, 24))]
    greys = [(grey, grey, grey) for grey in np.linspace(0.1, 0.9, 8).tolist()]
    plain = [structure_colour(name) for name in list(prediction.labels.values())[:_KEPT_STRUCTURES]]
    tints = [
        (_OPACITY * red + grey, _OPACITY * green + grey, _OPACITY * blue + grey)
        for red, green, blue in plain
        for grey in ((1 - _OPACITY) * np.linspace(0, 1, 6)).tolist()
    ]
    return [*page, *ramp, *greys, *plain, *tints]
