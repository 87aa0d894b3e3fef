"""The dark page that pictures for people are drawn on: its measures, its text, and masks over images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from bundle.results.pictures.colours import RGB, structure_colour
from bundle.results.pictures.lettering import ELLIPSIS, MISSING, families, printable, shorten, width, wrap
from bundle.results.pictures.views import View

#: Pixels.
WIDTH, MARGIN, GAP, LINE, FOOT = 1500, 30, 14, 25, 40
BACKGROUND, TEXT, DIM, AMBER = "#15181c", "#e9edf1", "#97a1ab", "#ffc663"
_DPI = 100
_TEXT_SIZE = 10.5  # points
_HINTING = 0.95  # drawn at a small size, letters are up to a twentieth wider than they were designed
#: Rooms are widths in units of the type size.
LINE_ROOM = _HINTING * (WIDTH - 2 * MARGIN) / (_TEXT_SIZE * _DPI / 72)
_CUT_ROOM = 13.0  # for the note on how much of a prompt was cut
LEGEND_COLUMNS = 4
_LEGEND_ROOM = LINE_ROOM / LEGEND_COLUMNS - 2.5
_PROMPT_LINES = 4
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

    def legend(self, entries: Sequence[tuple[str, str]], top: float) -> None:
        """Structures with their colours, `LEGEND_COLUMNS` a line.

        Args:
            entries: name, and what is said of it.
            top: middle of the first line.
        """
        step = (WIDTH - 2 * MARGIN) / LEGEND_COLUMNS
        for index, (name, said) in enumerate(entries):
            left = MARGIN + (index % LEGEND_COLUMNS) * step
            middle = top + (index // LEGEND_COLUMNS) * LINE
            shown = shorten(printable(name), _LEGEND_ROOM - width(said))
            self._swatch(left, middle, structure_colour(name))
            self.text(left + 22, middle, f"{shown}   {said}")

    def _swatch(self, left: float, top: float, colour: RGB) -> None:
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
        """(height, WIDTH, 3), with what the picture is not for in its foot."""
        self.text(WIDTH - MARGIN, self.height - 20, _NOTICE, color=DIM, ha="right", fontsize=9)
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3]


def draw_image(axes: Axes, view: View) -> None:
    """The image alone, as large as the axes."""
    axes.imshow(view.image, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="bilinear")


def draw_structure(axes: Axes, inside: NDArray[np.bool_], colour: RGB, high: float) -> None:
    """A structure's area and outline over an image; nothing where it is empty.

    Args:
        inside: (h, w), as the image.
        high: of the axes in pixels.
    """
    if not inside.any():
        return
    small = len(inside) > 1.5 * high  # many source pixels a screen pixel: thick lines would hide them
    # A frame of background closes the contours of what touches the edge.
    padded = np.pad(inside.astype(np.float32), 1)
    down, across = (np.arange(-1, edge + 1) for edge in inside.shape)
    axes.contourf(
        across, down, padded, levels=[0.5, 1.5], colors=[colour], alpha=_THIN_OPACITY if small else _OPACITY
    )
    axes.contour(across, down, padded, levels=[0.5], colors=[colour], linewidths=0.7 if small else 1.3)
    axes.set_xlim(-0.5, inside.shape[1] - 0.5)
    axes.set_ylim(inside.shape[0] - 0.5, -0.5)


def outlined(axes: Axes, across: float, up: float, text: str, **style: Any) -> None:
    """Text on a picture, readable on black and on white; the position is in fractions of the panel."""
    merged = {"color": TEXT, "path_effects": [withStroke(linewidth=2.5, foreground="#000000")], **style}
    axes.text(across, up, text, transform=axes.transAxes, family=list(families()), parse_math=False, **merged)


def draw_letters(axes: Axes, view: View, high: float) -> None:
    """Where right, left, front, back, head and foot are, on a plane of a volume."""
    if view.letters is None or high < 60:
        return
    left, right, top, bottom = view.letters
    style = {"fontsize": 10, "weight": "bold", "ha": "center", "va": "center"}
    outlined(axes, 0.025, 0.5, left, **style)
    outlined(axes, 0.975, 0.5, right, **style)
    outlined(axes, 0.5, 1 - 13 / high, top, **style)
    outlined(axes, 0.5, 13 / high, bottom, **style)


def draw_scale_bar(axes: Axes, width_mm: float, wide: float, high: float) -> None:
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


def kept_colours(structures: Iterable[str], further: Iterable[RGB] = ()) -> list[RGB]:
    """The page's own colours, `further` ones and the structures', plain and over greys, for a palette."""
    page = [to_rgb(colour) for colour in (BACKGROUND, TEXT, DIM, AMBER)]
    greys = [(grey, grey, grey) for grey in np.linspace(0.1, 0.9, 8).tolist()]
    plain = [structure_colour(name) for name in list(structures)[:_KEPT_STRUCTURES]]
    tints = [
        (_OPACITY * red + grey, _OPACITY * green + grey, _OPACITY * blue + grey)
        for red, green, blue in plain
        for grey in ((1 - _OPACITY) * np.linspace(0, 1, 6)).tolist()
    ]
    return [*page, *further, *greys, *plain, *tints]
