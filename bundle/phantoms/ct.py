"""A contrast-enhanced CT torso: patient, table and scanner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.phantoms.ct_bowel import paint_bowel
from bundle.phantoms.ct_canvas import Canvas
from bundle.phantoms.ct_chest import paint_chest
from bundle.phantoms.ct_organs import (
    paint_kidneys,
    paint_liver,
    paint_pancreas,
    paint_spleen,
    paint_stomach,
)
from bundle.phantoms.ct_plan import Torso
from bundle.phantoms.ct_vessels import paint_vessels
from bundle.phantoms.ct_wall import paint_wall
from bundle.phantoms.phantom import CT_LABELS, Phantom
from bundle.phantoms.shapes import Point


def _paint_table(canvas: Canvas, torso: Torso) -> None:
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


def _scan(canvas: Canvas, spacing: Point) -> NDArray[np.int16]:
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
    spleen: float = 1.0,
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
        spleen: factor of the spleen's length, 1 to 2.5; splenomegaly from about 1.4.

    Returns:
        Image int16 in HU (-1024 to 3071) with labels `CT_LABELS`; the text is empty.

    Raises:
        ValueError: the shape or the spacing is outside its range.
    """
    if len(shape) != 3 or min(shape) < 8:
        raise ValueError(f"shape must be three numbers of at least 8, not {shape}")
    if len(spacing) != 3 or min(spacing) <= 0:
        raise ValueError(f"spacing must be three lengths above 0 mm, not {spacing}")
    if not 1.0 <= spleen <= 2.5:
        raise ValueError(f"spleen must be a factor from 1 to 2.5, not {spleen}")
    rng = np.random.default_rng(seed)
    torso = Torso.draw(rng)
    offset = (rng.uniform(-6, 6), rng.uniform(-6, 6), rng.uniform(-14, -2))
    canvas = Canvas(rng, shape, spacing, offset)
    cavity = paint_wall(canvas, torso)
    dome = paint_chest(canvas, torso, cavity)
    paint_vessels(canvas, torso)
    paint_kidneys(canvas, torso)
    paint_spleen(canvas, torso, cavity, spleen)
    paint_pancreas(canvas, torso)
    paint_liver(canvas, torso, dome, cavity)
    paint_stomach(canvas, torso)
    paint_bowel(canvas, torso, cavity)
    if rng.random() < 0.75:
        _paint_table(canvas, torso)
    image = _scan(canvas, spacing)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [-canvas.axes[0][0], -canvas.axes[1][0], canvas.axes[2][0]]
    return Phantom(image, canvas.label, affine, "CT", dict(CT_LABELS), "")
