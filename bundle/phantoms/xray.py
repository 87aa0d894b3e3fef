"""A frontal chest radiograph.

Places are fractions of the image, u to the right and v down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bundle.phantoms.phantom import XRAY_LABELS, Phantom
from bundle.phantoms.sentences import infection_sentence
from bundle.phantoms.shapes import Array, plane_curve, smoothstep
from bundle.phantoms.xray_anatomy import lung_outlines, rib_lines, vessel_lines
from bundle.phantoms.xray_film import Film, Stroke, expose


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
    film = Film(np.random.default_rng(seed), size)
    chest = _Chest.draw(film)
    body = _soft_tissue(film, chest)
    aeration = film.rng.uniform(0.34, 0.46)
    dense = body - aeration * chest.depth
    _add_heart(film, chest, dense, aeration)
    _add_spine_and_airway(film, chest, dense)
    _add_ribs(film, chest, dense)
    _add_shoulder_girdle(film, chest, dense)
    tree = _vessel_tree(film, chest)
    haze, truth = _opacities(film, chest.lung * (1 - chest.heart), chest.outlines)
    _add_lung_markings(film, chest, dense, tree, haze)
    if film.rng.random() < 0.5:
        _add_breasts(film, dense)
    _add_abdominal_gas(film, chest, dense)
    dense += 0.72 * aeration * haze * chest.depth.clip(0, 1)
    image = expose(film, dense)
    left, right = (
        (float(outline[:, 1].min() * size), float(outline[:, 1].max() * size)) for outline in chest.outlines
    )
    text = infection_sentence(truth, left, right)
    return Phantom(image, truth.astype(np.uint8), None, "X-ray", dict(XRAY_LABELS), text)


@dataclass(frozen=True)
class _Chest:
    """Lungs and heart of one patient.

    Attributes:
        outlines: corner points (n, 2) of the image-left and the image-right lung.
        lung: both lungs, 0-1.
        depth: how much lung the rays cross, about 0-1.
        heart: heart with mediastinum, 0-1.
        heart_top: upper end of the mediastinum.
    """

    outlines: tuple[Array, Array]
    lung: Array
    depth: Array
    heart: Array
    heart_top: float

    @classmethod
    def draw(cls, film: Film) -> _Chest:
        left, right, heart = lung_outlines(film.rng)
        lungs = [film.area(left), film.area(right)]
        depth = sum(_thickness(film, part, 0.05) for part in lungs)
        return cls(
            outlines=(left, right),
            lung=np.maximum(*lungs),
            depth=film.blur(np.asarray(depth), 0.004),
            heart=film.area(heart),
            heart_top=heart[:, 1].min(),
        )

    @property
    def half_width(self) -> float:
        """From the midline to the outer wall of the wider lung."""
        left, right = self.outlines
        return float(max(0.5 - left[:, 0].min(), right[:, 0].max() - 0.5))

    @property
    def hilum_v(self) -> float:
        return self.heart_top + 0.43

    @property
    def apex(self) -> float:
        return float(min(outline[:, 1].min() for outline in self.outlines))


def _thickness(film: Film, mask: Array, edge: float) -> Array:
    """A rounded body seen from the front: full thickness from about twice `edge` inside its outline."""
    return np.asarray(np.tanh(ndimage.distance_transform_edt(mask > 0.5) / (edge * film.size)) * mask)


def _soft_tissue(film: Film, chest: _Chest) -> Array:
    """Shoulders, trunk, neck and, on most films, the arms beside the chest."""
    rng, u, v = film.rng, film.u, film.v
    wall = chest.half_width + rng.uniform(0.035, 0.13)
    shoulder = rng.uniform(0.13, 0.2)
    half_width = np.interp(
        v[:, 0],
        [0, shoulder - 0.1, shoulder - 0.02, shoulder + 0.06, 0.45, 1],
        [0.15, 0.2, 0.36, 0.54, wall, wall + 0.02],
    )[:, None]
    half_width = np.asarray(ndimage.gaussian_filter1d(half_width, 0.02 * film.size, axis=0, mode="nearest"))
    inside = np.clip(1 - (np.abs(u - 0.5 + 0.01 * film.field(0.25)) / half_width) ** 5, 0, 1)
    body = np.sqrt(inside) * (0.62 + 0.16 * smoothstep(v, 0.55, 0.95))
    arms = np.clip(1 - ((np.abs(u - 0.5) - (wall + 0.075)) / 0.06) ** 2, 0, 1)
    arms = arms * smoothstep(v, shoulder, shoulder + 0.12)
    return np.asarray(np.maximum(body, 0.42 * np.sqrt(arms) * rng.choice([0.0, 1.0], p=[0.4, 0.6])))


def _add_heart(film: Film, chest: _Chest, dense: Array, aeration: float) -> None:
    rng, u, v = film.rng, film.u, film.v
    core = film.blur(_thickness(film, chest.heart, 0.035), 0.003)
    dense += core * (rng.uniform(0.05, 0.1) * chest.lung + rng.uniform(0.68, 0.85) * aeration * chest.depth)
    dense += 0.06 * np.exp(-(((u - 0.5) / 0.055) ** 2)) * smoothstep(v, 0.0, 0.1)


def _add_spine_and_airway(film: Film, chest: _Chest, dense: Array) -> None:
    rng, u, v = film.rng, film.u, film.v
    pitch = rng.uniform(0.05, 0.06)
    discs = 0.5 + 0.5 * np.cos(2 * np.pi * v / pitch + rng.uniform(0, 6))
    spine = film.blur((np.abs(u - 0.5) < 0.034).astype(np.float32) * np.ones_like(v), 0.004)
    dense += spine * (0.035 + 0.025 * discs**4)
    fork = chest.heart_top + rng.uniform(0.31, 0.36)
    lean = rng.uniform(-0.012, 0.004)
    airway = film.strokes(
        [
            (np.array([(0.5, 0.0), (0.497 + lean, 0.2), (0.497 + lean, fork)]), 0.036, 1.0),
            (np.array([(0.497 + lean, fork), (0.44, fork + 0.075)]), 0.024, 0.8),
            (np.array([(0.497 + lean, fork), (0.57, fork + 0.085)]), 0.022, 0.8),
        ]
    )
    dense -= 0.085 * film.blur(airway, 0.006)


def _add_ribs(film: Film, chest: _Chest, dense: Array) -> None:
    rng = film.rng
    ribs = rib_lines(rng, chest.outlines)
    full = film.strokes(ribs)
    hollow = film.strokes([(line, width * 0.55, grey) for line, width, grey in ribs])
    # A tube of cortical bone is densest at its rims.
    dense += rng.uniform(0.055, 0.09) * film.blur(0.55 * full + 0.75 * np.clip(full - hollow, 0, 1), 0.0025)


def _add_shoulder_girdle(film: Film, chest: _Chest, dense: Array) -> None:
    """Clavicles, the inner rims of the shoulder blades and the heads of the arms."""
    rng, apex = film.rng, chest.apex
    collar: list[Stroke] = []
    blade: list[Stroke] = []
    rise = rng.uniform(-0.02, 0.05)
    for side in (-1, 1):
        tilt = rng.normal(0, 0.008)
        bone = [
            (0.045, apex + 0.085),
            (0.13, apex + 0.07 - 0.3 * rise),
            (0.24, apex + 0.028 - rise + tilt),
            (0.37, apex - 0.005 - rise + tilt),
        ]
        collar.append((plane_curve([(0.5 + side * a, b) for a, b in bone]), 0.026, 1.0))
        rim = [(0.31, apex + 0.03), (0.335, apex + 0.13), (0.30, apex + 0.26), (0.27, apex + 0.335)]
        edge = plane_curve([(0.5 + side * (a + chest.half_width - 0.36), b) for a, b in rim])
        blade.append((edge, 0.016, 0.8))
        near, far = chest.half_width + 0.05, chest.half_width + 0.13
        humerus = np.array([(0.5 + side * near, apex), (0.5 + side * far, apex + 0.05)])
        blade.append((humerus, 0.05, 0.7))
    clavicles = film.strokes(collar)
    rims = np.clip(
        clavicles - film.strokes([(line, width * 0.5, grey) for line, width, grey in collar]), 0, 1
    )
    dense += rng.uniform(0.07, 0.11) * film.blur(0.6 * clavicles + 0.5 * rims, 0.003)
    dense += rng.uniform(0.03, 0.06) * film.blur(film.strokes(blade), 0.005)


def _vessel_tree(film: Film, chest: _Chest) -> Array:
    left, right = (0.44, chest.hilum_v), (0.565, chest.hilum_v - 0.015)
    return film.strokes(vessel_lines(film.rng, left, -1) + vessel_lines(film.rng, right, 1))


def _add_lung_markings(film: Film, chest: _Chest, dense: Array, tree: Array, haze: Array) -> None:
    """Vessels and hila; vessels fade where the lung around them is opaque."""
    u, v, air = film.u, film.v, chest.depth.clip(0, 1)
    hila = sum(
        np.exp(-(((u - hu) / 0.03) ** 2) - ((v - chest.hilum_v) / 0.055) ** 2) for hu in (0.425, 0.585)
    )
    markings = film.rng.uniform(0.055, 0.11) * (1 - 0.6 * haze)
    dense += markings * film.blur(tree, 0.0022) * air + 0.06 * hila * air
    dense += 0.010 * film.field(0.012) * air


def _add_breasts(film: Film, dense: Array) -> None:
    rng, u, v = film.rng, film.u, film.v
    big = rng.uniform(0.13, 0.19)
    fold = rng.uniform(0.58, 0.7)
    for side in (-1, 1):
        bag = ((u - 0.5 - side * 0.235) / big) ** 2 + ((v - fold) / (0.8 * big)) ** 2
        dense += rng.uniform(0.05, 0.1) * np.clip(1 - bag, 0, 1) ** 0.5 * smoothstep(v, fold - big, fold)


def _add_abdominal_gas(film: Film, chest: _Chest, dense: Array) -> None:
    """Stomach and bowel below the diaphragm on the image's right."""
    rng, u, v = film.rng, film.u, film.v
    floor = chest.outlines[1][7:10, 1].mean()
    for _ in range(int(rng.integers(1, 5))):
        place_u, place_v = rng.uniform(0.58, 0.76), floor + rng.uniform(0.07, 0.2)
        bubble = ((u - place_u) / rng.uniform(0.02, 0.06)) ** 2 + (
            (v - place_v) / rng.uniform(0.015, 0.035)
        ) ** 2
        dense -= rng.uniform(0.04, 0.13) * smoothstep(-bubble - 0.2 * film.field(0.03), -1.2, -0.4)


def _opacities(film: Film, visible: Array, lungs: Sequence[Array]) -> tuple[Array, Array]:
    """Hazy opacities in the visible lung: their strength 0-1 and the ground truth."""
    rng, field, size, u, v = film.rng, film.field, film.size, film.u, film.v
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
        haze = np.maximum(haze, strength * smoothstep(-shape, -1.25, -0.62))
    truth = (haze > 0.2) & (visible > 0.5)
    truth = ndimage.binary_opening(ndimage.binary_fill_holes(truth), iterations=max(1, size // 200))
    parts, found = ndimage.label(truth, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=found + 1)
    keep = sizes >= max(12, 0.002 * size * size)
    keep[0] = False
    truth = keep[parts]
    # What was too small for the ground truth must not be visible either.
    near = np.clip(ndimage.gaussian_filter(truth.astype(np.float32), 0.012 * size) * 2, 0, 1)
    patchy = 0.85 + 0.11 * field(0.035) + 0.06 * field(0.012)
    return haze * near * np.clip(patchy, 0.3, 1.3), truth
