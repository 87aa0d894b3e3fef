"""Smooth random fields: the texture of tissue and the irregularity of surfaces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bundle.phantoms.shapes import Array


class SmoothField:
    """Random fields of unit variance over a rectangular domain, as cubic B-splines of random weights.

    A field belongs to positions, not to samples: the same weights drawn on a finer grid give the same
    anatomy. Evaluation is one small matrix product per axis.
    """

    def __init__(self, rng: np.random.Generator, axes: Sequence[Array], domain: float) -> None:
        self._rng = rng
        self._axes = axes
        # Rounded up, so that a coarser grid over the same region draws the same weights.
        self._reach = [domain * np.ceil(float(np.abs(axis).max()) / domain) for axis in axes]

    def __call__(
        self, knot: float, box: Sequence[slice] | None = None, stretch: Sequence[float] = ()
    ) -> Array:
        """Draws a field.

        Args:
            knot: distance of the spline's knots, in the unit of the axes; blobs are about twice as wide.
            box: the part to evaluate; everything by default.
            stretch: factor on `knot` per axis.
        """
        bases = []
        for number, axis in enumerate(self._axes):
            part = axis[box[number]] if box is not None else axis
            pitch = knot * (stretch[number] if stretch else 1.0)
            bases.append(_spline_basis(part, pitch, self._reach[number]))
        weights = self._rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
        used = [np.flatnonzero(basis.any(axis=0)) for basis in bases]
        field: Array = weights[np.ix_(*used)]
        for basis, columns in zip(bases, used, strict=True):
            # The product eats the first axis and appends the sampled one: after a full turn all are in order.
            field = np.tensordot(field, basis[:, columns], axes=([0], [1]))
        # Mean of the squared cubic B-spline weights per axis; dividing by its root gives unit variance.
        return np.ascontiguousarray(field / np.float32(0.479 ** (len(bases) / 2)))


def _spline_basis(axis: Array, knot: float, reach: float) -> NDArray[np.float32]:
    knots = np.arange(-reach - 2 * knot, reach + 2.01 * knot, knot)
    t = np.abs(np.asarray(axis, np.float64)[:, None] - knots[None]) / knot
    inner = 2 / 3 - t**2 + t**3 / 2
    outer = np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, inner, outer).astype(np.float32)
