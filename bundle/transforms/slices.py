"""2.5-D: a slice and its neighbours as channels, across any of the three planes of the body."""

from __future__ import annotations

import torch
from torch import Tensor

from bundle.cases.modality_settings import View

#: Axis of a volume (1, X, Y, Z) in voxel order LPS that a view's slices are stacked along.
_ACROSS: dict[View, int] = {"axial": 3, "coronal": 2, "sagittal": 1}


def seen_from(volume: Tensor, view: View) -> Tensor:
    """(C, X, Y, Z) in voxel order LPS -> the same with the axis across the view's slices last; nothing is copied."""
    return volume.movedim(_ACROSS[view], -1)


def back_from(stack: Tensor, view: View) -> Tensor:
    """What `seen_from` turned, turned back."""
    return stack.movedim(-1, _ACROSS[view])


def neighbouring_slices(volume: Tensor, index: int, neighbours: int = 1, distance: int = 1) -> Tensor:
    """A slice with its neighbours on either side.

    Args:
        volume: (1, X, Y, Z).
        index: of the slice along Z.
        neighbours: slices on either side; beyond the ends the last slice is repeated.
        distance: from one to the next, in slices.

    Returns:
        (2 * neighbours + 1, X, Y), from below to above.
    """
    depth = volume.shape[-1]
    positions = index + distance * torch.arange(-neighbours, neighbours + 1)
    return volume[0][..., positions.clamp(0, depth - 1)].movedim(-1, 0)
