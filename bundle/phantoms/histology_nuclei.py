"""The nuclei of an H&E tile: where they lie and how they take up haematoxylin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bundle.phantoms.histology_tissue import Tissue
from bundle.phantoms.noise import SmoothField
from bundle.phantoms.shapes import Array


@dataclass(frozen=True)
class Nuclei:
    """Centres (n, 2) in rows and columns, half axes (n, 2), directions in radians, kinds.

    Kinds: 0 vesicular (pale inside, dark rim, nucleolus), 1 dense, 2 spindle.
    """

    centre: Array
    axes: Array
    direction: Array
    kind: Array


def place_nuclei(rng: np.random.Generator, tissue: Tissue, fibre: Array, size: int) -> Nuclei:
    """Random sequential placement: a nucleus is kept where the tissue wants one and has room for it."""
    radius = rng.uniform(10.5, 15) * float(tissue.scale)
    spacing = radius * rng.uniform(1.6, 2.3)
    room = size + 40
    tries = int(rng.uniform(1.5, 3.5) * (room / spacing) ** 2)
    centre = rng.uniform(-20, size + 20, (tries, 2))
    inside = np.clip(centre.astype(int), 0, size - 1)
    wanted = tissue.density[inside[:, 0], inside[:, 1]]
    centre = centre[rng.random(tries) < wanted * rng.uniform(0.2, 0.75)]
    # First come, first served: of every pair that is too close the later one goes.
    pairs = cKDTree(centre).query_pairs(spacing, output_type="ndarray")
    alive = np.ones(len(centre), bool)
    for first, second in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]:
        if alive[first]:
            alive[second] = False
    centre = centre[alive]
    count = len(centre)
    inside = np.clip(centre.astype(int), 0, size - 1)
    in_stroma = tissue.epithelium[inside[:, 0], inside[:, 1]] < 0.5
    kind = (rng.random(count) < float(tissue.dense_share)).astype(int)
    kind[in_stroma & (rng.random(count) < 0.75)] = 2
    mean = radius * rng.lognormal(0, rng.uniform(0.1, 0.22), count)
    stretch = rng.uniform(1.0, 1.5, count)
    stretch[kind == 2] = rng.uniform(1.8, 3.2, int((kind == 2).sum()))
    mean[kind == 1] *= 0.88
    mean[kind == 2] *= 0.82
    axes = np.stack([mean * np.sqrt(stretch), mean / np.sqrt(stretch)], axis=1)
    direction = rng.uniform(0, np.pi, count)
    along = fibre[inside[:, 0], inside[:, 1]] + rng.normal(0, 0.25, count)
    direction = np.where(kind == 2, along, direction)
    return Nuclei(centre, axes, direction, kind)


def stain_nuclei(
    rng: np.random.Generator, nuclei: Nuclei, field: SmoothField, size: int
) -> tuple[Array, NDArray[np.bool_]]:
    """Haematoxylin density of all nuclei together and their common mask."""
    density = np.zeros((size, size), np.float32)
    mask = np.zeros((size, size), bool)
    coarse, fine = field(3.2), field(1.6)
    strength = {0: rng.uniform(0.5, 0.8), 1: rng.uniform(0.95, 1.35), 2: rng.uniform(0.8, 1.15)}
    hollow = rng.uniform(0.15, 0.6)
    clumps = rng.uniform(0.12, 0.28)
    order = np.arange(5)
    blurred = rng.uniform(1.4, 3.2)
    for centre, axes, direction, kind in zip(
        nuclei.centre, nuclei.axes, nuclei.direction, nuclei.kind, strict=True
    ):
        reach = int(axes[0] * 1.35) + 3
        r0, c0 = int(centre[0]) - reach, int(centre[1]) - reach
        rows = slice(max(r0, 0), min(r0 + 2 * reach, size))
        columns = slice(max(c0, 0), min(c0 + 2 * reach, size))
        wobble = rng.normal(0, 1, (2, 5)) * 0.11 / (order + 1)
        dot = rng.uniform(-0.4, 0.4, 2)
        gain = rng.lognormal(0, 0.14)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        dy = np.arange(rows.start, rows.stop)[:, None] - centre[0]
        dx = np.arange(columns.start, columns.stop)[None, :] - centre[1]
        cos, sin = np.cos(direction), np.sin(direction)
        p, q = (dx * cos + dy * sin) / axes[0], (dy * cos - dx * sin) / axes[1]
        angle = np.arctan2(q, p)
        rim = 1.0 + sum(
            wobble[0, k] * np.cos((k + 1) * angle) + wobble[1, k] * np.sin((k + 1) * angle)
            for k in range(1, 5)
        )
        rho = np.sqrt(p**2 + q**2) / rim
        # Distance to the membrane in pixels makes the edge equally sharp for every size.
        edge = (1 - rho) * axes[1]
        cover = np.clip(edge / blurred + 0.5, 0, 1)
        texture = clumps * (coarse[rows, columns] + 0.7 * fine[rows, columns])
        if kind == 0:
            membrane = np.exp(-(((edge - 1.6) / 1.7) ** 2))
            body = (1 - hollow) + (hollow + 0.25) * membrane + 1.5 * texture
            nucleolus = np.exp(-(((p - dot[0]) * axes[0]) ** 2 + ((q - dot[1]) * axes[1]) ** 2) / 5.5)
            body = body + 0.7 * nucleolus
        else:
            body = 1.0 + texture
        value = cover * strength[int(kind)] * gain * np.clip(body, 0.15, 2.0)
        view = density[rows, columns]
        # Overlapping nuclei add up only in part: the section is thin.
        density[rows, columns] = np.maximum(view, value) + 0.25 * np.minimum(view, value)
        mask[rows, columns] |= edge > 0
    return density, mask
