"""Lines of the chest in fractions of the image: outlines, ribs and vessels."""

from __future__ import annotations

import numpy as np

from bundle.phantoms.shapes import Array, smoothstep
from bundle.phantoms.xray_film import Stroke


def lung_outlines(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Outlines of the image-left lung, the image-right lung and heart with mediastinum, jittered together."""
    left = np.array([
        (0.375, 0.13), (0.29, 0.16), (0.21, 0.28), (0.155, 0.45), (0.125, 0.62), (0.115, 0.735),
        (0.135, 0.752), (0.20, 0.685), (0.29, 0.655), (0.37, 0.68), (0.455, 0.735), (0.465, 0.60),
        (0.46, 0.40), (0.45, 0.22), (0.425, 0.145),
    ])  # fmt: skip
    right = left.copy()
    right[:, 0] = 1 - right[:, 0]
    right[7:11, 1] += 0.025
    heart = np.array([
        (0.445, 0.02), (0.445, 0.15), (0.437, 0.25), (0.435, 0.36), (0.43, 0.44), (0.405, 0.53),
        (0.395, 0.62), (0.42, 0.72), (0.44, 0.83), (0.60, 0.83), (0.70, 0.765), (0.722, 0.70),
        (0.695, 0.61), (0.645, 0.52), (0.592, 0.44), (0.572, 0.395), (0.577, 0.345), (0.588, 0.305),
        (0.572, 0.268), (0.552, 0.24), (0.55, 0.14), (0.55, 0.02),
    ])  # fmt: skip
    width, height, shift_v = rng.uniform(0.92, 1.18), rng.uniform(0.9, 1.14), rng.uniform(-0.02, 0.05)
    tilt = rng.uniform(-0.04, 0.04)
    inspiration = rng.uniform(-0.05, 0.05)
    heart_size = rng.uniform(0.9, 1.28)
    swell = np.where(heart[:, 1] > 0.4, heart_size, 1.0)
    heart[:, 0] = 0.5 + (heart[:, 0] - 0.5) * swell
    placed = []
    for outline in (left, right, heart):
        outline = outline.copy()
        outline[:, 1] += inspiration * smoothstep(outline[:, 1], 0.4, 0.75)
        outline += rng.normal(0, 0.006, outline.shape)
        u, v = outline[:, 0] - 0.5, outline[:, 1] - 0.45
        outline[:, 0] = 0.5 + width * u + tilt * v
        outline[:, 1] = 0.45 + shift_v + height * v - tilt * u
        placed.append(outline)
    return placed[0], placed[1], placed[2]


def rib_lines(rng: np.random.Generator, lungs: tuple[Array, Array]) -> list[Stroke]:
    """Ribs as projected rings: the back half crosses the lung flat, the front half steeply and fainter."""
    top = min(outline[:, 1].min() for outline in lungs) - 0.015
    bottom = max(outline[:, 1].max() for outline in lungs)
    pitch = rng.uniform(0.062, 0.074)
    drop = rng.uniform(0.16, 0.24)
    thick = rng.uniform(0.017, 0.024)
    lines = []
    for side, outline in ((-1, lungs[0]), (1, lungs[1])):
        edge = outline[:, 0].min() if side < 0 else outline[:, 0].max()
        reach = abs(edge - 0.5) + 0.012
        for number in range(10):
            level = top + number * pitch
            if level > bottom:
                break
            angle = np.linspace(0.1, 2.45, 30)
            descent = level + drop * (1 - np.cos(angle)) / 2 * (0.55 + 0.05 * number)
            open_to = reach * (0.52 + 0.48 * smoothstep(descent, top, top + 0.55 * (bottom - top)))
            ring = np.stack([0.5 + side * (0.03 + (open_to - 0.03) * np.sin(angle)), descent], axis=1)
            back = angle < np.pi / 2 + 0.1
            lines.append((ring[back], thick, 1.0))
            lines.append((ring[~back], thick * 1.15, 0.55))
    return lines


def vessel_lines(rng: np.random.Generator, hilum: tuple[float, float], side: int) -> list[Stroke]:
    """A branching tree from the hilum towards the periphery."""
    lines: list[Stroke] = []
    open_ends = [
        (np.array(hilum), angle + rng.normal(0, 0.12), 0.0125, 0) for angle in np.linspace(-1.35, 1.35, 8)
    ]
    while open_ends:
        start, angle, width, order = open_ends.pop()
        steps = rng.integers(4, 7)
        angles = angle + np.cumsum(rng.normal(0, 0.14, steps))
        length = 0.021 * (1 - 0.1 * order)
        walk = start + np.cumsum(np.stack([side * np.cos(angles), np.sin(angles)], axis=1) * length, axis=0)
        lines.append((np.vstack([start, walk]), width, 0.35 + 45 * width))
        if order < 4:
            fork = rng.uniform(0.2, 0.5)
            for turn in (-fork, fork):
                open_ends.append((walk[-1], float(angles[-1]) + turn, width * 0.7, order + 1))
    return lines
