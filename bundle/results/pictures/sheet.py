"""The dark sheet that previews and comparisons are drawn on: its measures, its text, and masks over images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from bundle.results.pictures.encoding import RGB
from bundle.results.pictures.lettering import ELLIPSIS, MISSING, families, printable, shorten, width, wrap
from bundle.results.pictures.views import View

#: Pixels.
WIDTH, MARGIN, GAP, LINE, FOOT, PANELS_TOP = 1500, 30, 14, 25, 40, 88
MOST_BYTES = 490_000
BACKGROUND, TEXT, DIM, AMBER = "#15181c", "#e9edf1", "#97a1ab", "#ffc663"
_DPI = 100
_TEXT_SIZE, _TITLE_SIZE = 10.5, 15.0  # points
_HINTING = 0.95  # drawn at a small size, letters are up to a twentieth wider than they were designed
#: Rooms are widths in units of the type size.
LINE_ROOM = _HINTING * (WIDTH - 2 * MARGIN) / (_TEXT_SIZE * _DPI / 72)
_CUT_ROOM = 13.0  # for the note on how much of a prompt was cut
_LEGEND_COLUMNS = 4
_LEGEND_ROOM = LINE_ROOM / _LEGEND_COLUMNS - 2.5
_PROMPT_LINES = 4
_SPACE = 6
_NOTICE = "Research use only. Not for diagnosis."
_OPACITY, _THIN_OPACITY = 0.33, 0.2
_KEPT_STRUCTURES = 12


class Sheet:
    """A figure `WIDTH` pixels wide, addressed in pixels from the top left."""

    def __init__(self, height: float) -> None:
        self.height = height
        self._figure = Figure(figsize=(WIDTH / _DPI, height / _DPI), dpi=_DPI, facecolor=BACKGROUND)
        self._canvas = FigureCanvasAgg(self._figure)

    def axes(self, left: float, top: float, wide: float, high: float) -> Axes:
        axes = self._figure.add_axes(
            (left / WIDTH, 1 - (top + high) / self.height, wide / WIDTH, high / self.height)
        )
        axes.set_axis_off()
        return axes

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        """One line; `top` is its middle. Dollar signs are text, never formulae."""
        merged = {"color": TEXT, "fontsize": _TEXT_SIZE, "va": "center", "family": list(families()), **style}
        self._figure.text(left / WIDTH, 1 - top / self.height, text, parse_math=False, **merged)

    def swatch(self, left: float, top: float, colour: RGB) -> None:
        side = 13.0
        self._figure.add_artist(
            Rectangle(
                (left / WIDTH, 1 - (top + side / 2) / self.height),
                side / WIDTH,
                side / self.height,
                facecolor=colour,
                transform=self._figure.transFigure,
            )
        )

    def pixels(self) -> NDArray[np.uint8]:
        """(height, WIDTH, 3), with what it is not for in its foot."""
        self.text(WIDTH - MARGIN, self.height - 20, _NOTICE, color=DIM, ha="right", fontsize=9)
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3]


@dataclass(frozen=True)
class Section:
    """A case on a sheet: a head, rows of three panels, a legend, lines of text.

    Attributes:
        title, title_room: of the case, and its widest.
        aside, aside_style: what stands in the right corner.
        columns: titles of the panels.
        panel: width of a column in pixels.
        sizes: width and height of each row's panels in pixels.
        legend: of structures, name, what is said of it, and its colour.
        lines: text and colour.
    """

    title: str
    title_room: float
    aside: str
    aside_style: Mapping[str, Any]
    columns: Sequence[str]
    panel: float
    sizes: Sequence[tuple[float, float]]
    legend: Sequence[tuple[str, str, RGB]]
    lines: Sequence[tuple[str, str]]

    @property
    def _legend_top(self) -> float:
        return PANELS_TOP + sum(high + GAP for _, high in self.sizes) + _SPACE

    @property
    def _lines_top(self) -> float:
        rows = -(-len(self.legend) // _LEGEND_COLUMNS)
        return self._legend_top + (LINE * rows + _SPACE if rows else 0)

    @property
    def height(self) -> float:
        return self._lines_top + LINE * len(self.lines)

    def box(self, column: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of a panel of the first row, in pixels of the section."""
        wide, high = self.sizes[0]
        left = self._left(column, wide)
        return left, PANELS_TOP, left + wide, PANELS_TOP + high

    def _left(self, column: int, wide: float) -> float:
        return MARGIN + column * (self.panel + GAP) + (self.panel - wide) / 2

    def draw(self, sheet: Sheet, top: float = 0.0) -> list[list[Axes]]:
        """Draw everything but what the panels show; their axes row by row."""
        title = shorten(printable(self.title), self.title_room)
        sheet.text(MARGIN, top + 32, title, fontsize=_TITLE_SIZE, weight="bold")
        sheet.text(WIDTH - MARGIN, top + 32, self.aside, ha="right", **self.aside_style)
        for column, name in enumerate(self.columns):
            left = self._left(column, self.sizes[0][0] if len(self.sizes) == 1 else self.panel)
            sheet.text(left, top + PANELS_TOP - 15, name, color=DIM)
        for index, (name, said, swatch) in enumerate(self.legend):
            left = MARGIN + (index % _LEGEND_COLUMNS) * (WIDTH - 2 * MARGIN) / _LEGEND_COLUMNS
            middle = top + self._legend_top + LINE * (index // _LEGEND_COLUMNS + 0.5)
            sheet.swatch(left, middle, swatch)
            shown = shorten(printable(name), _LEGEND_ROOM - width(said))
            sheet.text(left + 22, middle, f"{shown}   {said}")
        for index, (text, colour) in enumerate(self.lines):
            sheet.text(MARGIN, top + self._lines_top + LINE * (index + 0.5), text, color=colour)
        rows, row_top = [], top + PANELS_TOP
        for wide, high in self.sizes:
            rows.append([sheet.axes(self._left(column, wide), row_top, wide, high) for column in range(3)])
            row_top += high + GAP
        return rows


def draw_image(axes: Axes, view: View) -> None:
    """The image alone, as large as the axes."""
    axes.imshow(view.image, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="bilinear")


def draw_labels(axes: Axes, view: View, colours: Mapping[int, RGB], high: float) -> None:
    """The area and outline of each structure over an image; nothing where it is empty.

    Args:
        colours: mask value -> colour.
        high: of the axes in pixels.
    """
    small = len(view.mask) > 1.5 * high  # many source pixels a screen pixel: thick lines would hide them
    opacity, line = (_THIN_OPACITY, 0.7) if small else (_OPACITY, 1.3)
    down, across = (np.arange(-1, edge + 1) for edge in view.mask.shape)
    for value, colour in colours.items():
        inside = view.mask == value
        if inside.any():
            # A frame of background closes the contours of what touches the edge.
            padded = np.pad(inside.astype(np.float32), 1)
            axes.contourf(across, down, padded, levels=[0.5, 1.5], colors=[colour], alpha=opacity)
            axes.contour(across, down, padded, levels=[0.5], colors=[colour], linewidths=line)
            axes.set_xlim(-0.5, inside.shape[1] - 0.5)
            axes.set_ylim(inside.shape[0] - 0.5, -0.5)


def outlined(axes: Axes, across: float, up: float, text: str, **style: Any) -> None:
    """Text on an image, readable on black and on white; the position is in fractions of the panel."""
    merged = {"color": TEXT, "path_effects": [withStroke(linewidth=2.5, foreground="#000000")], **style}
    axes.text(across, up, text, transform=axes.transAxes, family=list(families()), parse_math=False, **merged)


def draw_notes(panels: Sequence[Axes], view: View, size: tuple[float, float]) -> None:
    """What a view is on the first panel; where right, left, front, back, head and foot are on all of a volume.

    Args:
        size: width and height of the panels in pixels.
    """
    wide, high = size
    outlined(panels[0], 0.02, 8 / high, view.title, fontsize=9, va="bottom")
    if view.letters is None:
        return
    places = ((0.025, 0.5), (0.975, 0.5), (0.5, 1 - 13 / high), (0.5, 13 / high))
    for axes in panels if high >= 60 else ():
        for (across, up), letter in zip(places, view.letters, strict=True):
            outlined(axes, across, up, letter, fontsize=10, weight="bold", ha="center", va="center")
    _draw_scale_bar(panels[0], view.size[0], wide, high)


def _draw_scale_bar(axes: Axes, width_mm: float, wide: float, high: float) -> None:
    """A bar of a round length, at most a quarter of the panel.

    Args:
        width_mm: of the panel.
        wide, high: of it in pixels.
    """
    length = next((step for step in (100, 50, 20, 10, 5, 2, 1) if step <= width_mm / 4), None)
    if length is None:
        return
    right, up = 1 - 14 / wide, 12 / high
    axes.plot(
        [right - length / width_mm, right], [up, up], transform=axes.transAxes, color=TEXT, linewidth=2.2,
        path_effects=[withStroke(linewidth=4, foreground="#000000")],
    )  # fmt: skip
    outlined(axes, right, 18 / high, f"{length} mm", fontsize=8, ha="right", va="bottom")


def prompt_lines(prompt: str) -> list[tuple[str, str]]:
    """A prompt as lines with their colours; of a long one, how much is left out."""
    prompt = " ".join(prompt.split())
    if not prompt:
        return [("No prompt.", DIM)]
    title = "Prompt: "
    wrapped, _ = wrap(printable(title + prompt), LINE_ROOM, _PROMPT_LINES)
    left_out = len(title) + len(prompt) - len(" ".join(wrapped))
    if left_out > 0:
        last, cut = wrap(wrapped[-1], LINE_ROOM - _CUT_ROOM, 1)
        wrapped[-1] = f"{last[0]}{ELLIPSIS} (+{left_out + cut:,} characters)"
    lines = [(line, TEXT) for line in wrapped]
    if MISSING in "".join(wrapped) and MISSING not in prompt:
        lines.append(
            (f"{MISSING} no font for this character here; the model was given the prompt as it is", DIM)
        )
    return lines


def kept_colours(structures: Iterable[RGB], further: Iterable[RGB] = ()) -> list[RGB]:
    """The page's own colours, `further` ones and the structures', plain and over greys, for a palette."""
    page = [to_rgb(colour) for colour in (BACKGROUND, TEXT, DIM, AMBER)]
    greys = [(grey, grey, grey) for grey in np.linspace(0.1, 0.9, 8).tolist()]
    plain = list(structures)[:_KEPT_STRUCTURES]
    tints = [
        (_OPACITY * red + grey, _OPACITY * green + grey, _OPACITY * blue + grey)
        for red, green, blue in plain
        for grey in ((1 - _OPACITY) * np.linspace(0, 1, 6)).tolist()
    ]
    return [*page, *further, *greys, *plain, *tints]
