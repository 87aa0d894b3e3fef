"""The CT volume while organs are painted into it, in warped millimetres."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bundle.phantoms.noise import SmoothField
from bundle.phantoms.phantom import CT_LABELS
from bundle.phantoms.shapes import Array, Point

Box: TypeAlias = tuple[slice, slice, slice]


class Canvas:
    """The volume while it is painted: warped coordinates, HU, labels and the room that is still free."""

    def __init__(self, rng: np.random.Generator, shape: Point, spacing: Point, offset: Point) -> None:
        self.rng = rng
        axes = [
            ((np.arange(count) - (count - 1) / 2) * edge + shift).astype(np.float32)
            for count, edge, shift in zip(shape, spacing, offset, strict=True)
        ]
        self.axes = axes
        self.field = SmoothField(rng, axes, 50.0)
        self.x = axes[0][:, None, None] + 4.0 * self.field(70)
        self.y = axes[1][None, :, None] + 3.0 * self.field(70)
        self.z = axes[2][None, None, :] + 3.0 * self.field(70)
        self.hu = np.full(self.x.shape, -1000, np.float32)
        self.label = np.zeros(self.x.shape, np.uint8)
        self.values = {name: value for value, name in CT_LABELS.items()}
        self.free = np.full(self.x.shape, np.inf, np.float32)

    def box(self, low: Point, high: Point, margin: float = 18) -> Box:
        """The slices that hold an axis-aligned region in mm; the margin covers warp and surface noise."""
        slices = []
        for axis, start, stop in zip(self.axes, low, high, strict=True):
            first = int(np.searchsorted(axis, start - margin))
            last = int(np.searchsorted(axis, stop + margin, side="right"))
            slices.append(slice(first, max(last, first)))
        return slices[0], slices[1], slices[2]

    def around(self, points: Array, reach: float) -> Box:
        low, high = points.min(axis=0) - reach, points.max(axis=0) + reach
        return self.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def take(self, distance: Array, box: Box, gap: float) -> NDArray[np.bool_]:
        """Claims the inside of a surface as far as nobody else has it, `gap` mm away from the others."""
        inside = (distance < 0) & (self.free[box] > gap)
        self.free[box] = np.minimum(self.free[box], distance)
        return np.asarray(inside)

    def ellipsoid(self, box: Box, centre: Point, radii: Point, turn: Array | None = None) -> Array:
        """Signed distance in mm (approximate away from the surface) to an ellipsoid."""
        p = [self.x[box] - centre[0], self.y[box] - centre[1], self.z[box] - centre[2]]
        if turn is not None:
            p = [turn[row, 0] * p[0] + turn[row, 1] * p[1] + turn[row, 2] * p[2] for row in range(3)]
        near: Array = sum((p[k] / radii[k]) ** 2 for k in range(3))  # type: ignore[assignment]
        far: Array = sum((p[k] / radii[k] ** 2) ** 2 for k in range(3))  # type: ignore[assignment]
        k0, k1 = np.sqrt(near), np.sqrt(far) + np.float32(1e-6)
        return np.asarray(k0 * (k0 - 1) / k1)

    def tube(self, box: Box, path: Array, radii: Array) -> Array:
        """Signed distance in mm to a tube along a polyline (n, 3) with a radius at every corner."""
        x, y, z = self.x[box], self.y[box], self.z[box]
        best = np.full(x.shape, np.inf, np.float32)
        for start, stop, r0, r1 in zip(path[:-1], path[1:], radii[:-1], radii[1:], strict=True):
            edge = (stop - start).astype(np.float32)
            dx, dy, dz = x - np.float32(start[0]), y - np.float32(start[1]), z - np.float32(start[2])
            t = np.clip((dx * edge[0] + dy * edge[1] + dz * edge[2]) / np.float32(edge @ edge), 0, 1)
            gap = np.sqrt((dx - t * edge[0]) ** 2 + (dy - t * edge[1]) ** 2 + (dz - t * edge[2]) ** 2)
            best = np.minimum(best, gap - np.float32(r0) - t * np.float32(r1 - r0))
        return best

    def tubule(
        self, path: Array, radii: Array | float, value: float, gap: float = 0.5, rough: float = 0.6
    ) -> None:
        """Paints a tube of one density along a polyline (n, 3) where there is room, `gap` mm from others.

        Args:
            radii: one for every corner, or one for all.
            rough: mm by which its surface varies.
        """
        box = self.around(path, float(np.max(radii)))
        distance = self.tube(box, path, np.broadcast_to(radii, len(path)))
        distance = distance + rough * self.field(14, box)
        self.paint(box, self.take(distance, box, gap), value)

    def vessels(self, knot: float, box: Box, width: float) -> Array:
        """Branching-like bright curves: where two smooth fields are both near zero. Soft mask 0-1."""
        distance = np.sqrt(self.field(knot, box) ** 2 + self.field(knot, box) ** 2)
        return np.asarray(np.clip(1.6 - distance / np.float32(width), 0, 1))

    def paint(self, box: Box, where: Array, values: Array | float) -> None:
        view = self.hu[box]
        view[where] = values[where] if isinstance(values, np.ndarray) else values
