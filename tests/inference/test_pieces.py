"""Structures lose fragments and ends that are too small beside the rest of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Identityd

from bundle.cases.case import Case, CaseReference
from bundle.cases.modality_settings import CtSettings, ModalitySettings
from bundle.cases.structures import Structures
from bundle.inference.inferer import SegmentationInferer
from bundle.inference.postprocess import ToPredictiond, remove_fragments_of, trim_ends_of
from bundle.networks.prompt_reading import PromptReading


def test_pieces_under_half_of_the_largest_become_background() -> None:
    mask = np.zeros((12, 6, 4), dtype=np.uint8)
    mask[0:4, 0:4, 0:2] = 5  # 32 voxels
    mask[8:10, 0:3, 0:2] = 5  # 12, elsewhere
    mask[4, 4, 0] = 5  # touches the first at a corner only
    mask[6:8, 4:6, 2:4] = 5  # 8, not half of 32
    mask[5, 5, :] = 7
    mask[11, 5, 0] = 7
    expected = mask.copy()
    expected[8:10, 0:3, 0:2] = 0
    expected[4, 4, 0] = 0
    expected[6:8, 4:6, 2:4] = 0
    remove_fragments_of(mask, {5: 0.5, 6: 0.5})
    assert np.array_equal(mask, expected)


def test_a_second_piece_of_like_size_stays() -> None:
    mask = np.zeros((10, 4, 4), dtype=np.uint8)
    mask[0:3] = 2
    mask[6:8] = 2  # 32 of 48
    mask[9, 0, 0] = 2
    remove_fragments_of(mask, {2: 0.5})
    assert mask[:3].all() and mask[6:8].all() and not mask[9].any()


def test_a_value_in_one_piece_stays_whole() -> None:
    mask = np.zeros((5, 5, 5), dtype=np.uint8)
    mask[1:4, 2, 2] = 1
    remove_fragments_of(mask, {1: 0.5, 2: 0.5})
    assert mask.sum() == 3


def test_each_structure_has_its_own_share() -> None:
    mask = np.zeros((20, 4, 4), dtype=np.uint8)
    mask[0:10] = 1  # 160 voxels, as one lung
    mask[11:15] = 1  # 64, the other
    mask[16, 0, 0:4] = 1  # 4, less than a twentieth
    mask[18] = 3  # 16 and 1, of which all is kept
    mask[16, 3, 3] = 3
    remove_fragments_of(mask, {1: 0.05})
    assert (mask == 1).sum() == 224 and (mask == 3).sum() == 17


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_at_the_ends_that_show_little_become_background(axis: int) -> None:
    areas = [1, 3, 60, 2, 100, 1, 1, 0, 50]  # of value 4, slice by slice; 2 of 100 are enough, 1 is not
    mask = np.zeros((9, 10, 10), dtype=np.uint8)
    for one, area in zip(mask, areas, strict=True):
        one.ravel()[:area] = 4
    mask[0, 9, 9] = 3  # others stay
    moved = np.moveaxis(mask, 0, axis).copy()
    trim_ends_of(moved, {4: 0.02, 5: 0.02}, axis)
    expected = np.moveaxis(mask, 0, axis).copy()
    np.moveaxis(expected, axis, 0)[0, 0, 0] = 0
    assert np.array_equal(moved, expected)


def test_a_structure_without_such_ends_stays_whole() -> None:
    mask = np.zeros((4, 4, 6), dtype=np.uint8)
    mask[1:3, 1:3, 2:4] = 1
    kept = mask.copy()
    trim_ends_of(mask, {1: 1.0}, 2)
    assert np.array_equal(mask, kept)


@pytest.mark.parametrize("field", ["least_piece", "least_end"])
@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_are_checked(field: str, share: float) -> None:
    with pytest.raises(ValueError, match=field):
        Structures([{"name": "lung", "modality": "CT", field: share}])


def test_structures_say_which_are_one_piece() -> None:
    structures = Structures(
        [
            {"name": "liver", "modality": "CT", "one_piece": True},
            {"name": "lung", "modality": "CT", "least_piece": 0.05, "least_end": 0.02},
            {"name": "nodule", "modality": "CT"},
            {"name": "spleen", "modality": "CT", "one_piece": True},
        ]
    )
    assert structures.in_one_piece() == [1, 4]
    assert structures.least_pieces() == {1: 0.5, 2: 0.05, 4: 0.5}
    assert structures.least_ends() == {2: 0.02}


@pytest.mark.parametrize("codes", ["LPS", "SLP", "ASR"])
@pytest.mark.parametrize("trimmed", [True, False])
def test_a_volume_is_trimmed_across_its_axial_slices_however_it_is_stored(codes: str, trimmed: bool) -> None:
    """An organ of 8 x 8 pixels in five slices, and of one pixel in a sixth, nearest the feet."""
    structures = Structures([{"name": "liver", "modality": "CT", "least_end": 0.1}])
    upright = np.zeros((8, 8, 6), dtype=np.float32)
    upright[:, :, 1:] = 1.0
    upright[3, 3, 0] = 1.0
    to_stored = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    volume: Any = nibabel.Nifti1Image(upright, np.diag([3.0, 3.0, 3.0, 1.0])).as_reoriented(to_stored)
    organ = torch.from_numpy(np.ascontiguousarray(volume.dataobj))
    item = {
        "case": Case(CaseReference("a", Path("a.nii")), organ[None].numpy(), volume.affine, "CT", "option"),
        "image": MetaTensor(organ[None], affine=torch.from_numpy(volume.affine)),
        "pred": MetaTensor(
            torch.stack([1 - organ, organ, torch.zeros_like(organ)]), meta={"reading": PromptReading("")}
        ),
    }
    modalities = ModalitySettings(ct=CtSettings(remove_fragments=trimmed))
    inferer = SegmentationInferer(structures, modalities)
    result = ToPredictiond(Compose([Identityd("image")]), structures, inferer)(item)
    found: Any = nibabel.as_closest_canonical(nibabel.Nifti1Image(result["prediction"].mask, volume.affine))
    mask = np.asarray(found.dataobj)
    assert (mask[:, :, 1:] == 1).all()
    assert np.count_nonzero(mask[:, :, 0]) == (0 if trimmed else 1)
