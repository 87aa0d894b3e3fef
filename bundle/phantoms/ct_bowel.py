"""Bowel and the fat between its loops: unlabelled, and what makes a slice hard to read."""

from __future__ import annotations

import numpy as np

from bundle.phantoms.ct_canvas import Canvas
from bundle.phantoms.ct_plan import Torso
from bundle.phantoms.shapes import Array, smoothstep


def paint_bowel(canvas: Canvas, torso: Torso, cavity: Array) -> None:
    """Colon and small bowel loops with gas, stool and fluid: unlabelled distractors that fill the front."""
    rng = canvas.rng
    rise = rng.uniform(-14, 12)
    routes = [
        torso.curve((-104, 0.05, -150), (-108, 0.08, -80), (-98, 0.3, -52)),
        torso.curve(
            (-96, 0.36, -54 + rise), (-60, 0.82, -62 + rise), (0, 0.92, -58 + rise), (64, 0.84, -42 + rise),
            (104, 0.4, -6),
        ),
        torso.curve((106, 0.36, -4), (118, 0.02, -30), (118, -0.02, -90), (112, 0.05, -150)),
        torso.curve(
            (-16, 0.62, -26), (-44, 0.42, -22), (-50, 0.22, -46), (-20, 0.2, -72), (24, 0.24, -62)
        ),
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
    loops = canvas.field(12, box, stretch=(1.0, 0.85, 1.1))
    # Visceral fat keeps the loops apart.
    threshold = -0.35 + 0.6 * torso.visceral_fat
    room = np.minimum(canvas.free[box] - 2, 12)
    behind = smoothstep(canvas.y[box], torso.spine_front - 20, torso.spine_front + 10)
    level = loops - threshold - 1.2 * behind - 0.35 * smoothstep(canvas.z[box], -30, 10)
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
