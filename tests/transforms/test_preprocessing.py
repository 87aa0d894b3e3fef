"""Preprocessing shows the network the right place, and its answer comes back to the patient's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from bundle.cases import CaseReference, Modality
from bundle.cases.modality_settings import CtSettings, HistologySettings, ModalitySettings, XraySettings
from bundle.cases.structures import Structures
from bundle.transforms import preprocessing, reference_item


def rotation(degrees: float, axis: int) -> NDArray[np.float64]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    plane = [i for i in range(3) if i != axis]
    matrix = np.eye(3)
    matrix[np.ix_(plane, plane)] = [[c, -s], [s, c]]
    return matrix


def affine(
    directions: NDArray[np.float64], spacing: tuple[float, ...], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """With the middle of the volume in (12, -30, 100) mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = directions * spacing
    matrix[:3, 3] = np.array([12.0, -30.0, 100.0]) - matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    return matrix


IDENTITY = np.eye(3)
GRIDS: dict[str, tuple[tuple[int, int, int], tuple[float, float, float], NDArray[np.float64]]] = {
    "RAS, isotropic": ((61, 57, 53), (1.5, 1.5, 1.5), IDENTITY),
    "LPS, thick slices": ((71, 63, 19), (1.2, 1.3, 5.0), np.diag([-1.0, -1.0, 1.0])),
    "feet first": ((64, 60, 31), (1.4, 1.5, 3.0), np.diag([1.0, -1.0, -1.0])),
    "sagittal": (
        (23, 81, 64),
        (4.0, 1.1, 1.5),
        np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]])[:, [2, 0, 1]],
    ),
    "coronal": ((67, 75, 21), (1.3, 1.2, 4.5), np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])),
    "oblique": ((73, 69, 33), (1.2, 1.3, 2.7), rotation(17, 2) @ rotation(-11, 0)),
    "oblique, flipped": ((73, 69, 33), (1.2, 1.3, 2.7), rotation(-20, 1) @ np.diag([-1.0, 1.0, -1.0])),
    "few slices": ((64, 61, 3), (1.4, 1.4, 5.0), np.diag([-1.0, -1.0, 1.0])),
    "one slice": ((64, 61, 1), (1.4, 1.4, 5.0), np.diag([-1.0, -1.0, 1.0])),
}


def ball(matrix: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A soft ball in the patient, off the middle in every direction: 1 inside, 0 outside."""
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    mm = points @ matrix[:3, :3].T + matrix[:3, 3]
    distance = np.linalg.norm(mm - np.array([20.0, -25.0, 104.0]), axis=-1)
    return (1 / (1 + np.exp((distance - 16.0) / 2.5))).astype(np.float32)


def inverted(pipeline: Compose, item: dict[str, Any], prediction: torch.Tensor) -> MetaTensor:
    item["pred"] = MetaTensor(prediction, meta=item["image"].meta)
    back = Invertd("pred", transform=pipeline, orig_keys="image", nearest_interp=False, to_tensor=True)(item)
    result = back["pred"]
    assert isinstance(result, MetaTensor)
    return result


def dice(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("in_plane", [None, 64], ids=["spacing", "square"])
@pytest.mark.parametrize("grid", GRIDS)
def test_ct_is_seen_in_the_right_place_and_comes_back_to_its_own_grid(
    structures: Structures, tmp_path: Path, grid: str, in_plane: int | None
) -> None:
    shape, spacing, directions = GRIDS[grid]
    matrix = affine(directions, spacing, shape)
    field = ball(matrix, shape)
    path = tmp_path / "ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image((field * 400 - 160).astype(np.float32), matrix), path)
    pipeline = preprocessing(
        structures,
        ModalitySettings(
            ct=CtSettings(in_plane_size=in_plane, window=(-160.0, 240.0), spacing=(2.0, 2.0, 3.0))
        ),
    )
    item = pipeline(reference_item(CaseReference("ct", path)))
    image, case = item["image"], item["case"]
    assert case.array.shape == (1, *shape) and np.allclose(case.array, field * 400 - 160, atol=1e-3)
    if not grid.startswith("oblique"):
        # the first axis leads to the left, the second to the back, the third to the head
        assert nibabel.aff2axcodes(np.asarray(image.affine)) == ("L", "P", "S")
    if in_plane is None:
        assert np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0) == pytest.approx([2, 2, 3])
    else:
        assert image.shape[1:3] == (in_plane, in_plane)
    # forth: the ball lies where the image's own affine says
    seen = ball(np.asarray(image.affine), tuple(image.shape[1:]))
    assert np.abs(np.asarray(image[0]) - seen).mean() < 0.01
    assert dice(np.asarray(image[0]) > 0.5, seen > 0.5) > 0.97
    # and back, drawn anew on the network's grid
    result = inverted(pipeline, item, torch.from_numpy(np.stack([1 - seen, seen])))
    assert result.shape == (2, *shape)
    assert np.allclose(np.asarray(result.affine), case.affine, atol=1e-9)
    restored = np.asarray(result[1])
    assert np.abs(restored - field).mean() < 0.01
    assert dice(restored > 0.5, field > 0.5) > 0.96
    assert np.allclose(np.asarray(result.sum(dim=0)), 1.0, atol=1e-4)


def test_ct_window_clips_and_scales_houndsfield_units(structures: Structures, tmp_path: Path) -> None:
    hu = np.linspace(-1000, 1000, 6 * 6 * 4).reshape(6, 6, 4).astype(np.float32)
    path = tmp_path / "ct.nii"
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([-2.0, -2.0, 3.0, 1.0])), path)
    item = preprocessing(
        structures, ModalitySettings(ct=CtSettings(window=(-125.0, 275.0), spacing=(2.0, 2.0, 3.0)))
    )(reference_item(CaseReference("ct", path)))
    naive = ((hu + 125) / 400).clip(0, 1)
    assert np.allclose(np.asarray(item["image"][0]), naive, atol=1e-5)


def smooth(shape: tuple[int, int], seed: int, sigma: float = 6.0) -> NDArray[np.float64]:
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma, mode="nearest")
    return (noise - noise.min()) / (noise.max() - noise.min())


def picture(
    path: Path, shape: tuple[int, int], modality: Modality
) -> tuple[CaseReference, NDArray[np.float64]]:
    values = smooth(shape, 0)
    grey = np.rint(values * 255).astype(np.uint8)
    colour = np.stack([grey, 255 - grey, grey // 2], axis=-1)
    Image.fromarray(colour if modality == "H&E" else grey).save(path)
    return CaseReference("picture", path, modality=modality), values


def resampled(values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Bilinear in pixel centres, written out."""
    at = [
        ((np.arange(n) + 0.5) * old / n - 0.5).clip(0, old - 1)
        for n, old in zip(shape, values.shape, strict=True)
    ]
    low = [np.minimum(np.floor(a).astype(int), old - 2) for a, old in zip(at, values.shape, strict=True)]
    part = [a - b for a, b in zip(at, low, strict=True)]
    rows = values[low[0]] * (1 - part[0])[:, None] + values[low[0] + 1] * part[0][:, None]
    return rows[:, low[1]] * (1 - part[1]) + rows[:, low[1] + 1] * part[1]


@pytest.mark.parametrize(
    ("modality", "shape", "expected"),
    [
        ("X-ray", (61, 150), (26, 64)),
        ("X-ray", (97, 80), (64, 53)),
        ("X-ray", (40, 31), (64, 50)),
        ("H&E", (101, 77), (50, 38)),
        ("H&E", (64, 90), (32, 45)),
        ("H&E", (33, 121), (16, 60)),
    ],
)
def test_pictures_are_scaled_whole_and_come_back_to_their_size(
    structures: Structures,
    tmp_path: Path,
    modality: Modality,
    shape: tuple[int, int],
    expected: tuple[int, int],
) -> None:
    reference, values = picture(tmp_path / "a.png", shape, modality)
    pipeline = preprocessing(
        structures,
        ModalitySettings(
            xray=XraySettings(size=64, percentiles=(0.0, 100.0)), histology=HistologySettings(zoom=0.5)
        ),
    )
    item = pipeline(reference_item(reference))
    image = item["image"]
    assert image.shape == (3, *expected)
    # a film is smoothed before it is thinned out, or its noise would be aliased
    thinned = [max(0.0, (old / new - 1) / 2) for old, new in zip(shape, expected, strict=True)]
    before = gaussian_filter(values, thinned, mode="nearest") if modality == "X-ray" else values
    assert np.abs(np.asarray(image[0]) - resampled(before, expected)).max() < 0.02
    result = inverted(pipeline, item, torch.stack([image[0].as_tensor(), 1 - image[0].as_tensor()]))
    assert result.shape == (2, *shape)
    assert np.allclose(np.asarray(result.affine), np.eye(4), atol=1e-9)
    assert np.abs(np.asarray(result[0]) - values)[2:-2, 2:-2].max() < 0.06
    assert np.abs(np.asarray(result[0]) - values).mean() < 0.01


def test_xray_percentiles_become_black_and_white(structures: Structures, tmp_path: Path) -> None:
    values = np.rint(smooth((64, 64), 3) * 60000).astype(np.uint16)
    values[:2, :2] = 65535
    Image.fromarray(values).save(tmp_path / "a.png")
    pipeline = preprocessing(
        structures, ModalitySettings(xray=XraySettings(size=64, percentiles=(2.0, 95.0)))
    )
    image = pipeline(reference_item(CaseReference("a", tmp_path / "a.png")))["image"]
    low, high = np.percentile(values, [2.0, 95.0])
    naive = ((values - low) / (high - low)).clip(0, 1)
    assert image.shape == (3, 64, 64)
    for channel in image:
        assert np.allclose(np.asarray(channel), naive, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Divide by zero")
def test_an_xray_of_one_value_stays_finite(structures: Structures, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 30), 7, np.uint8)).save(tmp_path / "a.png")
    image = preprocessing(structures, ModalitySettings(xray=XraySettings(size=64)))(
        reference_item(CaseReference("a", tmp_path / "a.png"))
    )["image"]
    assert torch.isfinite(image).all() and image.min() >= 0 and image.max() <= 1


def test_both_polarities_of_one_xray_give_the_same_image(structures: Structures) -> None:
    pipeline = preprocessing(
        structures, ModalitySettings(xray=XraySettings(size=64, percentiles=(1.0, 97.0)))
    ).transforms[1]
    low_is_dark = torch.from_numpy(smooth((80, 60), 5) * 4000).float()[None]
    images = {}
    for photometric, values in (("MONOCHROME2", low_is_dark), ("MONOCHROME1", 4095 - low_is_dark)):
        meta = {"modality": "X-ray", "photometric": photometric, "case_id": "a"}
        item = pipeline({"image": MetaTensor(values.clone(), meta=meta)})
        assert item["image"].meta["photometric"] == "MONOCHROME2" and item["image"].meta["case_id"] == "a"
        images[photometric] = item["image"].as_tensor()
    assert torch.allclose(images["MONOCHROME1"], images["MONOCHROME2"], atol=1e-4)
    assert images["MONOCHROME2"].std().item() > 0.05


@pytest.mark.parametrize("grid", ["RAS, isotropic", "oblique, flipped"])
def test_labels_go_the_way_of_their_image(structures: Structures, tmp_path: Path, grid: str) -> None:
    shape, spacing, directions = GRIDS[grid]
    matrix = affine(directions, spacing, shape)
    field = ball(matrix, shape)
    nibabel.save(nibabel.Nifti1Image((field * 400 - 160).astype(np.float32), matrix), tmp_path / "ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image((field > 0.5).astype(np.uint8) * 7, matrix), tmp_path / "mask.nii.gz")
    reference = CaseReference("ct", tmp_path / "ct.nii.gz", tmp_path / "mask.nii.gz", labels={7: "liver"})
    pipeline = preprocessing(
        structures, ModalitySettings(ct=CtSettings(window=(-160.0, 240.0), spacing=(2.0, 2.0, 3.0)))
    )
    item = pipeline(reference_item(reference, with_label=True))
    assert item["label"].shape == item["image"].shape
    assert item["label"].unique().tolist() == [0, structures.value("liver")]
    assert np.allclose(np.asarray(item["label"].affine), np.asarray(item["image"].affine))
    assert dice(np.asarray(item["label"] > 0), np.asarray(item["image"] > 0.5)) > 0.93
