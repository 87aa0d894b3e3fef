"""The ground of an H&E tile: where epithelium, lumina, stroma and red cells lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bundle.phantoms.noise import SmoothField
from bundle.phantoms.shapes import Array, smoothstep


@dataclass(frozen=True)
class Tissue:
    """What grows where on one tile.

    Attributes:
        lumen: 0-1 per pixel.
        epithelium: 0-1 per pixel; what is neither epithelium nor lumen is stroma.
        density: how densely nuclei lie, per pixel.
        pale: factor on the cytoplasm's eosin.
        scale: factor on the nuclei's size.
        dense_share: share of nuclei with dense chromatin.
    """

    lumen: Array
    epithelium: Array
    density: Array
    pale: np.float32
    scale: np.float32
    dense_share: np.float32

    @property
    def stroma(self) -> Array:
        return np.asarray((1 - self.epithelium) * (1 - self.lumen))


@dataclass(frozen=True)
class _Pattern:
    """A tissue type: how likely it is, and what sets its cells apart."""

    probability: float
    crowd_epithelium: float
    crowd_stroma: float
    pale: float
    scale: float
    dense_share: float


_PATTERNS = {
    "glands": _Pattern(0.4, 1.0, 0.35, 1.0, 1.0, 0.25),
    "sheet": _Pattern(0.28, 1.0, 0.4, 1.0, 1.1, 0.25),
    "lymphoid": _Pattern(0.14, 1.0, 0.5, 0.45, 0.72, 0.9),
    "stroma": _Pattern(0.18, 0.8, 0.4, 1.0, 0.85, 0.55),
}


def draw_tissue(rng: np.random.Generator, field: SmoothField, size: int) -> Tissue:
    pattern = str(rng.choice(list(_PATTERNS), p=[kind.probability for kind in _PATTERNS.values()]))
    kind = _PATTERNS[pattern]
    coarse = field(rng.uniform(60, 95)) + 0.25 * field(25)
    fine = 0.12 * field(9)
    if pattern == "glands":
        epithelium = smoothstep(coarse + fine, -0.45, -0.35)
        lumen = smoothstep(coarse + fine - rng.uniform(1.0, 1.35), 0, 0.07)
    elif pattern == "sheet":
        epithelium = smoothstep(coarse + fine + rng.uniform(0.9, 1.7), 0, 0.1)
        lumen = smoothstep(np.abs(field(40)) * -1 + 0.035 + 0.3 * fine, 0, 0.06) * smoothstep(coarse, 0, 0.3)
    elif pattern == "lymphoid":
        epithelium = smoothstep(coarse + 1.8, 0, 0.1)
        lumen = smoothstep(field(14) + 0.5 * field(7) - rng.uniform(0.9, 1.5), 0, 0.1)
    else:
        epithelium = smoothstep(coarse + fine - 1.1, 0, 0.1)
        lumen = smoothstep(field(22) + fine - rng.uniform(1.5, 2.0), 0, 0.1)
    epithelium = epithelium * (1 - lumen)
    density = kind.crowd_epithelium * epithelium + kind.crowd_stroma * (1 - epithelium) * (1 - lumen)
    if rng.random() < 0.5:
        # One side may be more cellular than the other.
        angle = rng.uniform(0, 2 * np.pi)
        axis = np.linspace(-1, 1, size)
        slope = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
        density = density * np.clip(0.75 + rng.uniform(0.3, 0.7) * slope, 0.1, 1.3)
    return Tissue(
        lumen=lumen,
        epithelium=epithelium,
        density=density,
        pale=np.float32(kind.pale),
        scale=np.float32(kind.scale),
        dense_share=np.float32(kind.dense_share if rng.random() < 0.7 else rng.uniform(0, 1)),
    )


def red_cells(rng: np.random.Generator, field: SmoothField, where: Array, mask: Array, size: int) -> Array:
    """Erythrocytes in small vessels: discs of about 7 um, packed where a field is high."""
    pool = field(24) > 1.5
    centre = rng.uniform(0, size, (int(size * size / 420), 2))
    place = centre.astype(int)
    centre = centre[pool[place[:, 0], place[:, 1]] & (where[place[:, 0], place[:, 1]] > 0.4)]
    if not len(centre):
        return np.zeros((size, size))
    seeds = np.ones((size, size), bool)
    spots = centre.astype(int)
    seeds[spots[:, 0], spots[:, 1]] = False
    distance = ndimage.distance_transform_edt(seeds) + 1.2 * field(6)
    return np.asarray(smoothstep(-distance, -11.5, -9.5) * ~mask)
