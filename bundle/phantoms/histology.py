"""An H&E tile as a slide scanner stores it; lengths are pixels at 0.25 um."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from bundle.phantoms.histology_nuclei import Nuclei, place_nuclei, stain_nuclei
from bundle.phantoms.histology_tissue import Tissue, draw_tissue, red_cells
from bundle.phantoms.noise import SmoothField
from bundle.phantoms.phantom import HISTOLOGY_LABELS, Phantom
from bundle.phantoms.sentences import histology_sentence
from bundle.phantoms.shapes import Array, smoothstep

# Optical density of the two stains in red, green and blue, as scanned slides show them.
_HAEMATOXYLIN = np.array([0.61, 0.68, 0.41])
_EOSIN = np.array([0.20, 0.87, 0.45])


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
    field = SmoothField(rng, (axis, axis), 64.0)
    tissue = draw_tissue(rng, field, size)
    fibre, waves = _collagen(rng, field, axis)
    nuclei = place_nuclei(rng, tissue, fibre, size)
    haematoxylin, mask = stain_nuclei(rng, nuclei, field, size)
    grain = 0.6 * field(1.7) + 0.5 * field(4)
    eosin = _eosin(rng, field, tissue, waves, grain, nuclei)
    basophilia = tissue.epithelium * rng.uniform(0.03, 0.26) * (1 + 0.3 * grain) + 0.03 * tissue.stroma
    haematoxylin = haematoxylin + np.where(mask, 0.3, 1.0) * basophilia
    eosin = eosin * np.where(mask, rng.uniform(0.35, 0.7), 1.0)
    red = np.zeros_like(tissue.lumen)
    if rng.random() < 0.45:
        red = red_cells(rng, field, tissue.stroma + 0.5 * tissue.lumen, mask, size)
    image = _compose_stains(rng, field, haematoxylin, np.clip(eosin, 0, None) * (1 - red), red)
    truth = mask.astype(np.uint8)
    return Phantom(image, truth, None, "H&E", dict(HISTOLOGY_LABELS), histology_sentence(truth))


def _collagen(rng: np.random.Generator, field: SmoothField, axis: Array) -> tuple[Array, Array]:
    """Direction of the fibres in radians and their relief, about -2 to 2, per pixel."""
    # Bundles run along the level lines of a smooth potential: they curve but never cross.
    potential = (
        field(110) * 150
        + field(40) * 22
        + axis[:, None] * rng.uniform(-1, 1)
        + axis[None, :] * rng.uniform(-1, 1)
    )
    gy, gx = np.gradient(potential)
    # Noise that is fine across the bundles and long along them, in three widths.
    across = rng.standard_normal((512, 64))
    along = (axis[:, None] * rng.uniform(0.4, 1) - axis[None, :] * rng.uniform(0.4, 1) + 12 * field(30)) / 26
    waves = sum(
        gain
        * ndimage.map_coordinates(across, [potential / width + 97 * width, along], order=1, mode="grid-wrap")
        for width, gain in ((1.8, 0.7), (4.0, 0.8), (9.0, 0.7))
    )
    return np.arctan2(gx, -gy), np.asarray(waves)


def _eosin(
    rng: np.random.Generator, field: SmoothField, tissue: Tissue, waves: Array, grain: Array, nuclei: Nuclei
) -> Array:
    """Eosin density of stroma, cytoplasm and what lies in the lumina."""
    lumen, stroma = tissue.lumen, tissue.stroma
    eosin = stroma * (0.55 + 0.15 * waves + 0.08 * grain + 0.12 * field(45))
    clefts = smoothstep(field(10) + 0.5 * waves, 1.3, 2.0) * stroma
    eosin *= 1 - 0.75 * clefts
    cytoplasm = 0.42 + 0.08 * grain + 0.08 * field(18) + 0.1 * field(60)
    if len(nuclei.centre) > 3:
        border = _cell_borders(field, nuclei, len(lumen))
        cytoplasm = cytoplasm + rng.uniform(-0.3, 0.3) * border
    eosin += tissue.epithelium * np.clip(cytoplasm, 0.03, None) * rng.uniform(0.7, 1.25) * tissue.pale
    eosin *= rng.uniform(0.8, 1.3)
    eosin += lumen * np.clip(0.02 + 0.06 * (field(7) > 1.6), 0, 1)  # secretion and debris
    eosin += 0.12 * smoothstep(lumen, 0.05, 0.5) * (1 - smoothstep(lumen, 0.5, 0.95))
    return np.asarray(eosin)


def _cell_borders(field: SmoothField, nuclei: Nuclei, size: int) -> Array:
    """1 on the borders of cells, which lie halfway between neighbouring nuclei."""
    grid = np.stack(np.meshgrid(np.arange(0, size, 2), np.arange(0, size, 2), indexing="ij"), axis=-1)
    drift = 3.0 * np.stack([field(14)[::2, ::2], field(14)[::2, ::2]], axis=-1)
    nearest = cKDTree(nuclei.centre).query(grid + drift, k=2)[0]
    border = np.exp(-(((nearest[..., 1] - nearest[..., 0]) / 3.5) ** 2))
    border = ndimage.zoom(border, 2, order=1)[:size, :size]
    return np.pad(border, [(0, size - border.shape[0]), (0, size - border.shape[1])], mode="edge")


def _compose_stains(
    rng: np.random.Generator, field: SmoothField, haematoxylin: Array, eosin: Array, red: Array
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
