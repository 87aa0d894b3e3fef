"""Structures that are one piece keep their largest; others keep all."""

from __future__ import annotations

import numpy as np

from bundle.cases.structures import Structures
from bundle.inference.postprocess import remove_fragments_of


def test_all_but_the_largest_piece_of_a_value_become_background() -> None:
    mask = np.zeros((12, 6, 4), dtype=np.uint8)
    mask[0:4, 0:4, 0:2] = 5  # 32 voxels
    mask[8:10, 0:3, 0:2] = 5  # 12, elsewhere
    mask[4, 4, 0] = 5  # touches the first at a corner only
    mask[5, 5, :] = 7
    mask[11, 5, 0] = 7
    expected = mask.copy()
    expected[8:10, 0:3, 0:2] = 0
    expected[4, 4, 0] = 0
    remove_fragments_of(mask, [5, 6])
    assert np.array_equal(mask, expected)


def test_a_value_in_one_piece_stays_whole() -> None:
    mask = np.zeros((5, 5, 5), dtype=np.uint8)
    mask[1:4, 2, 2] = 1
    remove_fragments_of(mask, [1, 2])
    assert mask.sum() == 3


def test_structures_say_which_are_one_piece() -> None:
    structures = Structures(
        [
            {"name": "liver", "modality": "CT", "one_piece": True},
            {"name": "lung", "modality": "CT"},
            {"name": "spleen", "modality": "CT", "one_piece": True},
        ]
    )
    assert structures.in_one_piece() == [1, 3]
