"""One prediction to look at: image | mask | uncertainty, prompt underneath."""

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

from bundle.results.pictures.encoding import RGB, encode_png
from bundle.results.pictures.lettering import printable, shorten, width, wrap
from bundle.results.pictures.sheet import (
    AMBER,
    DIM,
    FOOT,
    GAP,
    LINE_ROOM,
    MARGIN,
    MOST_BYTES,
    PANELS_TOP,
    WIDTH,
    Section,
    Sheet,
    draw_image,
    draw_labels,
    draw_notes,
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
_NOT_FOUND_LINES = 2
_TITLE_ROOM = 36.0
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
    section = Section(
        title=prediction.case.reference.id,
        title_room=_TITLE_ROOM,
        aside="   |   ".join(facts_of(prediction, report)),
        aside_style={"color": DIM},
        columns=(f"Image   {note}".rstrip(), "Mask", "Uncertainty   normalised predictive entropy"),
        panel=_PANEL,
        sizes=_panel_sizes(views),
        legend=_legend(prediction, report),
        lines=_lines_below(prediction, report),
    )
    sheet = Sheet(round(section.height + FOOT))
    rows = section.draw(sheet)
    colours = {value: prediction.structures.rgb(name) for value, name in prediction.labels.items()}
    for axes, view, size in zip(rows, views, section.sizes, strict=True):
        _draw_row(axes, view, colours, size)
    if not prediction.mask.any():
        outlined(rows[0][1], 0.5, 0.88, "No structure found", fontsize=14, color=AMBER, ha="center")
    _draw_colour_bar(sheet, PANELS_TOP, section.sizes[0][1])
    ramp = [to_rgb(colour) for colour in colormaps[_COLOUR_MAP](np.linspace(0, 1, 24))]
    kept = kept_colours(colours.values(), ramp)
    path.write_bytes(encode_png(sheet.pixels(), kept, MOST_BYTES, PANEL_KEY, section.box(1)))


def _panel_sizes(views: list[View]) -> list[tuple[float, float]]:
    """Width and height of each row's panels in pixels; the rows of a volume share one scale."""
    widest = max(view.size[0] for view in views)
    scales = [_PANEL / (widest if view.letters else view.size[0]) for view in views]
    sizes = [(view.size[0] * scale, view.size[1] * scale) for view, scale in zip(views, scales, strict=True)]
    shrink = min(1.0, _ROWS_HEIGHT / sum(high for _, high in sizes))
    return [(max(wide * shrink, 8.0), max(high * shrink, 8.0)) for wide, high in sizes]


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


def _draw_row(
    panels: Sequence[Axes], view: View, colours: Mapping[int, RGB], size: tuple[float, float]
) -> None:
    image, mask, uncertainty = panels
    for axes in (image, mask):
        draw_image(axes, view)
    uncertainty.imshow(_uncertainty_colours(view), aspect="auto", interpolation="bilinear")
    draw_labels(mask, view, colours, size[1])
    draw_notes(panels, view, size)
    if view.inset:
        left, top, wide, high = view.inset
        frame = Rectangle((left, 1 - top - high), wide, high, transform=mask.transAxes, fill=False)
        stroke = [withStroke(linewidth=3.6, foreground="#000000")]
        frame.set(edgecolor="#ffffff", linewidth=1.4, path_effects=stroke)
        mask.add_patch(frame)


def _uncertainty_colours(view: View) -> NDArray[np.uint8]:
    """(h, w, 3): the colour map, over a faint grey image that fades out where the uncertainty rises."""
    colours = colormaps[_COLOUR_MAP](view.uncertainty)[..., :3]
    if view.image.ndim == 2:
        colours += (_FAINT / 255 * view.image * (1 - view.uncertainty) ** 2)[..., None]
    shown: NDArray[np.uint8] = (np.clip(colours, 0, 1) * 255).astype(np.uint8)
    return shown


def _draw_colour_bar(sheet: Sheet, top: float, high: float) -> None:
    left = WIDTH - MARGIN - _BAR_ROOM + 18.0
    bar = sheet.axes(left, top, 13, high)
    bar.imshow(np.linspace(1, 0, 256)[:, None], cmap=_COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    for value in (0.0, 0.5, 1.0):
        sheet.text(left + 19, top + (1 - value) * (high - 12) + 6, f"{value:g}", fontsize=9, color=DIM)


def _legend(prediction: Prediction, report: Mapping[str, Any]) -> list[tuple[str, str, RGB]]:
    """Name, size and colour of each structure that was found."""
    pixels = math.prod(report["shape"])
    found = {name: entry for name, entry in report["labels"].items() if entry["found"]}
    return [
        (
            name,
            volume_text(entry["volume_ml"])
            if "volume_ml" in entry
            else _area_text(entry["area_px"], pixels, entry.get("count")),
            prediction.structures.rgb(name),
        )
        for name, entry in found.items()
    ]


def volume_text(millilitres: float) -> str:
    """A volume as a reader wants it: '1,557 ml', '12.3 ml', '0.42 ml'."""
    if millilitres < 0.01:
        return "< 0.01 ml"
    decimals = 0 if millilitres >= 100 else 1 if millilitres >= 1 else 2
    return f"{millilitres:,.{decimals}f} ml"


def _area_text(area: int, pixels: int, count: int | None) -> str:
    """Share of the image, and the count where there is one; no longer than fits beside a name."""
    part = 100 * area / pixels
    share = "< 0.1 %" if part < 0.1 else f"{part:.1f} %"
    return f"{share} of the image" if count is None else f"{share}, {count:,} counted"


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
