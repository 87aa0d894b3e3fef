"""From the network's grid back to a volume's own, a slab at a time: whole maps of every structure would not fit memory.

The same as MONAI's Invertd with linear interpolation, to the rounding of float32; Invertd holds the coordinates of
every voxel and all channels at once, some 70 bytes a voxel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.networks.utils import to_norm_affine
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn

_SLAB_VALUES = 1 << 24  # of all channels, in a slab
_SAME = 1e-3  # what MONAI takes for no change of a grid
_OFF_AXIS = 1e-4  # of a voxel, over the whole of the volume


class _Places(NamedTuple):
    """Along one axis of the volume: between which positions of the network's grid each voxel lies."""

    lower: Tensor
    upper: Tensor
    part: Tensor


class SourceGrid:
    """Brings maps from the grid of a preprocessed volume to the grid it was read in.

    Args:
        affine, shape: (4, 4) voxel index -> mm and (X, Y, Z) of the preprocessed image.
        source_affine, source_shape: of the volume as read.
    """

    def __init__(
        self,
        affine: NDArray[np.float64],
        shape: Sequence[int],
        source_affine: NDArray[np.float64],
        source_shape: Sequence[int],
    ) -> None:
        self.shape = tuple(source_shape)
        to_network = np.linalg.inv(affine) @ source_affine
        ornt = nib.orientations.io_orientation(to_network)
        #: axis of the network's grid along each axis of the volume, and whether it runs the other way
        self.order = [int(axis) for axis in ornt[:, 0]]
        self.flips = [direction < 0 for direction in ornt[:, 1]]
        # the volume in the axes of the network's grid, as MONAI's Orientation has it
        oriented = nib.orientations.inv_ornt_aff(ornt, self.shape)
        oriented_shape = tuple(self.shape[self.order.index(axis)] for axis in range(3))
        xform = np.linalg.solve(affine, source_affine @ oriented)
        theta = to_norm_affine(torch.from_numpy(xform).float()[None], tuple(shape), oriented_shape)[0]
        self.theta = theta[[2, 1, 0]][:, [2, 1, 0, 3]]  # torch counts axes from the last
        beside = np.abs(xform[:3, :3] - np.diag(np.diag(xform[:3, :3])))
        self.places: list[_Places] | None = None
        if (beside * oriented_shape).max() < _OFF_AXIS:
            unchanged = tuple(shape) == oriented_shape and np.allclose(xform, np.eye(4), atol=_SAME)
            self.places = [self._places(along, shape, unchanged) for along in range(3)]

    def slab(self, maps: Tensor, start: int, stop: int) -> Tensor:
        """(C, *network's grid) -> (C, X, Y, stop - start) of the volume's slices from `start` on."""
        if self.places is None:
            return self._sampled(maps, start, stop)
        turned = maps.permute(0, *(1 + axis for axis in self.order))
        # the slices first: they are the fewest
        for dim, places, part in (
            (3, self.places[2], slice(start, stop)),
            (1, self.places[0], slice(None)),
            (2, self.places[1], slice(None)),
        ):
            lower, upper = (turned.index_select(dim, index[part]) for index in (places.lower, places.upper))
            weight = places.part[part].reshape([-1 if each == dim else 1 for each in range(4)])
            turned = lower.lerp_(upper, weight)
        return turned

    def _sampled(self, maps: Tensor, start: int, stop: int) -> Tensor:
        """Of a volume whose slices are sheared against each other, which the network's are not."""
        base = [self._base(along) for along in range(3)]
        base[2] = base[2][start:stop]
        # (X, Y, slices, 4): as in torch's affine_grid, which would make that of all slices
        points = torch.ones((*map(len, base), 4))
        for along, middles in enumerate(base):
            shape = [-1 if each == along else 1 for each in range(3)]
            points[..., 2 - self.order[along]] = middles.reshape(shape)
        grid = (points.reshape(1, -1, 4) @ self.theta[None].mT).reshape(*points.shape[:3], 3)
        sampled = nn.functional.grid_sample(
            maps[None], grid[None], padding_mode="border", align_corners=False
        )
        return sampled[0]

    def _base(self, along: int) -> Tensor:
        """Middles of the voxels along an axis of the volume in [-1, 1], as torch's affine_grid has them."""
        count = self.shape[along]
        middles = torch.linspace(-1, 1, count) * ((count - 1) / count) if count > 1 else torch.zeros(1)
        return middles.flip(0) if self.flips[along] else middles

    def _places(self, along: int, shape: Sequence[int], unchanged: bool) -> _Places:
        axis = self.order[along]
        last = shape[axis] - 1
        if unchanged:
            places = torch.arange(float(shape[axis]))
        else:
            size = [1, 1, 1, 1, 1]
            size[2 + axis] = self.shape[along]
            grid = nn.functional.affine_grid(self.theta[None], size, align_corners=False)
            # as grid_sample rounds it
            places = ((grid[..., 2 - axis].reshape(-1) + 1.0) * shape[axis] - 1.0) / 2.0
        places = places.flip(0) if self.flips[along] else places
        places = places.clamp(0, last)
        lower = places.floor()
        return _Places(lower.long(), (lower + 1).clamp(max=last).long(), places - lower)


class SourceMaps:
    """Maps (K, X, Y, Z) on a volume's own grid, float32 in [0, 1], each part worked out when it is asked for.

    It counts as a sequence of K arrays (X, Y, Z), and numpy takes it for the whole array.

    Args:
        maps: (K, *network's grid).
        grid: of the volume.
    """

    def __init__(self, maps: Tensor, grid: SourceGrid) -> None:
        self.maps = maps
        self.grid = grid

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.maps), *self.grid.shape)

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, channel: int) -> NDArray[np.float32]:
        return self.chosen([range(len(self))[channel]])._whole()[0]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[channel] for channel in range(len(self)))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        whole: NDArray[Any] = self._whole()
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def chosen(self, channels: Sequence[int]) -> SourceMaps:
        """Some of the maps."""
        return SourceMaps(self.maps[list(channels)], self.grid)

    def slabs(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Which slices, and (K, X, Y, slices) of them, from the first to the last."""
        across, down, depth = self.grid.shape
        thick = max(1, _SLAB_VALUES // max(1, len(self) * across * down))
        for start in range(0, depth, thick):
            stop = min(start + thick, depth)
            yield slice(start, stop), self.grid.slab(self.maps, start, stop).clamp_(0.0, 1.0).numpy()

    def _whole(self) -> NDArray[np.float32]:
        whole = np.empty(self.shape, dtype=np.float32)
        for slices, slab in self.slabs():
            whole[..., slices] = slab
        return whole
