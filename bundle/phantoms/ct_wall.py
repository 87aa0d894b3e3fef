"""The wall of the trunk: skin, fat, muscles, spine and ribs."""

from __future__ import annotations

import numpy as np

from bundle.phantoms.ct_canvas import Canvas
from bundle.phantoms.ct_plan import Torso
from bundle.phantoms.shapes import Array, smoothstep


def paint_wall(canvas: Canvas, torso: Torso) -> Array:
    """Skin, fat, muscle ring, ribs, spine and back muscles.

    Returns:
        Signed distance into the body cavity in mm.
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
    cage_fraction = 1 - smoothstep(z, -30, 20)
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
    return np.asarray(np.minimum(np.minimum(inner, back_muscle), spine))


def _paint_spine(canvas: Canvas, torso: Torso, sx: Array, sy: Array, texture: Array) -> Array:
    """Vertebrae, discs, arches and processes; returns the distance to the vertebral column in mm."""
    z, hu = canvas.z, canvas.hu
    level = (z + torso.vertebra_phase) / 30
    along = (level - np.round(level)) * 30
    waist = 1.8 * (1 - smoothstep(np.abs(along), 4, 12))
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
    lower = smoothstep(-along, -2, 2)
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
    canvas: Canvas, torso: Torso, x: Array, y: Array, z: Array, level: Array, muscle: Array
) -> None:
    """Ribs slope down from the spine to the side, so that an axial slice cuts several of them obliquely."""
    rng = canvas.rng
    around = np.arctan2(np.abs(x), y - torso.spine_y * np.float32(0.3))
    drop = rng.uniform(66, 84) * smoothstep(around, 0.1, 2.1) - 55 * smoothstep(around, 2.2, 3.1)
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
