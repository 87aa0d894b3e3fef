"""The film of a chest radiograph: drawing on it and exposing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.interpolate import CubicSpline

from bundle.phantoms.noise import SmoothField
from bundle.phantoms.shapes import Array, plane_curve

# A polyline of corner points (n, 2), its width as a fraction of the image, its grey value 0-1.
Stroke: TypeAlias = tuple[Array, float, float]

_OVERSAMPLING = 3


class Film:
    """Antialiased drawing of shapes given in fractions of the image.

    Args:
        rng: decides everything that varies on this film.
        size: height and width in pixels.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.size = size
        axis = (np.arange(size) + 0.5) / size
        self.v, self.u = axis[:, None], axis[None, :]
        self.field = SmoothField(rng, (axis, axis), 1.0)

    def draw(self, pen: Callable[[ImageDraw.ImageDraw, int], None]) -> NDArray[np.float32]:
        side = self.size * _OVERSAMPLING
        sheet = Image.new("L", (side, side))
        pen(ImageDraw.Draw(sheet), side)
        return np.asarray(sheet.reduce(_OVERSAMPLING), np.float32) / np.float32(255)

    def area(self, outline: Array) -> NDArray[np.float32]:
        """A filled closed curve through the corner points (n, 2)."""
        closed = np.vstack([outline, outline[:1]])
        steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
        curve = CubicSpline(steps, closed, bc_type="periodic")(np.linspace(0, steps[-1], 160))
        return self.draw(lambda pen, side: pen.polygon([(u * side, v * side) for u, v in curve], fill=255))

    def strokes(self, lines: Iterable[Stroke]) -> NDArray[np.float32]:
        items = list(lines)

        def pen(sheet: ImageDraw.ImageDraw, side: int) -> None:
            for line, width, grey in items:
                corners = [(float(u) * side, float(v) * side) for u, v in line]
                sheet.line(corners, fill=round(255 * grey), width=max(1, round(width * side)), joint="curve")

        return self.draw(pen)

    def blur(self, image: Array, sigma: float) -> Array:
        return np.asarray(ndimage.gaussian_filter(image, sigma * self.size, mode="nearest"))


def expose(film: Film, dense: Array) -> NDArray[np.uint8]:
    """Scatter, quantum noise, the detector's curve, and what else lies on a film."""
    rng, size = film.rng, film.size
    scatter = rng.uniform(0.1, 0.3)
    dense = (1 - scatter) * dense + scatter * film.blur(dense, 0.09)
    if rng.random() < 0.15:
        leads = []
        for _ in range(int(rng.integers(1, 3))):
            corners = [(rng.uniform(0, 1), rng.uniform(0.1, 1)) for _ in range(4)]
            leads.append((plane_curve(corners), 0.006, 1.0))
        dense = dense + 0.16 * film.blur(film.strokes(leads), 0.002)
    noise = ndimage.gaussian_filter(rng.standard_normal(dense.shape, dtype=np.float32), rng.uniform(0.4, 0.9))
    dense = dense + rng.uniform(0.006, 0.016) * noise / noise.std() + 0.012 * film.field(0.3)
    dense = film.blur(dense, rng.uniform(0.0008, 0.0022))
    centre, slope = rng.uniform(0.42, 0.56), rng.uniform(4.2, 6.8)
    grey = 1 / (1 + np.exp(-slope * (dense - centre)))
    floor = 1 / (1 + np.exp(slope * centre))
    grey = ((grey - floor) / (1 - floor)).clip(0, 1) ** rng.uniform(0.8, 1.2)
    grey = rng.uniform(0, 0.08) + grey * rng.uniform(0.82, 1.0)
    if rng.random() < 0.4:
        # The side marker: L for the patient's left, which is on the image's right.
        place = np.array([rng.uniform(0.88, 0.93), rng.uniform(0.05, 0.1)])
        letter = place + np.array([(0, 0), (0, 0.035), (0.02, 0.035)])
        grey = np.maximum(grey, 0.95 * film.strokes([(letter, 0.007, 1.0)]))
    if rng.random() < 0.15:
        border = int(rng.uniform(0.01, 0.04) * size)
        grey[:, :border] = grey[:, size - border :] = 0.01
    return np.asarray(np.clip(np.round(255 * grey), 0, 255), np.uint8)
