"""Synthetic studies with known truth: a CT torso, a chest radiograph and an H&E tile.

No patient data lies in the repository, so the demonstration, the quick tests and part of the training
data are drawn here from a seed. Anatomy is laid out in millimetres (CT) or in fractions of the picture,
every size, position, contrast and noise level varies with the seed, and the same seed gives the same
bytes. The studies look like the real thing to a network and to a reader's first glance; they are no
model of disease and say nothing about clinical performance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from bundle.cases.case import Modality

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

    def __init__(self, rng: np.random.Generator, axes: Sequence[Array], reach: float) -> None:
        self._rng = rng
        self._axes = axes
        self._reach = reach

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
            bases.append(_spline_basis(part, pitch, self._reach))
        weights = self._rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
        used = [np.flatnonzero(basis.any(axis=0)) for basis in bases]
        field: Array = weights[np.ix_(*[slice_of for slice_of in used])]
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
        half_depth = 110 + 12 * build + rng.uniform(-6, 6)
        fat = float(np.clip(15 + 10 * build + rng.uniform(-6, 8), 5, 36))
        muscle = rng.uniform(9, 14)
        phase = str(rng.choice(list(_PHASES), p=[0.65, 0.2, 0.15]))
        return cls(
            half_width=half_width,
            half_depth=half_depth,
            roundness=rng.uniform(2.2, 2.7),
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
        reach = max(float(np.abs(axis).max()) for axis in axes)
        self.field = _SmoothField(rng, axes, max(reach, 250.0))
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
    layers = (np.abs((depth - fat) / muscle - 0.5) < 0.07) & (np.abs(back) < 0.75) & (z < 10)
    alba = (np.abs(x) < 4) & (back < -0.6)
    hu[ring] = (torso.hu["muscle"] + 6 * texture)[ring]
    hu[ring & (layers | alba)] = -70

    sx, sy = x - torso.spine_x, y - torso.spine_y
    cage_fraction = 1 - _smoothstep(z, -30, 20)
    erector_depth = 15 + 7 * cage_fraction
    erector = np.sqrt(((np.abs(sx) - 29) / 26) ** 2 + ((sy - 40) / erector_depth) ** 2) * 18 - 18
    psoas_size = np.clip(8 - z * np.float32(0.16), 0.1, 24)
    psoas = np.sqrt((np.abs(sx) - 30 - 0.25 * psoas_size) ** 2 + ((sy - 6) * 0.9) ** 2) - psoas_size
    quadratus = np.sqrt(((np.abs(sx) - 58) / 1.6) ** 2 + (sy - 30) ** 2) - np.clip(3 - z * 0.1, 0.1, 10)
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
    trabecular = 170 + 45 * canvas.field(6) + 15 * texture
    bone = column < 0
    hu[bone] = trabecular[bone]
    hu[bone & ((column > -2.2) | (np.abs(along) > 9.8))] = 420
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
    return np.minimum(column, canal - 13)


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
    right = torso.dome_right - ((plane_x + 68) / 62) ** 2 * 26 - (plane_y / 62) ** 2 * 32
    left = torso.dome_left - ((plane_x - 68) / 62) ** 2 * 26 - (plane_y / 62) ** 2 * 32
    # Steep near the wall: the costophrenic recess reaches far down behind liver and spleen.
    steep = 60 * np.exp(-np.maximum(cavity, 0) / 9) * (0.45 + 0.55 * _smoothstep(plane_y, -60, 40))
    softness = np.float32(8)
    dome = softness * np.logaddexp(right / softness, left / softness) - steep + 2 * canvas.field(35)
    dome = np.maximum(dome, -25)
    above = z - dome

    heart_box = canvas.box((-70, -100, 25), (100, 60, 200))
    cx, cy, _ = torso.at(20, 0.55, 0)
    hz = torso.dome_left + rng.uniform(36, 44)
    heart = canvas.ellipsoid(
        heart_box,
        (cx, cy, hz),
        (58 * torso.size, 40 * torso.size, 40 * torso.size),
        _rotation(0, rng.uniform(15, 30), rng.uniform(-40, -25)),
    ) + 2.0 * canvas.field(30, heart_box)
    heart_room = np.full(z.shape, np.inf, np.float32)
    heart_room[heart_box] = heart
    middle = (
        np.sqrt(((x - torso.spine_x - 4) / 30) ** 2 + ((y - 8) / 78) ** 2) * 30 - 30 + 3 * canvas.field(30)
    )
    mediastinum = np.minimum(heart_room - 3, middle)

    lung = inside & (cavity > 1.5) & (above > 3.5) & (mediastinum > 0)
    air = rng.uniform(-870, -790)
    hu[lung] = (air + 22 * canvas.field(25) + (y - 20) * np.float32(0.35))[lung]
    canvas.label[lung] = 9
    everything = (slice(None), slice(None), slice(None))
    small = canvas.vessels(11, everything, 0.16)
    large = canvas.vessels(24, everything, 0.2) * np.exp(-np.maximum(mediastinum, 0) / 28)
    vessels = np.maximum(0.75 * small, 1.3 * large).clip(0, 1) * lung
    hu += vessels * (30 - hu) * lung

    diaphragm = inside & (np.abs(above) < 3.5) & (mediastinum > -2)
    hu[diaphragm] = torso.hu["muscle"]
    blood = (heart < 0) & (above[heart_box] > 2) & (cavity[heart_box] > 3)
    chamber = canvas.field(17, heart_box)
    wall = (heart > -8) | (np.abs(chamber) < 0.22)
    canvas.paint(heart_box, blood, torso.hu["heart"] + 4 * chamber)
    canvas.paint(heart_box, blood & wall, torso.hu["heart"] * 0.45 + 48)

    canvas.free = np.minimum(cavity - 1.0, -0.8 * above - 2.5).astype(np.float32)
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
        (gullet, 7.0, 45.0),
    ):
        box = canvas.around(line, width)
        distance = canvas.tube(box, line, np.full(len(line), width)) + 0.6 * canvas.field(14, box)
        # Veins may touch the diaphragm and the aorta's neighbourhood; only solid claims stop them.
        canvas.paint(box, canvas.take(distance, box, -4.0 if value == 45.0 else 0.5), value)


def _paint_kidneys(canvas: _Canvas, torso: _Torso) -> None:
    rng, hu = canvas.rng, torso.hu
    size = torso.size * rng.uniform(0.94, 1.06)
    for side, value, level in ((1, 3, rng.uniform(-42, -26)), (-1, 4, rng.uniform(-54, -38))):
        centre = (side * (66 * torso.scale_x + rng.uniform(-3, 4)), torso.spine_y + rng.uniform(2, 10), level)
        turn = _rotation(rng.uniform(-14, -4), side * rng.uniform(-14, -6), side * rng.uniform(20, 40))
        radii = (25 * size, 29 * size, 53 * size * rng.uniform(0.92, 1.06))
        box = canvas.box((centre[0] - 45, centre[1] - 45, level - 62), (centre[0] + 45, centre[1] + 45, level + 62))
        surface = canvas.ellipsoid(box, centre, radii, turn) + 1.6 * canvas.field(16, box)
        # The renal sinus opens towards the midline and to the front.
        offset = turn.T @ np.array([-side * 21.0, -3.0, 0.0], np.float32)
        hilum = (centre[0] + offset[0], centre[1] + offset[1], level + offset[2])
        sinus = canvas.ellipsoid(box, hilum, (19 * size, 9 * size, 25 * size), turn) + 3.2 * canvas.field(9, box)
        kidney = canvas.take(np.maximum(surface, -sinus), box, 0.8)
        pyramids = _smoothstep(canvas.field(9, box), -0.3, 0.5) * _smoothstep(-surface, 5, 8)
        canvas.paint(box, kidney, hu["cortex"] + (hu["medulla"] - hu["cortex"]) * pyramids + 3 * canvas.field(12, box))
        canvas.label[box][kidney] = value
        pelvis = (sinus < -3.5) & (surface < 2) & (canvas.field(10, box) > -0.2) & ~kidney & (canvas.free[box] > -40)
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
    lower = np.interp(x, [-135, -80, -30, 20, left_end], [tip, tip + 22, -22, 2, 28]).astype(np.float32)
    lower = lower + slope * (y - hilum_y) * np.interp(x, [-90, -40], [0.25, 1])
    back = np.interp(x, [-70, -38, -8, 15, left_end], [140, 52, 20, -22, -40]).astype(np.float32) + (
        torso.spine_front - 26
    )
    extent = left_end - 0.35 * np.maximum(y - hilum_y + 40, 0)
    surface = np.maximum.reduce([0.85 * (lower - z), 0.8 * (y - back), 0.8 * (x - extent)])
    surface += 3.6 * canvas.field(26, box) + 1.2 * canvas.field(12, box)
    fissure_x = rng.uniform(4, 18)
    fissure = (np.abs(x - fissure_x - 0.1 * y) < 2.2) & (y < hilum_y + 8) & (z < 8 + 0.4 * (hilum_y - y))
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
    box = canvas.box((centre[0] - 70, centre[1] - 75, centre[2] - 65), (centre[0] + 70, centre[1] + 75, centre[2] + 65))
    body = canvas.ellipsoid(box, centre, (32 * size, 52 * size, 50 * size), turn)
    hollow = (centre[0] - 44 * size, centre[1] - 20 * size, centre[2])
    imprint = canvas.ellipsoid(box, hollow, (37 * size, 46 * size, 62 * size), turn)
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
    radii = np.interp(np.linspace(0, 1, len(path)), [0, 0.2, 0.4, 0.6, 0.85, 1], [12, 13, 9, 9.5, 10.5, 7]) * size
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
    inside = ndimage.distance_transform_edt(stomach, sampling=[abs(float(np.diff(axis[:2])[0])) for axis in canvas.axes])
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
                torso.at(-96, 0.36, -54 + rise), torso.at(-60, 0.82, -62 + rise), torso.at(0, 0.92, -58 + rise),
                torso.at(64, 0.84, -42 + rise), torso.at(104, 0.4, -6),
            ]
        ),
        _curve([torso.at(106, 0.36, -4), torso.at(118, 0.02, -30), torso.at(118, -0.02, -90), torso.at(112, 0.05, -150)]),
        _curve([torso.at(-16, 0.62, -26), torso.at(-44, 0.42, -22), torso.at(-50, 0.22, -46), torso.at(-20, 0.2, -72), torso.at(24, 0.24, -62)]),
    ]  # fmt: skip
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
    loops = canvas.field(15, box, stretch=(1.0, 0.85, 1.0))
    # Visceral fat keeps the loops apart.
    threshold = -0.55 + 0.75 * torso.visceral_fat
    room = np.minimum(canvas.free[box] - 2, 12)
    behind = _smoothstep(canvas.y[box], torso.spine_front - 20, torso.spine_front + 10)
    level = loops - threshold - 1.2 * behind - 0.35 * _smoothstep(canvas.z[box], -30, 10)
    bowel = (level > 0) & (room > 0)
    content = canvas.field(16, box)
    values = np.where(level < 0.38, torso.hu["wall"] * 1.05, 22 + 12 * content)
    oral = rng.random() < 0.3
    values = np.where((level >= 0.38) & (content > (0.2 if oral else 9)), 190 + 30 * content, values)
    values = np.where((level > 0.55) & (content < -0.95) & (canvas.y[box] < torso.spine_front - 35), -920, values)
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
