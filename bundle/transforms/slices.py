"""2.5-D: an axial slice and its neighbours as channels."""

from __future__ import annotations

import torch
from torch import Tensor


def neighbouring_slices(volume: Tensor, index: int, neighbours: int = 1) -> Tensor:
    """A slice with its neighbours on either side.

    Args:
        volume: (1, X, Y, Z).
        index: of the slice along Z.
        neighbours: slices on either side; beyond the ends the last slice is repeated.

    Returns:
        (2 * neighbours + 1, X, Y), from below to above.
    """
    depth = volume.shape[-1]
    positions = torch.arange(index - neighbours, index + neighbours + 1).clamp(0, depth - 1)
    return volume[0][..., positions].movedim(-1, 0)
