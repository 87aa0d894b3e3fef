"""Maps on a volume's own grid are those of MONAI's Invertd, whatever way the volume lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Invertd
from scipy import ndimage

from bundle.cases import CaseReference
from bundle.cases.modality_settings import CtSettings, ModalitySettings
from bundle.cases.structures import Structures
from bundle.transforms import preprocessing, source_grid
from bundle.transforms.source_grid import SourceGrid, SourceMaps

SHAPE = (44, 38, 21)
TURN = np.deg2rad(12.0)
AFFINES = {
    "as MONAI's": np.diag([0.8, 0.7, 1.5, 1.0]),
    "mirrored and moved": np.array([[-0.8, 0, 0, 9], [0, -0.7, 0, -3], [0, 0, 1.5, 40], [0, 0, 0, 1.0]]),
    "axes exchanged": np.array([[0, 0, 3.0, 1], [1.1, 0, 0, 2], [0, -0.9, 0, 3], [0, 0, 0, 1.0]]),
    "coarser": np.diag([3.0, 3.1, 5.0, 1.0]),
    "the network's own": np.diag([-2.4, -2.4, 3.0, 1.0]),
    "oblique": np.array(
        [
            [0.8 * np.cos(TURN), -0.7 * np.sin(TURN), 0, 0],
            [0.8 * np.sin(TURN), 0.7 * np.cos(TURN), 0, 0],
            [0, 0, 1.5, 0],
            [0, 0, 0, 1.0],
        ]
    ),
    "tilted gantry": np.array([[0.8, 0, 0, 0], [0, 0.8, 0.4, 0], [0, 0, 2.0, 0], [0, 0, 0, 1.0]]),
}


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize("lies", AFFINES)
def test_as_invertd(lies: str, size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_grid, "_SLAB_VALUES", 5 * 4 * SHAPE[0] * SHAPE[1])  # five slices
    random = np.random.default_rng(0)
    values = random.normal(0, 50, SHAPE).astype(np.float32)
    path = tmp_path / "volume.nii"
    nibabel.save(nibabel.Nifti1Image(values, AFFINES[lies]), path)  # type: ignore[attr-defined, no-untyped-call]
    transforms = preprocessing(Structures([]), ModalitySettings(ct=CtSettings(in_plane_size=size)))
    item: dict[Any, Any] = transforms({"image": str(path), "reference": CaseReference("a", path)})  # type: ignore[assignment]
    image = item["image"]
    smooth = ndimage.gaussian_filter(random.normal(size=(4, *image.shape[1:])), (0, 2, 2, 2))
    maps = torch.from_numpy(smooth.astype(np.float32) * 30).softmax(dim=0)
    inverse = Invertd("pred", transform=transforms, orig_keys="image", nearest_interp=False)
    expected = np.asarray(inverse({**item, "pred": MetaTensor(maps, meta=image.meta)})["pred"])
    grid = SourceGrid(np.asarray(image.affine), image.shape[1:], item["case"].affine, SHAPE)
    found = SourceMaps(maps, grid)
    assert found.shape == expected.shape == (4, *SHAPE) and len(found) == 4
    whole = np.asarray(found)
    np.testing.assert_allclose(whole, expected, atol=2e-5)
    assert np.array_equal(whole.argmax(axis=0), expected.argmax(axis=0))
    for channel, one in enumerate(found):
        np.testing.assert_array_equal(one, whole[channel])
    slices = [part for part, _ in found.chosen([2]).slabs()]
    assert slices[0].start == 0 and slices[-1].stop == SHAPE[2]
    np.testing.assert_array_equal(found[-1], whole[3])
    with pytest.raises(IndexError):
        found[4]
