"""2.5-D: an axial slice and its neighbours as channels."""

from __future__ import annotations

import torch
from torch import Tensor


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
