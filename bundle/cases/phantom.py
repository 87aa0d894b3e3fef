"""Synthetic studies with known truth: a CT torso, a chest radiograph and an H&E tile.

No patient data lies in the repository, so the demonstration, the quick tests and part of the training
data are drawn here from a seed. Anatomy is laid out in millimetres (CT) or in fractions of the picture,
every size, position, contrast and noise level varies with the seed, and the same seed gives the same
bytes. The studies look like the real thing to a network and to a reader's first glance; they are no
model of disease and say nothing about clinical performance.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from bundle.cases.case import MODALITIES, Modality

_LOG = logging.getLogger(__name__)

Array: TypeAlias = NDArray[Any]
Box: TypeAlias = tuple[slice, slice, slice]
Point: TypeAlias = tuple[float, float, float]

CT_LABELS: dict[int, str] = {
    1: "aorta",
    2: "gallbladder",
    3: "left kidney",
    4: "right kidney",
    5: "liver",
    6: "pancreas",
    7: "spleen",
    8: "stomach",
    9: "lung",
}
XRAY_LABELS: dict[int, str] = {1: "COVID-19 infection"}
HISTOLOGY_LABELS: dict[int, str] = {1: "nucleus"}

COUNT_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ZONES = ("upper", "middle", "lower")


@dataclass(frozen=True)
class Phantom:
    """A synthetic study and its truth.

    Attributes:
        image: CT int16 (X, Y, Z) in HU; X-ray uint8 (H, W); H&E uint8 (H, W, 3), upright.
        label: uint8, the image's spatial shape; 0 is background.
        affine: (4, 4) voxel index -> mm, RAS+ as NIfTI defines it; None for pictures.
        modality: 'CT', 'X-ray' or 'H&E'.
        labels: value in the truth -> name of the structure, background left out.
        text: a report sentence that agrees with the truth; empty for CT, where a prompt is the name
            of an organ.
    """

    image: Array
    label: NDArray[np.uint8]
    affine: NDArray[np.float64] | None
    modality: Modality
    labels: dict[int, str]
    text: str


# --------------------------------------------------------------------------------------------------
# smooth random fields


class _SmoothField:
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


def _smoothstep(values: Array, low: float, high: float) -> Array:
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


# --------------------------------------------------------------------------------------------------
# CT

# Mean HU in three contrast phases; everything else is painted relative to these.
_PHASES: dict[str, dict[str, float]] = {
    "portal venous": {
        "aorta": 152, "vein": 146, "cortex": 178, "medulla": 158, "liver": 108, "pancreas": 92,
        "spleen": 117, "vessel": 38, "wall": 78, "heart": 140, "muscle": 60,
    },
    "late arterial": {
        "aorta": 255, "vein": 105, "cortex": 190, "medulla": 120, "liver": 82, "pancreas": 105,
        "spleen": 122, "vessel": 22, "wall": 85, "heart": 190, "muscle": 57,
    },
    "weak enhancement": {
        "aorta": 105, "vein": 96, "cortex": 122, "medulla": 110, "liver": 74, "pancreas": 58,
        "spleen": 84, "vessel": 18, "wall": 55, "heart": 95, "muscle": 52,
    },
}  # fmt: skip


@dataclass(frozen=True)
class _Torso:
    """The plan of one body: millimetres in a frame with x to the patient's left, y to posterior, z up."""

    half_width: float
    half_depth: float
    roundness: float
    fat: float
    visceral_fat: float
    muscle: float
    spine_y: float
    spine_x: float
    vertebra_phase: float
    scale_x: float
    size: float
    dome_right: float
    dome_left: float
    hu: dict[str, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Torso:
        build = rng.uniform(-1, 1)
        half_width = 162 + 15 * build + rng.uniform(-5, 5)
        half_depth = 119 + 13 * build + rng.uniform(-7, 7)
        fat = float(np.clip(15 + 10 * build + rng.uniform(-6, 8), 5, 36))
        muscle = rng.uniform(9, 14)
        phase = str(rng.choice(list(_PHASES), p=[0.65, 0.2, 0.15]))
        return cls(
            half_width=half_width,
            half_depth=half_depth,
            roundness=rng.uniform(2.1, 2.5),
            fat=fat,
            visceral_fat=float(np.clip(0.5 + 0.4 * build + rng.uniform(-0.2, 0.2), 0, 1)),
            muscle=muscle,
            spine_y=half_depth - 0.75 * fat - 58,
            spine_x=rng.uniform(-3, 3),
            vertebra_phase=rng.uniform(0, 30),
            scale_x=(half_width - fat - muscle) / 133,
            size=rng.uniform(0.92, 1.08),
            dome_right=rng.uniform(48, 66),
            dome_left=rng.uniform(38, 54),
            hu={name: value * rng.uniform(0.93, 1.07) for name, value in _PHASES[phase].items()},
        )

    @property
    def spine_front(self) -> float:
        return self.spine_y - 17

    def at(self, x: float, depth: float, z: float) -> Point:
        """A place in this body: x for an average build, depth 0 at the front of the spine and 1 at the
        anterior abdominal wall (negative: beside the spine), z as it is."""
        wall = -self.half_depth + self.fat + 0.8 * self.muscle
        return x * self.scale_x, self.spine_front + depth * (wall - self.spine_front), z


class _Canvas:
    """The volume while it is painted: warped coordinates, HU, labels and the room that is still free."""

    def __init__(self, rng: np.random.Generator, shape: Point, spacing: Point, offset: Point) -> None:
        self.rng = rng
        axes = [
            ((np.arange(count) - (count - 1) / 2) * edge + shift).astype(np.float32)
            for count, edge, shift in zip(shape, spacing, offset, strict=True)
        ]
        self.axes = axes
        self.field = _SmoothField(rng, axes, 50.0)
        self.x = axes[0][:, None, None] + 4.0 * self.field(70)
        self.y = axes[1][None, :, None] + 3.0 * self.field(70)
        self.z = axes[2][None, None, :] + 3.0 * self.field(70)
        self.hu = np.full(self.x.shape, -1000, np.float32)
        self.label = np.zeros(self.x.shape, np.uint8)
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

    def vessels(self, knot: float, box: Box, width: float) -> Array:
        """Branching-like bright curves: where two smooth fields are both near zero. Soft mask 0-1."""
        distance = np.sqrt(self.field(knot, box) ** 2 + self.field(knot, box) ** 2)
        return np.asarray(np.clip(1.6 - distance / np.float32(width), 0, 1))

    def paint(self, box: Box, where: Array, values: Array | float) -> None:
        view = self.hu[box]
        view[where] = values[where] if isinstance(values, np.ndarray) else values


def _curve(points: Sequence[Point], count: int = 14) -> Array:
    """A smooth polyline through a few points (Catmull-Rom like, by cubic splines over the chord length)."""
    nodes = np.asarray(points, np.float64)
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))])
    from_zero = np.linspace(0, steps[-1], count)
    if len(nodes) < 4:
        return np.stack([np.interp(from_zero, steps, nodes[:, k]) for k in range(3)], axis=1)
    return np.asarray(CubicSpline(steps, nodes)(from_zero))


def _rotation(about_x: float, about_y: float, about_z: float) -> NDArray[np.float32]:
    """Rotation matrix from angles in degrees about x, y and z, applied in that order."""
    a, b, c = np.deg2rad([about_x, about_y, about_z])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx, np.float32)


def _paint_wall(canvas: _Canvas, torso: _Torso) -> tuple[Array, Array]:
    """Skin, fat, muscle ring, ribs, spine and back muscles.

    Returns:
        depth below the skin and signed distance into the body cavity, both in mm.
    """
    rng, x, y, z = canvas.rng, canvas.x, canvas.y, canvas.z
    power = np.float32(torso.roundness)
    swell = 1 + np.float32(rng.uniform(-0.0006, 0.0004)) * z
    rho = (np.abs(x / (torso.half_width * swell)) ** power + np.abs(y / torso.half_depth) ** power) ** (
        1 / power
    )
    radius = np.sqrt(x**2 + y**2)
    depth = radius * (1 / np.maximum(rho, 0.05) - 1)
    side, back = np.abs(x) / (radius + 1), y / (radius + 1)
    fat = torso.fat * (0.72 + 0.3 * side**2 + 0.45 * np.maximum(back, 0) ** 2 - z * np.float32(0.0022))
    fat = np.maximum(fat + 1.5 * canvas.field(30), 3)
    rectus = np.clip(1 - ((np.abs(x) - 38) / 30) ** 2, 0, 1) * (back < -0.6)
    muscle = torso.muscle * (1 + 0.35 * np.maximum(back, 0)) + 3.5 * rectus + 1.2 * canvas.field(40)
    inner = depth - fat - muscle

    body = depth > 0
    hu = canvas.hu
    texture = canvas.field(14)
    hu[body] = (-103 + 7 * texture)[body]
    # Thin septa keep subcutaneous fat from looking like a flat fill.
    septa = (np.abs(canvas.field(16)) < 0.05) & body
    hu[septa] = -65
    hu[body & (depth < 2.5)] = 15
    ring = body & (depth > fat) & (inner < 0)
    # The linea alba and the layers of the abdominal wall are thin sheets of fat.
    layers = np.abs((depth - fat) / muscle - 0.5 + 0.08 * texture) < 0.06 + 0.04 * texture
    layers &= (np.abs(back) < 0.75) & (z < 10)
    alba = (np.abs(x) < 4) & (back < -0.6)
    hu[ring] = (torso.hu["muscle"] + 6 * texture)[ring]
    hu[ring & (layers | alba)] = -70

    sx, sy = x - torso.spine_x, y - torso.spine_y
    cage_fraction = 1 - _smoothstep(z, -30, 20)
    erector_depth = 15 + 7 * cage_fraction
    erector = np.sqrt(((np.abs(sx) - 29) / 26) ** 2 + ((sy - 40) / erector_depth) ** 2) * 18 - 18
    # Both muscles begin at the first lumbar vertebra; a negative radius is no muscle.
    psoas_size = np.clip(3 - z * np.float32(0.22), -6, 24)
    psoas = np.sqrt((np.abs(sx) - 30 - 0.25 * psoas_size) ** 2 + ((sy - 6) * 0.9) ** 2) - psoas_size
    quadratus = np.sqrt(((np.abs(sx) - 58) / 1.6) ** 2 + (sy - 30) ** 2) - np.clip(
        1 - z * np.float32(0.12), -6, 10
    )
    back_muscle = np.minimum(np.minimum(erector, psoas), quadratus) + 1.5 * canvas.field(18)
    marbling = 6 * texture - 45 * (canvas.field(9) > 1.8)
    meat = (back_muscle < 0) & (depth > np.minimum(fat * 0.8, 14))
    hu[meat] = (torso.hu["muscle"] + marbling)[meat]

    spine = _paint_spine(canvas, torso, sx, sy, texture)
    _paint_ribs(canvas, torso, x, y, z, (depth - fat) / muscle, muscle)
    return depth, np.minimum(np.minimum(inner, back_muscle), spine)


def _paint_spine(canvas: _Canvas, torso: _Torso, sx: Array, sy: Array, texture: Array) -> Array:
    """Vertebrae, discs, arches and processes; returns the distance to the vertebral column in mm."""
    z, hu = canvas.z, canvas.hu
    level = (z + torso.vertebra_phase) / 30
    along = (level - np.round(level)) * 30
    waist = 1.8 * (1 - _smoothstep(np.abs(along), 4, 12))
    bowl = np.sqrt((sx / 1.38) ** 2 + sy**2) - 16.5 + waist
    # The back of a vertebral body is concave where the canal passes.
    canal = np.sqrt(sx**2 + (sy - 25) ** 2)
    column = np.maximum(bowl, 10.5 - canal)
    disc = np.abs(along) > 11.8
    trabecular = 150 + 45 * canvas.field(6) + 15 * texture
    bone = column < 0
    hu[bone] = trabecular[bone]
    hu[bone & ((column > -2.2) | (np.abs(along) > 10.4))] = 380
    hu[bone & disc] = 85
    arch = (np.abs(canal - 12) < 2.8) & ~disc & (sy > 12)
    lower = _smoothstep(-along, -2, 2)
    spinous = (np.abs(sx) < 3.4) & (sy > 36) & (sy < 36 + 24 * lower)
    transverse = (np.abs(sy - 24 - 0.1 * np.abs(sx)) < 4.5) & (np.abs(sx) > 12) & (np.abs(sx) < 34)
    transverse &= np.abs(along + 1) < 6
    facet = np.sqrt((np.abs(sx) - 15) ** 2 + (sy - 27) ** 2) < 6.5
    processes = arch | spinous | transverse | facet
    hu[processes] = (380 + 90 * canvas.field(7))[processes]
    hu[canal < 9.2] = 32
    hu[(canal < 9.2) & (canal > 6.5)] = -5
    return np.asarray(np.minimum(column, canal - 13))


def _paint_ribs(
    canvas: _Canvas, torso: _Torso, x: Array, y: Array, z: Array, level: Array, muscle: Array
) -> None:
    """Ribs slope down from the spine to the side, so that an axial slice cuts several of them obliquely."""
    rng = canvas.rng
    around = np.arctan2(np.abs(x), y - torso.spine_y * np.float32(0.3))
    drop = rng.uniform(66, 84) * _smoothstep(around, 0.1, 2.1) - 55 * _smoothstep(around, 2.2, 3.1)
    base, pitch = rng.uniform(-16, 0), rng.uniform(25, 28)
    number = (z + drop + 0.02 * x - base) / pitch
    nearest = np.round(number)
    across = (number - nearest) * pitch / 6.8
    through = (level - 0.62) * muscle / np.minimum(4.6, 0.42 * muscle)
    q = np.sqrt(across**2 + through**2)
    # The two lowest ribs float; the others end in cartilage in front.
    end = np.select([nearest < 0, nearest < 1, nearest < 2], [0.0, 1.25, 1.75], 2.75)
    rib = (q < 1) & (around > 0.22) & (around < end)
    cartilage = around > 2.15
    hu = canvas.hu
    hu[rib] = np.where(q > 0.55, 520, 190)[rib]
    hu[rib & cartilage] = 125
    sternum = ((x / 19) ** 2 + ((level - 0.5) * muscle / 6.5) ** 2 < 1) & (y < 0) & (z > 48)
    hu[sternum] = 210


def _paint_cavity(canvas: _Canvas, torso: _Torso, cavity: Array) -> tuple[Array, Array]:
    """Cavity fat, diaphragm, lungs, heart. Leaves `canvas.free` as the room for abdominal organs.

    Returns:
        height of the diaphragm above every voxel's column in mm, and the room beneath the wall.
    """
    rng, x, y, z, hu = canvas.rng, canvas.x, canvas.y, canvas.z, canvas.hu
    inside = cavity > 0
    mesentery = -108 + 8 * canvas.field(14)
    hu[inside] = mesentery[inside]

    plane_x, plane_y = x / torso.scale_x, y - rng.uniform(-14, -2)
    fall = (plane_y / 62) ** 2 * np.where(plane_y < 0, np.float32(14), np.float32(32))
    right = torso.dome_right - ((plane_x + 66) / 62) ** 2 * 24 - fall
    left = torso.dome_left - ((plane_x - 66) / 62) ** 2 * 24 - fall
    # The central tendon carries the heart: between the domes the diaphragm sags only a little.
    tendon = torso.dome_left - 9 - (plane_x / 55) ** 2 * 24 - 0.6 * fall
    # Steep near the wall: the costophrenic recess reaches far down behind liver and spleen.
    steep = 58 * np.exp(-np.maximum(cavity, 0) / 5) * (0.25 + 0.75 * _smoothstep(plane_y, -50, 40))
    dome = 6 * np.logaddexp(np.logaddexp(right / 6, left / 6), tendon / 6) - steep + 2 * canvas.field(35)
    dome = np.maximum(dome, -25)
    above = z - dome

    heart_box = canvas.box((-70, -100, 25), (100, 60, 200))
    cx, cy, _ = torso.at(20, 0.55, 0)
    hz = torso.dome_left + rng.uniform(20, 30)
    heart = canvas.ellipsoid(
        heart_box,
        (cx, cy, hz),
        (62 * torso.size, 46 * torso.size, 44 * torso.size),
        _rotation(0, rng.uniform(15, 30), rng.uniform(-40, -25)),
    ) + 2.0 * canvas.field(30, heart_box)
    heart_room = np.full(z.shape, np.inf, np.float32)
    heart_room[heart_box] = heart
    # Behind the heart only the oesophagus, the aorta and some fat separate the lungs.
    narrow = 15 + 13 * _smoothstep(z - hz, 5, 40)
    middle = (
        np.sqrt((x - torso.spine_x - 6) ** 2 + ((y - 4) * narrow / 84) ** 2) - narrow + 3 * canvas.field(30)
    )
    mediastinum = np.minimum(heart_room - 3, middle)

    lung = inside & (cavity > 1.5) & (above > 1.8) & (mediastinum > 0)
    air = rng.uniform(-870, -790)
    hu[lung] = (air + 22 * canvas.field(25) + (y - 20) * np.float32(0.35))[lung]
    canvas.label[lung] = 9
    everything = (slice(None), slice(None), slice(None))
    small = canvas.vessels(11, everything, 0.22)
    large = canvas.vessels(22, everything, 0.24) * np.exp(-np.maximum(mediastinum, 0) / 45)
    vessels = np.maximum(0.9 * small, 1.5 * large).clip(0, 1)
    hu += vessels * (30 - hu) * lung

    diaphragm = inside & (np.abs(above) < 1.8) & (mediastinum > -2)
    hu[diaphragm] = torso.hu["muscle"]
    blood = (heart < 0) & (above[heart_box] > 2) & (cavity[heart_box] > 3)
    chambers = [(30, 8, 0), (8, -24, -6), (-30, -2, 0), (-8, 28, 14)]
    reach = [
        np.sqrt(sum((a - c - d) ** 2 for a, c, d in zip(place, (cx, cy, hz), middle_of, strict=True)))
        for middle_of in chambers
        for place in [(x[heart_box], y[heart_box], z[heart_box])]
    ]
    first, second = np.sort(np.stack(reach), axis=0)[:2]
    left_ventricle = reach[0] <= first
    wall = (second - first < np.where(left_ventricle, 16, 5)) | (heart > np.where(left_ventricle, -9, -3))
    canvas.paint(heart_box, blood, torso.hu["heart"] + 4 * canvas.field(17, heart_box))
    canvas.paint(heart_box, blood & wall, torso.hu["heart"] * 0.45 + 40)
    fat_around = (heart > 0) & (heart < 4) & (canvas.hu[heart_box] > -200) & (above[heart_box] > 4)
    canvas.paint(heart_box, fat_around & (cavity[heart_box] > 0), -95.0)

    canvas.free = np.minimum(cavity - 1.0, -0.8 * above - 1.2).astype(np.float32)
    return dome, cavity


def _paint_vessels(canvas: _Canvas, torso: _Torso) -> None:
    """Aorta (truth), vena cava, portal and mesenteric veins, oesophagus and crura (unlabelled)."""
    rng, hu = canvas.rng, torso.hu
    front = torso.spine_front
    bend = rng.uniform(-5, 7)
    size = rng.uniform(10, 13.5) * torso.size
    path = _curve(
        [
            (18 + bend, front + 10, 130),
            (15 + bend, front + 2, 60),
            (8 + 0.5 * bend, front - size - 1, 15),
            (6 + 0.4 * bend, front - size - 2, -40),
            (4, front - size - 1, -140),
        ]
    )
    radii = np.interp(path[:, 2], [-130, 130], [size * 0.82, size * 1.08])
    box = canvas.around(path, 16)
    # The aorta leaves the chest behind the diaphragm: it is bound by neither lung nor cavity.
    distance = canvas.tube(box, path, radii) + 0.4 * canvas.field(14, box)
    aorta = distance < 0
    canvas.paint(box, aorta, hu["aorta"] + 3 * canvas.field(12, box))
    canvas.label[box][aorta] = 1
    halo = (distance >= 0) & (distance < 2) & (canvas.label[box] == 9)
    canvas.paint(box, halo, -60.0)
    canvas.label[box][halo] = 0
    canvas.free[box] = np.minimum(canvas.free[box], distance)

    for side in (-1, 1):
        crus = np.array(
            [(7 + side * 15, front + 1, -45), (9 + side * 16, front - 8, 5), (12 + side * 12, front - 16, 35)]
        )
        box = canvas.around(crus, 8)
        distance = canvas.tube(box, crus, np.array([3.0, 5.0, 4.0])) + canvas.field(12, box)
        canvas.paint(box, canvas.take(distance, box, 0.5), hu["muscle"])

    vein_x = -20 + rng.uniform(-4, 3)
    cava = _curve(
        [
            (vein_x, front - 6, -130),
            (vein_x, front - 8, -40),
            (vein_x - 3, front - 18, 10),
            (vein_x + 2, front - 26, 75),
        ]
    )
    _, portal_y, _ = torso.at(0, 0.3, 0)
    portal = _curve(
        [
            torso.at(4, 0.36, -120),
            torso.at(-2, 0.36, -40),
            torso.at(-14, 0.30, -14),
            torso.at(-42, 0.32, 6),
            torso.at(-62, 0.35, 14),
        ]
    )
    gullet = _curve([(14, front - 24, 120), (16, front - 30, 60), (32, front - 36, 38)])
    artery = _curve(
        [(8, front - size * 1.6, 2), (6, portal_y - 2, -16), (8, portal_y - 6, -70), (6, portal_y - 8, -120)]
    )
    for line, width, value in (
        (cava, rng.uniform(9.5, 12.5), hu["vein"]),
        (portal, 6.5 * torso.size, hu["vein"] * 1.02),
        (artery, 3.6, hu["aorta"]),
    ):
        box = canvas.around(line, width)
        distance = canvas.tube(box, line, np.full(len(line), width)) + 0.6 * canvas.field(14, box)
        canvas.paint(box, canvas.take(distance, box, 0.5), value)
    box = canvas.around(gullet, 8)
    distance = canvas.tube(box, gullet, np.full(len(gullet), 7.5)) + 0.8 * canvas.field(12, box)
    wall = (distance < 0) & (canvas.label[box] == 0)
    canvas.paint(box, wall, 48.0)
    canvas.paint(box, wall & (distance < -5.2), -400.0)
    canvas.free[box] = np.minimum(canvas.free[box], distance)


def _paint_kidneys(canvas: _Canvas, torso: _Torso) -> None:
    rng, hu = canvas.rng, torso.hu
    size = torso.size * rng.uniform(0.98, 1.12)
    for side, value, level in ((1, 3, rng.uniform(-42, -26)), (-1, 4, rng.uniform(-54, -38))):
        centre = (side * (70 * torso.scale_x + rng.uniform(-3, 5)), torso.spine_y + rng.uniform(-6, 4), level)
        turn = _rotation(rng.uniform(-14, -4), side * rng.uniform(-14, -6), side * rng.uniform(20, 40))
        radii = (25 * size, 29 * size, 53 * size * rng.uniform(0.92, 1.06))
        box = canvas.box(
            (centre[0] - 45, centre[1] - 45, level - 62), (centre[0] + 45, centre[1] + 45, level + 62)
        )
        surface = canvas.ellipsoid(box, centre, radii, turn) + 1.6 * canvas.field(16, box)
        # The renal sinus opens towards the midline and to the front.
        offset = turn.T @ np.array([-side * 21.0, -3.0, 0.0], np.float32)
        hilum = (centre[0] + offset[0], centre[1] + offset[1], level + offset[2])
        sinus = canvas.ellipsoid(box, hilum, (19 * size, 9 * size, 25 * size), turn) + 3.2 * canvas.field(
            9, box
        )
        kidney = canvas.take(np.maximum(surface, -sinus), box, 0.8)
        pyramids = _smoothstep(canvas.field(9, box), -0.3, 0.5) * _smoothstep(-surface, 5, 8)
        canvas.paint(
            box, kidney, hu["cortex"] + (hu["medulla"] - hu["cortex"]) * pyramids + 3 * canvas.field(12, box)
        )
        canvas.label[box][kidney] = value
        pelvis = (
            (sinus < -3.5)
            & (surface < 2)
            & (canvas.field(10, box) > -0.2)
            & ~kidney
            & (canvas.free[box] > -40)
        )
        canvas.paint(box, pelvis & (canvas.label[box] == 0), 22.0)
        stalk = np.array([hilum, (side * 12.0, torso.spine_front - 12, hilum[2] + 8)])
        box = canvas.around(stalk, 5)
        vein = canvas.tube(box, stalk, np.array([4.5, 5.0])) + 0.6 * canvas.field(12, box)
        canvas.paint(box, canvas.take(vein, box, 0.5), hu["vein"])


def _paint_liver(canvas: _Canvas, torso: _Torso, dome: Array, cavity: Array) -> None:
    """Gallbladder and liver. The liver fills the right dome and lies against wall and diaphragm; only its
    visceral surface, from low on the right to high on the left, is a shape of its own."""
    rng, hu = canvas.rng, torso.hu
    tip, slope = rng.uniform(-84, -52), rng.uniform(0.25, 0.5)
    bed_x, bed_depth, bed_z = rng.uniform(-64, -46), rng.uniform(0.55, 0.72), rng.uniform(-34, -22)
    bed = torso.at(bed_x, bed_depth, bed_z)
    pear = np.array([(bed[0] + 8, bed[1] + 16, bed_z + 15), bed, (bed[0] - 3, bed[1] - 10, bed_z - 12)])
    width = rng.uniform(9.5, 15)
    box = canvas.around(pear, width)
    bag = canvas.tube(box, pear, np.array([0.55 * width, width, 0.95 * width])) + 0.9 * canvas.field(14, box)
    gallbladder = canvas.take(bag, box, 1.0)
    canvas.paint(box, gallbladder, rng.uniform(4, 18) + 1.5 * canvas.field(14, box))
    canvas.paint(box, gallbladder & (bag > -1.6), 45.0)
    canvas.label[box][gallbladder] = 2

    box = canvas.box((-200, -200, -95), (90 * torso.scale_x, 200, 80))
    x, y, z = canvas.x[box] / torso.scale_x, canvas.y[box], canvas.z[box]
    _, hilum_y, _ = torso.at(0, 0.25, 0)
    left_end = rng.uniform(45, 80)
    lower: Array = np.interp(x, [-135, -80, -30, 20, left_end], [tip, tip + 22, -22, 2, 28]).astype(
        np.float32
    )
    lower = lower + slope * (y - hilum_y) * np.interp(x, [-90, -40], [0.25, 1])
    back = np.interp(x, [-70, -38, -8, 15, left_end], [140, 52, 32, -8, -30]).astype(np.float32) + (
        torso.spine_front - 26
    )
    extent = left_end - 0.35 * np.maximum(y - hilum_y + 40, 0)
    surface = np.maximum.reduce([0.85 * (lower - z), 0.8 * (y - back), 0.8 * (x - extent)])
    surface += 3.6 * canvas.field(26, box) + 1.2 * canvas.field(12, box)
    fissure_x = rng.uniform(4, 18)
    fissure = (
        (np.abs(x - fissure_x - 0.1 * y + 4 * canvas.field(16, box)) < 1.7)
        & (y < hilum_y + 8)
        & (z < 8 + 0.4 * (hilum_y - y))
    )
    surface = np.where(fissure, np.maximum(surface, 1.0), surface)
    surface = np.maximum(surface, -cavity[box] + 1.5)
    liver = canvas.take(surface, box, 0.3)
    # Loose crumbs between the neighbours are not liver.
    liver = _largest(liver)
    values = hu["liver"] + 3.5 * canvas.field(30, box) + 2 * canvas.field(9, box)
    tree = np.maximum(canvas.vessels(26, box, 0.17), 0.8 * canvas.vessels(17, box, 0.14))
    canvas.paint(box, liver, values + hu["vessel"] * tree * _smoothstep(-surface, 3, 12))
    if rng.random() < 0.25:
        # A simple cyst: common, harmless and a distractor.
        cyst = torso.at(rng.uniform(-105, -60), rng.uniform(0.1, 0.6), rng.uniform(-5, 30))
        near = np.sqrt((x * torso.scale_x - cyst[0]) ** 2 + (y - cyst[1]) ** 2 + (z - cyst[2]) ** 2)
        canvas.paint(box, liver & (near < rng.uniform(4, 11)), 8.0)
    canvas.label[box][liver] = 5


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _paint_spleen(canvas: _Canvas, torso: _Torso, cavity: Array) -> None:
    rng = canvas.rng
    size = torso.size * rng.uniform(0.85, 1.15)
    centre = (104 * torso.scale_x, torso.spine_y - rng.uniform(8, 22), rng.uniform(2, 18))
    turn = _rotation(0, rng.uniform(-12, 8), rng.uniform(15, 40))
    box = canvas.box(
        (centre[0] - 70, centre[1] - 75, centre[2] - 65), (centre[0] + 70, centre[1] + 75, centre[2] + 65)
    )
    body = canvas.ellipsoid(box, centre, (37 * size, 56 * size, 54 * size), turn)
    hollow = (centre[0] - 50 * size, centre[1] - 22 * size, centre[2] - 6)
    imprint = canvas.ellipsoid(box, hollow, (36 * size, 46 * size, 62 * size), turn)
    surface = np.maximum(body, -imprint) + 2.2 * canvas.field(18, box)
    surface = np.maximum(surface, -cavity[box] + 1.5)
    spleen = _largest(canvas.take(surface, box, 0.3))
    values = torso.hu["spleen"] + 2.5 * canvas.field(18, box)
    canvas.paint(box, spleen, values + 0.5 * torso.hu["vessel"] * canvas.vessels(18, box, 0.12))
    canvas.label[box][spleen] = 7


def _paint_pancreas(canvas: _Canvas, torso: _Torso) -> None:
    rng = canvas.rng
    lift = rng.uniform(-8, 6)
    arch = rng.uniform(0.40, 0.50)
    path = _curve(
        [
            torso.at(-30, 0.30, -46 + lift),
            torso.at(-26, 0.34, -24 + lift),
            torso.at(-4, arch, -12 + lift),
            torso.at(22, arch - 0.04, -4 + lift),
            torso.at(50, 0.14, 3 + lift),
            torso.at(76, -0.10 + rng.uniform(-0.05, 0.08), 8 + lift),
        ],
        count=12,
    )
    path[:, 1] += rng.normal(0, 1.2, len(path))
    size = torso.size * rng.uniform(0.88, 1.12)
    radii = (
        np.interp(np.linspace(0, 1, len(path)), [0, 0.2, 0.4, 0.6, 0.85, 1], [12, 13, 9, 9.5, 10.5, 7]) * size
    )
    box = canvas.around(path, 14)
    surface = canvas.tube(box, path, radii) + 2.0 * canvas.field(7, box) + 1.2 * canvas.field(14, box)
    pancreas = _largest(canvas.take(surface, box, 0.6))
    clefts = np.clip(0.35 - np.abs(canvas.field(6, box)), 0, 0.35) / 0.35 * _smoothstep(surface, -9, -1)
    values = torso.hu["pancreas"] - 60 * clefts + 3 * canvas.field(12, box)
    canvas.paint(box, pancreas, values)
    canvas.label[box][pancreas] = 6
    # The splenic vein runs along the back of the gland.
    vein = path[3:] + np.array([0, 9.0, 2.0])
    box = canvas.around(vein, 5)
    distance = canvas.tube(box, vein, np.full(len(vein), 4.0))
    canvas.paint(box, canvas.take(distance, box, 0.0), torso.hu["vein"])


def _paint_stomach(canvas: _Canvas, torso: _Torso) -> None:
    rng = canvas.rng
    filling = rng.uniform(0.72, 1.12)
    drop = rng.uniform(-12, 10)
    antrum_end = rng.uniform(-22, 0)
    path = _curve(
        [
            torso.at(66, 0.12, 38),
            torso.at(72, 0.34, 18),
            torso.at(64, 0.62, -6 + drop),
            torso.at(38, 0.74, -24 + drop),
            torso.at(14, 0.74, -28 + drop),
            torso.at(antrum_end, 0.68, -24 + drop),
        ],
        count=13,
    )
    radii = np.interp(np.linspace(0, 1, len(path)), [0, 0.25, 0.5, 0.7, 1], [33, 34, 27, 20, 13]) * filling
    box = canvas.around(path, 40)
    surface = canvas.tube(box, path, radii) + 2.4 * canvas.field(24, box)
    stomach = _largest(canvas.take(surface, box, 0.8))
    thickness = rng.uniform(3.5, 6) + 1.2 * canvas.field(12, box)
    # Depth below the organ's real outline, which its neighbours dent.
    inside = ndimage.distance_transform_edt(
        stomach, sampling=[abs(float(np.diff(axis[:2])[0])) for axis in canvas.axes]
    )
    lumen = stomach & (inside > thickness)
    canvas.paint(box, stomach, torso.hu["wall"] + 6 * canvas.field(8, box))
    meal = rng.random()
    if meal < 0.55:
        content = rng.uniform(8, 32) + 4 * canvas.field(12, box)
    elif meal < 0.8:
        grain = canvas.field(5, box) + 0.6 * canvas.field(11, box)
        content = np.where(grain > 1.5, -350, 38 + 26 * grain)
    else:
        content = rng.uniform(140, 260) + 12 * canvas.field(12, box)
    canvas.paint(box, lumen, content)
    # Supine: gas collects in front above a level that is flat across the whole lumen.
    if lumen.any():
        heights = np.broadcast_to(canvas.axes[1][None, box[1], None], lumen.shape)
        surface_y = np.quantile(heights[lumen], rng.uniform(0.05, 0.38))
        canvas.paint(box, lumen & (heights < surface_y), -960.0)
    canvas.label[box][stomach] = 8


def _paint_bowel(canvas: _Canvas, torso: _Torso, cavity: Array) -> None:
    """Colon and small bowel loops with gas, stool and fluid: unlabelled distractors that fill the front."""
    rng = canvas.rng
    rise = rng.uniform(-14, 12)
    routes = [
        _curve([torso.at(-104, 0.05, -150), torso.at(-108, 0.08, -80), torso.at(-98, 0.3, -52)]),
        _curve(
            [
                torso.at(-96, 0.36, -54 + rise),
                torso.at(-60, 0.82, -62 + rise),
                torso.at(0, 0.92, -58 + rise),
                torso.at(64, 0.84, -42 + rise),
                torso.at(104, 0.4, -6),
            ]
        ),
        _curve(
            [
                torso.at(106, 0.36, -4),
                torso.at(118, 0.02, -30),
                torso.at(118, -0.02, -90),
                torso.at(112, 0.05, -150),
            ]
        ),
        _curve(
            [
                torso.at(-16, 0.62, -26),
                torso.at(-44, 0.42, -22),
                torso.at(-50, 0.22, -46),
                torso.at(-20, 0.2, -72),
                torso.at(24, 0.24, -62),
            ]
        ),
    ]
    for number, path in enumerate(routes):
        colon = number < 3
        base = rng.uniform(15, 22) if colon else rng.uniform(9, 12)
        pulse = 1 + (0.16 * np.sin(np.arange(len(path)) * rng.uniform(1.5, 2.4)) if colon else 0)
        box = canvas.around(path, base + 5)
        surface = canvas.tube(box, path, base * pulse * np.ones(len(path))) + 1.8 * canvas.field(13, box)
        surface = np.maximum(surface, -cavity[box] + 2)
        loop = canvas.take(surface, box, 1.0)
        canvas.paint(box, loop, torso.hu["wall"] * 0.85)
        lumen = loop & (surface < -2.4)
        stool = canvas.field(5, box) + canvas.field(12, box)
        canvas.paint(box, lumen, np.where(stool > 0.9, -500, 25 + 22 * stool) if colon else 22 + 6 * stool)
        heights = np.broadcast_to(canvas.axes[1][None, box[1], None], lumen.shape)
        if lumen.any() and colon:
            gas_to = float(path[:, 1].mean()) + rng.uniform(-16, 8)
            canvas.paint(box, lumen & (heights < gas_to), -940.0)

    box = canvas.box((-130, -130, -140), (130, 40, -2))
    loops = canvas.field(12, box, stretch=(1.0, 0.85, 1.1))
    # Visceral fat keeps the loops apart.
    threshold = -0.35 + 0.6 * torso.visceral_fat
    room = np.minimum(canvas.free[box] - 2, 12)
    behind = _smoothstep(canvas.y[box], torso.spine_front - 20, torso.spine_front + 10)
    level = loops - threshold - 1.2 * behind - 0.35 * _smoothstep(canvas.z[box], -30, 10)
    bowel = (level > 0) & (room > 0)
    content = canvas.field(16, box)
    folds = (level < 0.34) | (np.abs(canvas.field(10, box)) < 0.16)
    values = np.where(folds, torso.hu["wall"] * 1.05, 22 + 12 * content)
    oral = rng.random() < 0.3
    values = np.where(~folds & (content > (0.2 if oral else 9)), 190 + 30 * content, values)
    values = np.where(
        (level > 0.55) & (content < -0.95) & (canvas.y[box] < torso.spine_front - 35), -920, values
    )
    canvas.paint(box, bowel, values + 6 * canvas.field(7, box))
    canvas.free[box] = np.where(bowel, -1, canvas.free[box])
    fat = (canvas.free[box] > 1.5) & (canvas.label[box] == 0) & (cavity[box] > 4) & ~bowel
    twigs = canvas.vessels(13, box, 0.2)
    canvas.paint(box, fat & (twigs > 0.3), -105 + 190 * twigs)


def _paint_table(canvas: _Canvas, torso: _Torso) -> None:
    rng = canvas.rng
    x = canvas.axes[0][:, None, None]
    y = canvas.axes[1][None, :, None]
    top = torso.half_depth + rng.uniform(3, 9) - (x / 210) ** 2 * rng.uniform(15, 45)
    below = np.broadcast_to(y - top, canvas.hu.shape)
    across = np.broadcast_to(np.abs(x) < 205, canvas.hu.shape)
    air = canvas.hu < -950
    edge = 1.3 * abs(float(np.diff(canvas.axes[1][:2])[0]))
    outside = air & across & (canvas.label == 0) & (below > 0)
    canvas.hu[outside & (below < 26)] = -930
    canvas.hu[outside & ((below < edge) | (np.abs(below - 26) < 0.5 * edge))] = -250


def _scan(canvas: _Canvas, spacing: Point) -> NDArray[np.int16]:
    """Partial volume, correlated quantum noise (stronger in the middle of the body) and storage as int16."""
    rng = canvas.rng
    blur = [min(rng.uniform(0.9, 1.3) / edge, 0.65) for edge in spacing]
    hu = ndimage.gaussian_filter(canvas.hu, blur, truncate=3)
    grain = rng.standard_normal(hu.shape, dtype=np.float32)
    correlation = rng.uniform(0.5, 0.9)
    # Filtered back projection leaves little noise at the lowest frequencies.
    noise = ndimage.gaussian_filter(grain, (correlation, correlation, 0.25), truncate=3)
    noise -= ndimage.uniform_filter(noise, (7, 7, 1))
    noise /= noise.std()
    x, y = canvas.axes[0][:, None, None], canvas.axes[1][None, :, None]
    noise *= rng.uniform(7, 20) * (0.7 + 0.6 * np.exp(-(x**2 + y**2) / 100.0**2))
    # The reconstruction adds less noise in air, whose attenuation is close to nothing.
    noise *= np.clip((hu + 1250) / 1000, 0.35, 1)
    return np.asarray(np.clip(np.round(hu + noise), -1024, 3071), np.int16)


def ct_phantom(
    seed: int,
    shape: tuple[int, int, int] = (192, 192, 64),
    spacing: tuple[float, float, float] = (2.0, 2.0, 3.0),
) -> Phantom:
    """A contrast-enhanced CT torso from the lung bases to the kidneys.

    Voxel order is LPS: the first index grows to the patient's left, the second to posterior, the third to
    superior; the affine says so in RAS+ mm as diag(-sx, -sy, sz) with the centre of the volume near the
    origin. Anatomy keeps its size in mm: a field of view below about 380 x 280 x 190 mm cuts structures,
    a coarser spacing samples the same patient more coarsely.

    Args:
        seed: chooses the patient: build, organ sizes and places, contrast phase, noise.
        shape: voxels along X, Y, Z, at least 8 each.
        spacing: voxel edges in mm, above 0.

    Returns:
        Image int16 in HU (-1024 to 3071) with labels `CT_LABELS`; the text is empty.

    Raises:
        ValueError: the shape or the spacing is outside its range.
    """
    if len(shape) != 3 or min(shape) < 8:
        raise ValueError(f"shape must be three numbers of at least 8, not {shape}")
    if len(spacing) != 3 or min(spacing) <= 0:
        raise ValueError(f"spacing must be three lengths above 0 mm, not {spacing}")
    rng = np.random.default_rng(seed)
    torso = _Torso.draw(rng)
    offset = (rng.uniform(-6, 6), rng.uniform(-6, 6), rng.uniform(-14, -2))
    canvas = _Canvas(rng, shape, spacing, offset)
    _, cavity = _paint_wall(canvas, torso)
    dome, cavity = _paint_cavity(canvas, torso, cavity)
    _paint_vessels(canvas, torso)
    _paint_kidneys(canvas, torso)
    _paint_spleen(canvas, torso, cavity)
    _paint_pancreas(canvas, torso)
    _paint_liver(canvas, torso, dome, cavity)
    _paint_stomach(canvas, torso)
    _paint_bowel(canvas, torso, cavity)
    if rng.random() < 0.75:
        _paint_table(canvas, torso)
    image = _scan(canvas, spacing)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [-canvas.axes[0][0], -canvas.axes[1][0], canvas.axes[2][0]]
    return Phantom(image, canvas.label, affine, "CT", dict(CT_LABELS), "")


# --------------------------------------------------------------------------------------------------
# chest X-ray; places are fractions of the picture, u to the right and v down

_OVERSAMPLING = 3


class _Film:
    """Antialiased drawing of shapes given in fractions of the picture."""

    def __init__(self, size: int) -> None:
        self.size = size

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

    def strokes(self, lines: Iterable[tuple[Array, float, float]]) -> NDArray[np.float32]:
        """Polylines (n, 2) with a width as a fraction of the picture and a grey value 0-1."""
        items = list(lines)

        def pen(sheet: ImageDraw.ImageDraw, side: int) -> None:
            for line, width, grey in items:
                corners = [(float(u) * side, float(v) * side) for u, v in line]
                sheet.line(corners, fill=round(255 * grey), width=max(1, round(width * side)), joint="curve")

        return self.draw(pen)

    def blur(self, picture: Array, sigma: float) -> Array:
        return np.asarray(ndimage.gaussian_filter(picture, sigma * self.size, mode="nearest"))


def _lung_outlines(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Outlines of the image-left lung, the image-right lung and heart with mediastinum, jittered together."""
    left = np.array(
        [
            (0.375, 0.13),
            (0.29, 0.16),
            (0.21, 0.28),
            (0.155, 0.45),
            (0.125, 0.62),
            (0.115, 0.735),
            (0.135, 0.752),
            (0.20, 0.685),
            (0.29, 0.655),
            (0.37, 0.68),
            (0.455, 0.735),
            (0.465, 0.60),
            (0.46, 0.40),
            (0.45, 0.22),
            (0.425, 0.145),
        ]
    )
    right = left.copy()
    right[:, 0] = 1 - right[:, 0]
    right[7:11, 1] += 0.025
    heart = np.array(
        [
            (0.445, 0.02),
            (0.445, 0.15),
            (0.437, 0.25),
            (0.435, 0.36),
            (0.43, 0.44),
            (0.405, 0.53),
            (0.395, 0.62),
            (0.42, 0.72),
            (0.44, 0.83),
            (0.60, 0.83),
            (0.70, 0.765),
            (0.722, 0.70),
            (0.695, 0.61),
            (0.645, 0.52),
            (0.592, 0.44),
            (0.572, 0.395),
            (0.577, 0.345),
            (0.588, 0.305),
            (0.572, 0.268),
            (0.552, 0.24),
            (0.55, 0.14),
            (0.55, 0.02),
        ]
    )
    width, height, shift_v = rng.uniform(0.92, 1.18), rng.uniform(0.9, 1.14), rng.uniform(-0.02, 0.05)
    tilt = rng.uniform(-0.04, 0.04)
    inspiration = rng.uniform(-0.05, 0.05)
    heart_size = rng.uniform(0.9, 1.28)
    swell = np.where(heart[:, 1] > 0.4, heart_size, 1.0)
    heart[:, 0] = 0.5 + (heart[:, 0] - 0.5) * swell
    placed = []
    for outline in (left, right, heart):
        outline = outline.copy()
        outline[:, 1] += inspiration * _smoothstep(outline[:, 1], 0.4, 0.75)
        outline += rng.normal(0, 0.006, outline.shape)
        u, v = outline[:, 0] - 0.5, outline[:, 1] - 0.45
        outline[:, 0] = 0.5 + width * u + tilt * v
        outline[:, 1] = 0.45 + shift_v + height * v - tilt * u
        placed.append(outline)
    return placed[0], placed[1], placed[2]


def _rib_lines(rng: np.random.Generator, lungs: tuple[Array, Array]) -> list[tuple[Array, float, float]]:
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
            open_to = reach * (0.52 + 0.48 * _smoothstep(descent, top, top + 0.55 * (bottom - top)))
            ring = np.stack([0.5 + side * (0.03 + (open_to - 0.03) * np.sin(angle)), descent], axis=1)
            back = angle < np.pi / 2 + 0.1
            lines.append((ring[back], thick, 1.0))
            lines.append((ring[~back], thick * 1.15, 0.55))
    return lines


def _vessel_lines(
    rng: np.random.Generator, hilum: tuple[float, float], side: int
) -> list[tuple[Array, float, float]]:
    """A branching tree from the hilum towards the periphery."""
    lines: list[tuple[Array, float, float]] = []
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


def _opacities(
    rng: np.random.Generator, size: int, lung: Array, lungs: Sequence[Array]
) -> tuple[Array, Array]:
    """Hazy opacities in the visible lung: their strength 0-1 and the truth."""
    axis = (np.arange(size) + 0.5) / size
    field = _SmoothField(rng, (axis, axis), 1.0)
    v, u = axis[:, None], axis[None, :]
    haze = np.zeros((size, size), np.float32)
    count = int(rng.choice(5, p=[0.12, 0.25, 0.33, 0.18, 0.12]))
    sides = rng.permutation([0, 1, 0, 1])[:count] if count != 2 or rng.random() < 0.4 else np.array([0, 1])
    for side in sides:
        outline = lungs[int(side)]
        low, high = outline.min(axis=0), outline.max(axis=0)
        # Disease prefers the lower and outer lung.
        depth = rng.beta(2.6, 1.6)
        across = rng.beta(1.6, 1.9)
        outward = 1 - across if side == 0 else across
        centre_u = low[0] + outward * (high[0] - low[0])
        centre_v = low[1] + depth * (high[1] - low[1])
        extent = rng.uniform(0.06, 0.16) if rng.random() < 0.7 else rng.uniform(0.16, 0.34)
        radius_u, radius_v = extent * rng.uniform(0.7, 1.1), extent * rng.uniform(0.8, 1.5)
        ragged = 0.17 * field(0.06) + 0.07 * field(0.025)
        shape = np.sqrt(((u - centre_u) / radius_u) ** 2 + ((v - centre_v) / radius_v) ** 2) + ragged
        strength = rng.uniform(0.6, 1.0)
        haze = np.maximum(haze, strength * _smoothstep(-shape, -1.25, -0.62))
    truth = (haze > 0.2) & (lung > 0.5)
    truth = ndimage.binary_opening(ndimage.binary_fill_holes(truth), iterations=max(1, size // 200))
    parts, found = ndimage.label(truth, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=found + 1)
    keep = sizes >= max(12, 0.002 * size * size)
    keep[0] = False
    truth = keep[parts]
    # What was too small for the truth must not be visible either.
    near = np.clip(ndimage.gaussian_filter(truth.astype(np.float32), 0.012 * size) * 2, 0, 1)
    patchy = 0.85 + 0.11 * field(0.035) + 0.06 * field(0.012)
    return haze * near * np.clip(patchy, 0.3, 1.3), truth


def infection_sentence(truth: Array, left_span: tuple[float, float], right_span: tuple[float, float]) -> str:
    """The finding in the wording of text-guided chest X-ray data; sides are sides of the image.

    Areas are connected regions. A region names the thirds of its lung's height that hold at least a
    fifth of it; a lung with one region over all three thirds is 'all', several regions together list theirs.

    Args:
        truth: (H, W), above 0 where the lung is infected.
        left_span: first and last row of the lung in the left half of the image.
        right_span: the same of the right half.
    """
    parts, count = ndimage.label(np.asarray(truth) > 0, np.ones((3, 3)))
    if count == 0:
        return "no pulmonary infection."
    middle = truth.shape[1] // 2
    phrases = []
    for side, (top, bottom), half in (
        ("left", left_span, parts[:, :middle]),
        ("right", right_span, parts[:, middle:]),
    ):
        named: set[str] = set()
        whole = False
        for number in np.unique(half[half > 0]):
            rows = np.nonzero(half == number)[0]
            third = np.clip(((rows - top) / max(bottom - top, 1) * 3).astype(int), 0, 2)
            share = np.bincount(third, minlength=3) / len(third)
            zones = {zone for zone, part in zip(ZONES, share, strict=True) if part >= 0.2}
            whole |= len(zones) == 3
            named |= zones
        if named:
            words = "all" if whole else " ".join(zone for zone in ZONES if zone in named)
            phrases.append(f"{words} {side} lung")
    spread = "bilateral" if len(phrases) == 2 else "unilateral"
    number_word = COUNT_WORDS[count] if count < len(COUNT_WORDS) else "many"
    areas = "area" if count == 1 else "areas"
    return f"{spread} pulmonary infection, {number_word} infected {areas}, {' and '.join(phrases)}."


def xray_phantom(seed: int, size: int = 256) -> Phantom:
    """A frontal chest radiograph with none to a few hazy opacities.

    Args:
        seed: chooses the patient, the exposure and the disease.
        size: height and width in pixels, at least 64.

    Returns:
        Image uint8 (size, size), bright where dense; labels `XRAY_LABELS`; the text names number and zones
        of the opacities ('no pulmonary infection.' where there is none), with sides of the image.

    Raises:
        ValueError: the size is too small.
    """
    if size < 64:
        raise ValueError(f"size must be at least 64 pixels, not {size}")
    rng = np.random.default_rng(seed)
    film = _Film(size)
    axis = (np.arange(size) + 0.5) / size
    v, u = axis[:, None], axis[None, :]
    field = _SmoothField(rng, (axis, axis), 1.0)
    left, right, heart_outline = _lung_outlines(rng)
    lungs = [film.area(left), film.area(right)]
    lung = np.maximum(*lungs)
    heart = film.area(heart_outline)
    visible = lung * (1 - heart)

    # Soft tissue: shoulders, trunk, neck.
    chest = max(0.5 - left[:, 0].min(), right[:, 0].max() - 0.5)
    wall = chest + rng.uniform(0.035, 0.13)
    shoulder = rng.uniform(0.13, 0.2)
    half_width = np.interp(
        axis,
        [0, shoulder - 0.1, shoulder - 0.02, shoulder + 0.06, 0.45, 1],
        [0.15, 0.2, 0.36, 0.54, wall, wall + 0.02],
    )[:, None]
    half_width = np.asarray(ndimage.gaussian_filter1d(half_width, 0.02 * size, axis=0, mode="nearest"))
    inside = np.clip(1 - (np.abs(u - 0.5 + 0.01 * field(0.25)) / half_width) ** 5, 0, 1)
    body = np.sqrt(inside) * (0.62 + 0.16 * _smoothstep(v, 0.55, 0.95))
    arm = wall + 0.075
    arms = np.clip(1 - ((np.abs(u - 0.5) - arm) / 0.06) ** 2, 0, 1) * _smoothstep(
        v, shoulder, shoulder + 0.12
    )
    body = np.maximum(body, 0.42 * np.sqrt(arms) * rng.choice([0.0, 1.0], p=[0.4, 0.6]))

    depth = sum(np.tanh(ndimage.distance_transform_edt(part > 0.5) / (0.05 * size)) * part for part in lungs)
    depth = film.blur(np.asarray(depth), 0.004)
    aeration = rng.uniform(0.34, 0.46)
    dense = body - aeration * depth
    core = np.tanh(ndimage.distance_transform_edt(heart > 0.5) / (0.035 * size)) * heart
    dense += film.blur(core, 0.003) * (
        rng.uniform(0.05, 0.1) * lung + rng.uniform(0.68, 0.85) * aeration * depth
    )
    dense += 0.06 * np.exp(-(((u - 0.5) / 0.055) ** 2)) * _smoothstep(v, 0.0, 0.1)

    # Spine, airway and bones.
    pitch = rng.uniform(0.05, 0.06)
    discs = 0.5 + 0.5 * np.cos(2 * np.pi * v / pitch + rng.uniform(0, 6))
    spine = film.blur((np.abs(u - 0.5) < 0.034).astype(np.float32) * np.ones_like(v), 0.004)
    dense += spine * (0.035 + 0.025 * discs**4)
    fork = heart_outline[:, 1].min() + rng.uniform(0.31, 0.36)
    lean = rng.uniform(-0.012, 0.004)
    airway = film.strokes(
        [
            (np.array([(0.5, 0.0), (0.497 + lean, 0.2), (0.497 + lean, fork)]), 0.036, 1.0),
            (np.array([(0.497 + lean, fork), (0.44, fork + 0.075)]), 0.024, 0.8),
            (np.array([(0.497 + lean, fork), (0.57, fork + 0.085)]), 0.022, 0.8),
        ]
    )
    dense -= 0.085 * film.blur(airway, 0.006)
    ribs = _rib_lines(rng, (left, right))
    full = film.strokes(ribs)
    hollow = film.strokes([(line, width * 0.55, grey) for line, width, grey in ribs])
    # A tube of cortical bone is densest at its rims.
    dense += rng.uniform(0.055, 0.09) * film.blur(0.55 * full + 0.75 * np.clip(full - hollow, 0, 1), 0.0025)
    collar = []
    blade = []
    rise = rng.uniform(-0.02, 0.05)
    apex = min(left[:, 1].min(), right[:, 1].min())
    for side in (-1, 1):
        tilt = rng.normal(0, 0.008)
        bone = [
            (0.045, apex + 0.085),
            (0.13, apex + 0.07 - 0.3 * rise),
            (0.24, apex + 0.028 - rise + tilt),
            (0.37, apex - 0.005 - rise + tilt),
        ]
        collar.append((_plane_curve([(0.5 + side * a, b) for a, b in bone]), 0.026, 1.0))
        rim = [(0.31, apex + 0.03), (0.335, apex + 0.13), (0.30, apex + 0.26), (0.27, apex + 0.335)]
        blade.append((_plane_curve([(0.5 + side * (a + chest - 0.36), b) for a, b in rim]), 0.016, 0.8))
        blade.append(
            (
                np.array([(0.5 + side * (chest + 0.05), apex), (0.5 + side * (chest + 0.13), apex + 0.05)]),
                0.05,
                0.7,
            )
        )
    clavicles = film.strokes(collar)
    rims = np.clip(
        clavicles - film.strokes([(line, width * 0.5, grey) for line, width, grey in collar]), 0, 1
    )
    dense += rng.uniform(0.07, 0.11) * film.blur(0.6 * clavicles + 0.5 * rims, 0.003)
    dense += rng.uniform(0.03, 0.06) * film.blur(film.strokes(blade), 0.005)

    # Lung markings, breasts, gas below the diaphragm.
    hilum_v = heart_outline[:, 1].min() + 0.43
    tree = film.strokes(
        _vessel_lines(rng, (0.44, hilum_v), -1) + _vessel_lines(rng, (0.565, hilum_v - 0.015), 1)
    )
    hila = sum(np.exp(-(((u - hu) / 0.03) ** 2) - ((v - hilum_v) / 0.055) ** 2) for hu in (0.425, 0.585))
    haze, truth = _opacities(rng, size, visible, (left, right))
    markings = rng.uniform(0.055, 0.11) * (1 - 0.6 * haze)
    dense += markings * film.blur(tree, 0.0022) * depth.clip(0, 1) + 0.06 * hila * depth.clip(0, 1)
    dense += 0.010 * field(0.012) * depth.clip(0, 1)
    if rng.random() < 0.5:
        big = rng.uniform(0.13, 0.19)
        fold = rng.uniform(0.58, 0.7)
        for side in (-1, 1):
            bag = ((u - 0.5 - side * 0.235) / big) ** 2 + ((v - fold) / (0.8 * big)) ** 2
            dense += rng.uniform(0.05, 0.1) * np.clip(1 - bag, 0, 1) ** 0.5 * _smoothstep(v, fold - big, fold)
    floor = right[7:10, 1].mean()
    for _ in range(int(rng.integers(1, 5))):
        place_u, place_v = rng.uniform(0.58, 0.76), floor + rng.uniform(0.07, 0.2)
        bubble = ((u - place_u) / rng.uniform(0.02, 0.06)) ** 2 + (
            (v - place_v) / rng.uniform(0.015, 0.035)
        ) ** 2
        dense -= rng.uniform(0.04, 0.13) * _smoothstep(-bubble - 0.2 * field(0.03), -1.2, -0.4)

    dense += 0.72 * aeration * haze * depth.clip(0, 1)
    image = _expose(rng, film, field, dense)

    spans = [
        (float(outline[:, 1].min() * size), float(outline[:, 1].max() * size)) for outline in (left, right)
    ]
    text = infection_sentence(truth, spans[0], spans[1])
    return Phantom(image, truth.astype(np.uint8), None, "X-ray", dict(XRAY_LABELS), text)


def _plane_curve(points: Sequence[tuple[float, float]]) -> Array:
    return _curve([(a, b, 0.0) for a, b in points], count=20)[:, :2]


def _expose(rng: np.random.Generator, film: _Film, field: _SmoothField, dense: Array) -> NDArray[np.uint8]:
    """Scatter, quantum noise, the detector's curve, and what else lies on a film."""
    size = film.size
    scatter = rng.uniform(0.1, 0.3)
    dense = (1 - scatter) * dense + scatter * film.blur(dense, 0.09)
    if rng.random() < 0.15:
        leads = []
        for _ in range(int(rng.integers(1, 3))):
            corners = [(rng.uniform(0, 1), rng.uniform(0.1, 1)) for _ in range(4)]
            leads.append((_plane_curve(corners), 0.006, 1.0))
        dense = dense + 0.16 * film.blur(film.strokes(leads), 0.002)
    noise = ndimage.gaussian_filter(rng.standard_normal(dense.shape, dtype=np.float32), rng.uniform(0.4, 0.9))
    dense = dense + rng.uniform(0.006, 0.016) * noise / noise.std() + 0.012 * field(0.3)
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


# --------------------------------------------------------------------------------------------------
# H&E histology; lengths are pixels at 0.25 um

# Optical density of the two stains in red, green and blue, as scanned slides show them.
_HAEMATOXYLIN = np.array([0.61, 0.68, 0.41])
_EOSIN = np.array([0.20, 0.87, 0.45])


@dataclass(frozen=True)
class _Nuclei:
    """Centres (n, 2) in rows and columns, half axes (n, 2), directions in radians, kinds.

    Kinds: 0 vesicular (pale inside, dark rim, nucleolus), 1 dense, 2 spindle.
    """

    centre: Array
    axes: Array
    direction: Array
    kind: Array


def _tissue(rng: np.random.Generator, field: _SmoothField, size: int) -> dict[str, Array]:
    """Maps 0-1 of lumen and epithelium (the rest is stroma) and of how dense nuclei lie."""
    pattern = str(rng.choice(["glands", "sheet", "lymphoid", "stroma"], p=[0.4, 0.28, 0.14, 0.18]))
    coarse = field(rng.uniform(60, 95)) + 0.25 * field(25)
    fine = 0.12 * field(9)
    if pattern == "glands":
        epithelium = _smoothstep(coarse + fine, -0.45, -0.35)
        lumen = _smoothstep(coarse + fine - rng.uniform(1.0, 1.35), 0, 0.07)
    elif pattern == "sheet":
        epithelium = _smoothstep(coarse + fine + rng.uniform(0.9, 1.7), 0, 0.1)
        lumen = _smoothstep(np.abs(field(40)) * -1 + 0.035 + 0.3 * fine, 0, 0.06) * _smoothstep(
            coarse, 0, 0.3
        )
    elif pattern == "lymphoid":
        epithelium = _smoothstep(coarse + 1.8, 0, 0.1)
        lumen = _smoothstep(field(14) + 0.5 * field(7) - rng.uniform(0.9, 1.5), 0, 0.1)
    else:
        epithelium = _smoothstep(coarse + fine - 1.1, 0, 0.1)
        lumen = _smoothstep(field(22) + fine - rng.uniform(1.5, 2.0), 0, 0.1)
    epithelium = epithelium * (1 - lumen)
    crowd = {"glands": (1.0, 0.35), "sheet": (1.0, 0.4), "lymphoid": (1.0, 0.5), "stroma": (0.8, 0.4)}[
        pattern
    ]
    pale = {"glands": 1.0, "sheet": 1.0, "lymphoid": 0.45, "stroma": 1.0}[pattern]
    density = crowd[0] * epithelium + crowd[1] * (1 - epithelium) * (1 - lumen)
    if rng.random() < 0.5:
        # One side may be more cellular than the other.
        angle = rng.uniform(0, 2 * np.pi)
        axis = np.linspace(-1, 1, size)
        slope = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
        density = density * np.clip(0.75 + rng.uniform(0.3, 0.7) * slope, 0.1, 1.3)
    scale = {"glands": 1.0, "sheet": 1.1, "lymphoid": 0.72, "stroma": 0.85}[pattern]
    dense_share = {"glands": 0.25, "sheet": 0.25, "lymphoid": 0.9, "stroma": 0.55}[pattern]
    return {
        "lumen": lumen,
        "epithelium": epithelium,
        "density": density,
        "pale": np.float32(pale),
        "scale": np.float32(scale),
        "dense_share": np.float32(dense_share if rng.random() < 0.7 else rng.uniform(0, 1)),
    }


def _place_nuclei(rng: np.random.Generator, tissue: dict[str, Array], fibre: Array, size: int) -> _Nuclei:
    """Random sequential placement: a nucleus is kept where the tissue wants one and has room for it."""
    radius = rng.uniform(10.5, 15) * float(tissue["scale"])
    spacing = radius * rng.uniform(1.6, 2.3)
    room = size + 40
    tries = int(rng.uniform(1.5, 3.5) * (room / spacing) ** 2)
    centre = rng.uniform(-20, size + 20, (tries, 2))
    inside = np.clip(centre.astype(int), 0, size - 1)
    wanted = tissue["density"][inside[:, 0], inside[:, 1]]
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
    in_stroma = tissue["epithelium"][inside[:, 0], inside[:, 1]] < 0.5
    kind = (rng.random(count) < float(tissue["dense_share"])).astype(int)
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
    return _Nuclei(centre, axes, direction, kind)


def _stain_nuclei(
    rng: np.random.Generator, nuclei: _Nuclei, field: _SmoothField, size: int
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


def histology_sentence(truth: Array) -> str:
    """How the nuclei are distributed, in the wording of text-guided H&E data.

    Args:
        truth: (H, W), above 0 in nuclei.
    """
    nuclei = np.asarray(truth) > 0
    share = float(nuclei.mean())
    if share == 0:
        return "No nuclei are visible."
    rows, columns = (np.array_split(np.arange(length), 4) for length in nuclei.shape)
    cells = np.array([[nuclei[np.ix_(row, column)].mean() for column in columns] for row in rows]) / share
    quarters = {
        "upper left": cells[:2, :2].mean(),
        "upper right": cells[:2, 2:].mean(),
        "lower left": cells[2:, :2].mean(),
        "lower right": cells[2:, 2:].mean(),
    }
    halves = {
        "upper": cells[:2].mean(),
        "lower": cells[2:].mean(),
        "left": cells[:, :2].mean(),
        "right": cells[:, 2:].mean(),
    }
    half = max(halves, key=lambda name: halves[name])
    quarter = max(quarters, key=lambda name: quarters[name])
    within = [value for name, value in quarters.items() if half in name]
    if halves[half] > 1.25 and max(within) < 1.3 * min(within):
        return f"The nuclei density in the {half} is high."
    if quarters[quarter] > 1.35:
        return f"The nuclei density in the {quarter} is high."
    if share < 0.12:
        return "The nuclei are sparsely distributed."
    if cells.std() < 0.3:
        return "The nuclei are evenly distributed."
    return "The nuclei are irregularly distributed."


def histology_phantom(seed: int, size: int = 512) -> Phantom:
    """An H&E tile at 40x (0.25 um a pixel): stroma, epithelium, lumina and nuclei.

    Args:
        seed: chooses tissue, nuclei, stain and scanner.
        size: height and width in pixels, at least 64; a smaller tile shows less tissue, not smaller nuclei.

    Returns:
        Image uint8 RGB (size, size, 3); labels `HISTOLOGY_LABELS`; the text says how the nuclei lie.

    Raises:
        ValueError: the size is too small.
    """
    if size < 64:
        raise ValueError(f"size must be at least 64 pixels, not {size}")
    rng = np.random.default_rng(seed)
    axis = np.arange(size, dtype=np.float32) - size / 2
    field = _SmoothField(rng, (axis, axis), 64.0)
    tissue = _tissue(rng, field, size)
    lumen, epithelium = tissue["lumen"], tissue["epithelium"]
    stroma = (1 - epithelium) * (1 - lumen)

    # Collagen runs along the level lines of a smooth potential: bundles curve but never cross.
    potential = (
        field(110) * 150
        + field(40) * 22
        + axis[:, None] * rng.uniform(-1, 1)
        + axis[None, :] * rng.uniform(-1, 1)
    )
    gy, gx = np.gradient(potential)
    fibre = np.arctan2(gx, -gy)
    # Fibres: noise that is fine across the bundles and long along them, in three widths.
    across = rng.standard_normal((512, 64))
    along = (axis[:, None] * rng.uniform(0.4, 1) - axis[None, :] * rng.uniform(0.4, 1) + 12 * field(30)) / 26
    waves = sum(
        gain
        * ndimage.map_coordinates(across, [potential / width + 97 * width, along], order=1, mode="grid-wrap")
        for width, gain in ((1.8, 0.7), (4.0, 0.8), (9.0, 0.7))
    )
    nuclei = _place_nuclei(rng, tissue, fibre, size)
    haematoxylin, mask = _stain_nuclei(rng, nuclei, field, size)

    grain = 0.6 * field(1.7) + 0.5 * field(4)
    eosin = stroma * (0.55 + 0.15 * waves + 0.08 * grain + 0.12 * field(45))
    clefts = _smoothstep(field(10, stretch=(1.0, 1.0)) + 0.5 * waves, 1.3, 2.0) * stroma
    eosin *= 1 - 0.75 * clefts
    cytoplasm = 0.42 + 0.08 * grain + 0.08 * field(18) + 0.1 * field(60)
    if len(nuclei.centre) > 3:
        # Borders of cells lie halfway between neighbouring nuclei.
        grid = np.stack(np.meshgrid(np.arange(0, size, 2), np.arange(0, size, 2), indexing="ij"), axis=-1)
        drift = 3.0 * np.stack([field(14)[::2, ::2], field(14)[::2, ::2]], axis=-1)
        nearest = cKDTree(nuclei.centre).query(grid + drift, k=2)[0]
        border = np.exp(-(((nearest[..., 1] - nearest[..., 0]) / 3.5) ** 2))
        border = ndimage.zoom(border, 2, order=1)[:size, :size]
        border = np.pad(border, [(0, size - border.shape[0]), (0, size - border.shape[1])], mode="edge")
        membrane = rng.uniform(-0.3, 0.3)
        cytoplasm = cytoplasm + membrane * border
    eosin += epithelium * np.clip(cytoplasm, 0.03, None) * rng.uniform(0.7, 1.25) * tissue["pale"]
    eosin *= rng.uniform(0.8, 1.3)
    # Secretion and debris in the lumina, red cells in some tissues.
    eosin += lumen * np.clip(0.02 + 0.06 * (field(7) > 1.6), 0, 1)
    rim = _smoothstep(lumen, 0.05, 0.5) * (1 - _smoothstep(lumen, 0.5, 0.95))
    eosin += 0.12 * rim
    basophilia = epithelium * rng.uniform(0.03, 0.26) * (1 + 0.3 * grain) + 0.03 * stroma
    haematoxylin = haematoxylin + np.where(mask, 0.3, 1.0) * basophilia
    eosin = eosin * np.where(mask, rng.uniform(0.35, 0.7), 1.0)
    red = np.zeros_like(lumen)
    if rng.random() < 0.45:
        red = _red_cells(rng, field, stroma + 0.5 * lumen, mask, size)
    image = _compose_stains(rng, field, haematoxylin, np.clip(eosin, 0, None) * (1 - red), red)
    truth = mask.astype(np.uint8)
    return Phantom(image, truth, None, "H&E", dict(HISTOLOGY_LABELS), histology_sentence(truth))


def _red_cells(rng: np.random.Generator, field: _SmoothField, where: Array, mask: Array, size: int) -> Array:
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
    return np.asarray(_smoothstep(-distance, -11.5, -9.5) * ~mask)


def _compose_stains(
    rng: np.random.Generator, field: _SmoothField, haematoxylin: Array, eosin: Array, red: Array
) -> NDArray[np.uint8]:
    """Beer-Lambert: optical densities add, light is attenuated exponentially; then optics and JPEG."""
    h = np.clip(_HAEMATOXYLIN + rng.normal(0, 0.03, 3), 0.05, None)
    e = np.clip(_EOSIN + rng.normal(0, 0.05, 3), 0.02, None)
    h, e = h / np.linalg.norm(h), e / np.linalg.norm(e)
    blood = np.array([0.10, 0.88, 0.62])
    uneven = 1 + 0.06 * field(120)
    amount = rng.uniform(0.62, 1.0), rng.uniform(0.4, 0.68)
    density = (
        (haematoxylin * uneven * amount[0])[..., None] * h
        + (eosin * uneven * amount[1])[..., None] * e
        + 0.62 * red[..., None] * blood
    )
    density = ndimage.gaussian_filter(density, (rng.uniform(0.6, 1.2),) * 2 + (0,))
    lamp = np.array([242, 240, 243]) + rng.uniform(-8, 6, 3)
    light = lamp * 10 ** -np.clip(density, 0, None)
    light += rng.normal(0, rng.uniform(0.8, 2.5), light.shape)
    pixels = np.asarray(np.clip(np.round(light), 0, 255), np.uint8)
    # Slide scanners store JPEG; its blocks and chroma subsampling are part of the look.
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=int(rng.integers(80, 96)))
    with Image.open(stream) as stored:
        return np.array(stored.convert("RGB"))


# --------------------------------------------------------------------------------------------------
# data sets on disk

_MAKERS: dict[Modality, tuple[Callable[..., Phantom], str]] = {
    "CT": (ct_phantom, "Synthetic CT torsos"),
    "X-ray": (xray_phantom, "Synthetic chest X-rays"),
    "H&E": (histology_phantom, "Synthetic H&E tiles"),
}


def write_phantoms(
    folder: Path,
    modality: Modality,
    seeds: Iterable[int],
    split: str = "training",
    progress: bool = False,
    **size: Any,
) -> Path:
    """Writes phantoms as a data set in the MONAI datalist form.

    Volumes become NIfTI (image int16, label uint8, one affine), pictures PNG, in `images/` and `labels/`.
    A datalist that is already there keeps its other splits; the named split is added or replaced.

    Args:
        folder: the data set's folder, created where needed.
        modality: 'CT', 'X-ray' or 'H&E'; one data set holds one modality.
        seeds: one study each.
        split: the list that names the studies, such as 'training', 'validation' or 'test'.
        progress: log a line per study.
        size: passed to the phantom: `shape` and `spacing` for CT, `size` for pictures.

    Returns:
        Path of `datalist.json`; the paths in it are relative to `folder`.

    Raises:
        ValueError: unknown modality, no seed, a split's name that the datalist needs for itself, or a
            folder that holds another modality.
    """
    if modality not in MODALITIES:
        raise ValueError(f"modality must be one of {', '.join(MODALITIES)}, not {modality!r}")
    seeds = list(seeds)
    if not seeds:
        raise ValueError("no seed is given: nothing to write")
    if split in ("name", "modality", "labels"):
        raise ValueError(f"a split cannot be called {split!r}")
    maker, name = _MAKERS[modality]
    path = folder / "datalist.json"
    datalist: dict[str, Any] = {"name": name, "modality": modality, "labels": {}}
    if path.exists():
        datalist = json.loads(path.read_text(encoding="utf-8"))
        if datalist.get("modality") != modality:
            raise ValueError(
                f"{path} lists {datalist.get('modality')}, not {modality}: choose another folder"
            )
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, str]] = []
    for number, seed in enumerate(seeds, start=1):
        phantom = maker(seed, **size)
        file = f"{split}_{seed:05d}" + (".png" if phantom.affine is None else ".nii.gz")
        _replace(folder / "images" / file, _encode(phantom.image, phantom.affine))
        _replace(folder / "labels" / file, _encode(phantom.label, phantom.affine))
        entry = {"image": f"images/{file}", "label": f"labels/{file}"}
        entries.append(entry | ({"text": phantom.text} if phantom.text else {}))
        datalist["labels"] = {"0": "background"} | {
            str(value): label for value, label in phantom.labels.items()
        }
        if progress:
            _LOG.info("%s %d of %d: seed %d", name, number, len(seeds), seed)
    datalist[split] = entries
    _replace(path, (json.dumps(datalist, indent=1) + "\n").encode())
    return path


def _encode(array: Array, affine: NDArray[np.float64] | None) -> bytes:
    if affine is None:
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, format="PNG")
        return stream.getvalue()
    image = nib.Nifti1Image(array, affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm", "sec")  # type: ignore[no-untyped-call]
    # Without a time stamp in it the same study gives the same file.
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def _replace(path: Path, content: bytes) -> None:
    """Writes under a temporary name and renames: what exists under the final name is whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
