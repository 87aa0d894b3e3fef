"""Diaphragm, lungs, mediastinum and heart, and the room they leave for the abdomen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bundle.phantoms.ct_canvas import Box, Canvas
from bundle.phantoms.ct_plan import Torso
from bundle.phantoms.shapes import Array, Point, rotation, smoothstep


def paint_chest(canvas: Canvas, torso: Torso, cavity: Array) -> Array:
    """Cavity fat, diaphragm, lungs, heart. Leaves `canvas.free` as the room for abdominal organs.

    Args:
        cavity: signed distance into the body cavity in mm.

    Returns:
        Height of the diaphragm above every voxel's column in mm.
    """
    x, y, z, hu = canvas.x, canvas.y, canvas.z, canvas.hu
    inside = cavity > 0
    mesentery = -108 + 8 * canvas.field(14)
    hu[inside] = mesentery[inside]
    dome = _diaphragm(canvas, torso, cavity)
    above = z - dome
    heart = _Heart.draw(canvas, torso)
    heart_room = np.full(z.shape, np.inf, np.float32)
    heart_room[heart.box] = heart.distance
    # Behind the heart only the oesophagus, the aorta and some fat separate the lungs.
    narrow = 15 + 13 * smoothstep(z - heart.centre[2], 5, 40)
    middle = (
        np.sqrt((x - torso.spine_x - 6) ** 2 + ((y - 4) * narrow / 84) ** 2) - narrow + 3 * canvas.field(30)
    )
    mediastinum = np.minimum(heart_room - 3, middle)
    _paint_lungs(canvas, inside & (cavity > 1.5) & (above > 1.8) & (mediastinum > 0), mediastinum)
    hu[inside & (np.abs(above) < 1.8) & (mediastinum > -2)] = torso.hu["muscle"]
    _paint_heart(canvas, torso, heart, above[heart.box], cavity[heart.box])
    canvas.free = np.minimum(cavity - 1.0, -0.8 * above - 1.2).astype(np.float32)
    return dome


def _diaphragm(canvas: Canvas, torso: Torso, cavity: Array) -> Array:
    rng, x, y = canvas.rng, canvas.x, canvas.y
    plane_x, plane_y = x / torso.scale_x, y - rng.uniform(-14, -2)
    fall = (plane_y / 62) ** 2 * np.where(plane_y < 0, np.float32(14), np.float32(32))
    right = torso.dome_right - ((plane_x + 66) / 62) ** 2 * 24 - fall
    left = torso.dome_left - ((plane_x - 66) / 62) ** 2 * 24 - fall
    # The central tendon carries the heart: between the domes the diaphragm sags only a little.
    tendon = torso.dome_left - 9 - (plane_x / 55) ** 2 * 24 - 0.6 * fall
    # Steep near the wall: the costophrenic recess reaches far down behind liver and spleen.
    steep = 58 * np.exp(-np.maximum(cavity, 0) / 5) * (0.25 + 0.75 * smoothstep(plane_y, -50, 40))
    dome = 6 * np.logaddexp(np.logaddexp(right / 6, left / 6), tendon / 6) - steep + 2 * canvas.field(35)
    return np.asarray(np.maximum(dome, -25))


@dataclass(frozen=True)
class _Heart:
    """Place, region and signed distance in mm to the surface of one heart."""

    centre: Point
    box: Box
    distance: Array

    @classmethod
    def draw(cls, canvas: Canvas, torso: Torso) -> _Heart:
        rng = canvas.rng
        box = canvas.box((-70, -100, 25), (100, 60, 200))
        x, y, _ = torso.at(20, 0.55, 0)
        centre = (x, y, torso.dome_left + rng.uniform(20, 30))
        radii = (62 * torso.size, 46 * torso.size, 44 * torso.size)
        turn = rotation(0, rng.uniform(15, 30), rng.uniform(-40, -25))
        return cls(centre, box, canvas.ellipsoid(box, centre, radii, turn) + 2.0 * canvas.field(30, box))


def _paint_lungs(canvas: Canvas, lung: Array, mediastinum: Array) -> None:
    hu, y = canvas.hu, canvas.y
    air = canvas.rng.uniform(-870, -790)
    hu[lung] = (air + 22 * canvas.field(25) + (y - 20) * np.float32(0.35))[lung]
    canvas.label[lung] = canvas.values["lung"]
    everything = (slice(None), slice(None), slice(None))
    small = canvas.vessels(11, everything, 0.22)
    large = canvas.vessels(22, everything, 0.24) * np.exp(-np.maximum(mediastinum, 0) / 45)
    vessels = np.maximum(0.9 * small, 1.5 * large).clip(0, 1)
    hu += vessels * (30 - hu) * lung


def _paint_heart(canvas: Canvas, torso: Torso, heart: _Heart, above: Array, cavity: Array) -> None:
    """Four chambers of contrasted blood with walls between them, and epicardial fat.

    Args:
        above: height above the diaphragm in mm within the heart's region.
        cavity: signed distance into the body cavity in mm within the heart's region.
    """
    box, distance = heart.box, heart.distance
    place = (canvas.x[box], canvas.y[box], canvas.z[box])
    blood = (distance < 0) & (above > 2) & (cavity > 3)
    chambers = [(30, 8, 0), (8, -24, -6), (-30, -2, 0), (-8, 28, 14)]
    reach = [
        np.sqrt(sum((a - c - d) ** 2 for a, c, d in zip(place, heart.centre, chamber, strict=True)))
        for chamber in chambers
    ]
    first, second = np.sort(np.stack(reach), axis=0)[:2]
    left_ventricle = reach[0] <= first
    wall = (second - first < np.where(left_ventricle, 16, 5)) | (distance > np.where(left_ventricle, -9, -3))
    canvas.paint(box, blood, torso.hu["heart"] + 4 * canvas.field(17, box))
    canvas.paint(box, blood & wall, torso.hu["heart"] * 0.45 + 40)
    fat = (distance > 0) & (distance < 4) & (canvas.hu[box] > -200) & (above > 4)
    canvas.paint(box, fat & (cavity > 0), -95.0)
