"""Curves, rotations and soft steps that every modality draws with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline

Array: TypeAlias = NDArray[Any]
Point: TypeAlias = tuple[float, float, float]


def smoothstep(values: Array, low: float, high: float) -> Array:
    """0 up to `low`, 1 from `high`, without a kink at either."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def curve(points: Sequence[Point], count: int = 14) -> Array:
    """A smooth polyline through a few points (Catmull-Rom like, by cubic splines over the chord length)."""
    nodes = np.asarray(points, np.float64)
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))])
    from_zero = np.linspace(0, steps[-1], count)
    if len(nodes) < 4:
        return np.stack([np.interp(from_zero, steps, nodes[:, k]) for k in range(3)], axis=1)
    return np.asarray(CubicSpline(steps, nodes)(from_zero))


def rotation(about_x: float, about_y: float, about_z: float) -> NDArray[np.float32]:
    """Rotation matrix from angles in degrees about x, y and z, applied in that order."""
    a, b, c = np.deg2rad([about_x, about_y, about_z])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx, np.float32)


def plane_curve(points: Sequence[tuple[float, float]]) -> Array:
    return curve([(a, b, 0.0) for a, b in points], count=20)[:, :2]


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())
