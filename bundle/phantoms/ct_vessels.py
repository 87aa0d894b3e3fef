"""Great vessels, crura and oesophagus, in front of the spine."""

from __future__ import annotations

import numpy as np

from bundle.phantoms.ct_canvas import Canvas
from bundle.phantoms.ct_plan import Torso
from bundle.phantoms.shapes import curve


def paint_vessels(canvas: Canvas, torso: Torso) -> None:
    """Aorta (labelled), vena cava, portal and mesenteric veins, oesophagus and crura (unlabelled)."""
    radius = _paint_aorta(canvas, torso)
    _paint_crura(canvas, torso)
    _paint_branches(canvas, torso, radius)


def _paint_aorta(canvas: Canvas, torso: Torso) -> float:
    """Returns the radius below the diaphragm in mm."""
    rng, front = canvas.rng, torso.spine_front
    bend = rng.uniform(-5, 7)
    size = rng.uniform(10, 13.5) * torso.size
    path = curve([
        (18 + bend, front + 10, 130), (15 + bend, front + 2, 60), (8 + 0.5 * bend, front - size - 1, 15),
        (6 + 0.4 * bend, front - size - 2, -40), (4, front - size - 1, -140),
    ])  # fmt: skip
    radii = np.interp(path[:, 2], [-130, 130], [size * 0.82, size * 1.08])
    box = canvas.around(path, 16)
    # The aorta leaves the chest behind the diaphragm: it is bound by neither lung nor cavity.
    distance = canvas.tube(box, path, radii) + 0.4 * canvas.field(14, box)
    aorta = distance < 0
    canvas.paint(box, aorta, torso.hu["aorta"] + 3 * canvas.field(12, box))
    canvas.label[box][aorta] = canvas.values["aorta"]
    halo = (distance >= 0) & (distance < 2) & (canvas.label[box] == canvas.values["lung"])
    canvas.paint(box, halo, -60.0)
    canvas.label[box][halo] = 0
    canvas.free[box] = np.minimum(canvas.free[box], distance)
    return size


def _paint_crura(canvas: Canvas, torso: Torso) -> None:
    front = torso.spine_front
    for side in (-1, 1):
        crus = np.array(
            [(7 + side * 15, front + 1, -45), (9 + side * 16, front - 8, 5), (12 + side * 12, front - 16, 35)]
        )
        box = canvas.around(crus, 8)
        distance = canvas.tube(box, crus, np.array([3.0, 5.0, 4.0])) + canvas.field(12, box)
        canvas.paint(box, canvas.take(distance, box, 0.5), torso.hu["muscle"])


def _paint_branches(canvas: Canvas, torso: Torso, radius: float) -> None:
    rng, hu, front = canvas.rng, torso.hu, torso.spine_front
    vein_x = -20 + rng.uniform(-4, 3)
    cava = curve([
        (vein_x, front - 6, -130), (vein_x, front - 8, -40), (vein_x - 3, front - 18, 10), (vein_x + 2, front - 26, 75),
    ])  # fmt: skip
    portal = torso.curve((4, 0.36, -120), (-2, 0.36, -40), (-14, 0.30, -14), (-42, 0.32, 6), (-62, 0.35, 14))
    _, portal_y, _ = torso.at(0, 0.3, 0)
    gullet = curve([(14, front - 24, 120), (16, front - 30, 60), (32, front - 36, 38)])
    artery = curve([
        (8, front - radius * 1.6, 2), (6, portal_y - 2, -16), (8, portal_y - 6, -70), (6, portal_y - 8, -120),
    ])  # fmt: skip
    canvas.tubule(cava, rng.uniform(9.5, 12.5), hu["vein"])
    canvas.tubule(portal, 6.5 * torso.size, hu["vein"] * 1.02)
    canvas.tubule(artery, 3.6, hu["aorta"])
    box = canvas.around(gullet, 8)
    distance = canvas.tube(box, gullet, np.full(len(gullet), 7.5)) + 0.8 * canvas.field(12, box)
    wall = (distance < 0) & (canvas.label[box] == 0)
    canvas.paint(box, wall, 48.0)
    canvas.paint(box, wall & (distance < -5.2), -400.0)
    canvas.free[box] = np.minimum(canvas.free[box], distance)
