"""The labelled abdominal organs: kidneys, gallbladder, liver, spleen, pancreas and stomach."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bundle.phantoms.ct_canvas import Canvas
from bundle.phantoms.ct_plan import Torso
from bundle.phantoms.shapes import Array, largest_part, rotation, smoothstep


def paint_kidneys(canvas: Canvas, torso: Torso) -> None:
    rng, hu = canvas.rng, torso.hu
    size = torso.size * rng.uniform(0.98, 1.12)
    for side, name, level in (
        (1, "left kidney", rng.uniform(-42, -26)),
        (-1, "right kidney", rng.uniform(-54, -38)),
    ):
        centre = (side * (70 * torso.scale_x + rng.uniform(-3, 5)), torso.spine_y + rng.uniform(-6, 4), level)
        turn = rotation(rng.uniform(-14, -4), side * rng.uniform(-14, -6), side * rng.uniform(20, 40))
        radii = (25 * size, 29 * size, 53 * size * rng.uniform(0.92, 1.06))
        box = canvas.around(np.add(centre, [(-45, -45, -62), (45, 45, 62)]), 0)
        surface = canvas.ellipsoid(box, centre, radii, turn) + 1.6 * canvas.field(16, box)
        # The renal sinus opens towards the midline and to the front.
        offset = turn.T @ np.array([-side * 21.0, -3.0, 0.0], np.float32)
        hilum = (centre[0] + offset[0], centre[1] + offset[1], level + offset[2])
        sinus = canvas.ellipsoid(box, hilum, (19 * size, 9 * size, 25 * size), turn) + 3.2 * canvas.field(
            9, box
        )
        kidney = canvas.take(np.maximum(surface, -sinus), box, 0.8)
        pyramids = smoothstep(canvas.field(9, box), -0.3, 0.5) * smoothstep(-surface, 5, 8)
        canvas.paint(
            box, kidney, hu["cortex"] + (hu["medulla"] - hu["cortex"]) * pyramids + 3 * canvas.field(12, box)
        )
        canvas.label[box][kidney] = canvas.values[name]
        pelvis = (sinus < -3.5) & (surface < 2) & (canvas.field(10, box) > -0.2) & ~kidney
        pelvis &= canvas.free[box] > -40
        canvas.paint(box, pelvis & (canvas.label[box] == 0), 22.0)
        stalk = np.array([hilum, (side * 12.0, torso.spine_front - 12, hilum[2] + 8)])
        box = canvas.around(stalk, 5)
        vein = canvas.tube(box, stalk, np.array([4.5, 5.0])) + 0.6 * canvas.field(12, box)
        canvas.paint(box, canvas.take(vein, box, 0.5), hu["vein"])


def paint_liver(canvas: Canvas, torso: Torso, dome: Array, cavity: Array) -> None:
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
    canvas.label[box][gallbladder] = canvas.values["gallbladder"]

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
    liver = largest_part(liver)
    values = hu["liver"] + 3.5 * canvas.field(30, box) + 2 * canvas.field(9, box)
    tree = np.maximum(canvas.vessels(26, box, 0.17), 0.8 * canvas.vessels(17, box, 0.14))
    canvas.paint(box, liver, values + hu["vessel"] * tree * smoothstep(-surface, 3, 12))
    if rng.random() < 0.25:
        # A simple cyst: common, harmless and a distractor.
        cyst = torso.at(rng.uniform(-105, -60), rng.uniform(0.1, 0.6), rng.uniform(-5, 30))
        near = np.sqrt((x * torso.scale_x - cyst[0]) ** 2 + (y - cyst[1]) ** 2 + (z - cyst[2]) ** 2)
        canvas.paint(box, liver & (near < rng.uniform(4, 11)), 8.0)
    canvas.label[box][liver] = canvas.values["liver"]


def paint_spleen(canvas: Canvas, torso: Torso, cavity: Array, length: float = 1.0) -> None:
    rng = canvas.rng
    # an enlarged spleen grows downwards and to the front more than to the side
    wide, deep = 1.0 + 0.5 * (length - 1.0), 1.0 + 0.6 * (length - 1.0)
    size = torso.size * rng.uniform(0.85, 1.15)
    centre = (104 * torso.scale_x, torso.spine_y - rng.uniform(8, 22), rng.uniform(2, 18))
    turn = rotation(0, rng.uniform(-12, 8), rng.uniform(15, 40))
    grown = (centre[0], centre[1] - 40 * (deep - 1.0), centre[2] - 50 * (length - 1.0))
    reach = (70 * wide, 75 * deep, 65 * length)
    box = canvas.around(np.array([np.subtract(grown, reach), np.add(grown, reach)]), 0)
    body = canvas.ellipsoid(box, grown, (37 * size * wide, 56 * size * deep, 54 * size * length), turn)
    hollow = (centre[0] - 50 * size, centre[1] - 22 * size, centre[2] - 6)
    imprint = canvas.ellipsoid(box, hollow, (36 * size, 46 * size, 62 * size), turn)
    surface = np.maximum(body, -imprint) + 2.2 * canvas.field(18, box)
    surface = np.maximum(surface, -cavity[box] + 1.5)
    spleen = largest_part(canvas.take(surface, box, 0.3))
    values = torso.hu["spleen"] + 2.5 * canvas.field(18, box)
    canvas.paint(box, spleen, values + 0.5 * torso.hu["vessel"] * canvas.vessels(18, box, 0.12))
    canvas.label[box][spleen] = canvas.values["spleen"]


def paint_pancreas(canvas: Canvas, torso: Torso) -> None:
    rng = canvas.rng
    lift = rng.uniform(-8, 6)
    arch = rng.uniform(0.40, 0.50)
    path = torso.curve(
        (-30, 0.30, -46 + lift), (-26, 0.34, -24 + lift), (-4, arch, -12 + lift), (22, arch - 0.04, -4 + lift),
        (50, 0.14, 3 + lift), (76, -0.10 + rng.uniform(-0.05, 0.08), 8 + lift), count=12,
    )  # fmt: skip
    path[:, 1] += rng.normal(0, 1.2, len(path))
    size = torso.size * rng.uniform(0.88, 1.12)
    radii = (
        np.interp(np.linspace(0, 1, len(path)), [0, 0.2, 0.4, 0.6, 0.85, 1], [12, 13, 9, 9.5, 10.5, 7]) * size
    )
    box = canvas.around(path, 14)
    surface = canvas.tube(box, path, radii) + 2.0 * canvas.field(7, box) + 1.2 * canvas.field(14, box)
    pancreas = largest_part(canvas.take(surface, box, 0.6))
    clefts = np.clip(0.35 - np.abs(canvas.field(6, box)), 0, 0.35) / 0.35 * smoothstep(surface, -9, -1)
    values = torso.hu["pancreas"] - 60 * clefts + 3 * canvas.field(12, box)
    canvas.paint(box, pancreas, values)
    canvas.label[box][pancreas] = canvas.values["pancreas"]
    # The splenic vein runs along the back of the gland.
    vein = path[3:] + np.array([0, 9.0, 2.0])
    box = canvas.around(vein, 5)
    distance = canvas.tube(box, vein, np.full(len(vein), 4.0))
    canvas.paint(box, canvas.take(distance, box, 0.0), torso.hu["vein"])


def paint_stomach(canvas: Canvas, torso: Torso) -> None:
    rng = canvas.rng
    filling = rng.uniform(0.72, 1.12)
    drop = rng.uniform(-12, 10)
    antrum_end = rng.uniform(-22, 0)
    path = torso.curve(
        (66, 0.12, 38), (72, 0.34, 18), (64, 0.62, -6 + drop), (38, 0.74, -24 + drop), (14, 0.74, -28 + drop),
        (antrum_end, 0.68, -24 + drop), count=13,
    )  # fmt: skip
    radii = np.interp(np.linspace(0, 1, len(path)), [0, 0.25, 0.5, 0.7, 1], [33, 34, 27, 20, 13]) * filling
    box = canvas.around(path, 40)
    surface = canvas.tube(box, path, radii) + 2.4 * canvas.field(24, box)
    stomach = largest_part(canvas.take(surface, box, 0.8))
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
    canvas.label[box][stomach] = canvas.values["stomach"]
