"""Structures lose the fragments that are too small beside their largest piece."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.cases.structures import Structures
from bundle.inference.postprocess import remove_fragments_of


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


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_are_checked(share: float) -> None:
    with pytest.raises(ValueError, match="least_piece"):
        Structures([{"name": "lung", "modality": "CT", "least_piece": share}])


def test_structures_say_which_are_one_piece() -> None:
    structures = Structures(
        [
            {"name": "liver", "modality": "CT", "one_piece": True},
            {"name": "lung", "modality": "CT", "least_piece": 0.05},
            {"name": "nodule", "modality": "CT"},
            {"name": "spleen", "modality": "CT", "one_piece": True},
        ]
    )
    assert structures.in_one_piece() == [1, 4]
    assert structures.least_pieces() == {1: 0.5, 2: 0.05, 4: 0.5}
