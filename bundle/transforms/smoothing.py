"""Smoothing before a resampling to a coarser grid, so that noise is not aliased.

sigma = (new spacing / old - 1) / 2 along each axis that becomes coarser, as scikit-image's `anti_aliasing`. MONAI's
own option pads with 0, which darkens the borders of a film.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage


class _Smoothd(MapTransform):
    def factors(self, image: Any) -> list[float]:
        """How much coarser each spatial axis becomes."""
        raise TypeError(f"{type(self).__name__} says by what factor its images become coarser")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            sigmas = [max(0.0, (factor - 1.0) / 2.0) for factor in self.factors(item[key])]
            if max(sigmas) > 0.0:
                image = np.asarray(item[key])
                # the case keeps what it was read as; a copy of that is smoothed where it lies
                case = item.get("case")
                owned = case is not None and not np.may_share_memory(image, case.array)
                smooth = ndimage.gaussian_filter(
                    image, sigma=(0.0, *sigmas), mode="nearest", output=image if owned else None
                )
                item[key] = MetaTensor(torch.from_numpy(smooth)).copy_meta_from(item[key])
        return item


class SmoothForSpacingd(_Smoothd):
    """Before MONAI's Spacingd.

    Args:
        keys: MetaTensors (C, X, Y, Z) with an affine in mm.
        pixdim: mm along X, Y and Z that follow.
    """

    def __init__(self, keys: KeysCollection, pixdim: Sequence[float]) -> None:
        super().__init__(keys)
        self.pixdim = tuple(pixdim)

    def factors(self, image: Any) -> list[float]:
        spacing = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
        return [float(after / before) for after, before in zip(self.pixdim, spacing, strict=True)]


class SmoothForSized(_Smoothd):
    """Before MONAI's Resized.

    Args:
        keys: MetaTensors (C, *spatial).
        size: pixels of the longest axis that follow; with `in_plane`, of the first two.
        in_plane: resize the first two axes each, and leave the others.
    """

    def __init__(self, keys: KeysCollection, size: int, in_plane: bool = False) -> None:
        super().__init__(keys)
        self.size = size
        self.in_plane = in_plane

    def factors(self, image: Any) -> list[float]:
        shape = image.shape[1:]
        if self.in_plane:
            return [shape[0] / self.size, shape[1] / self.size, *[1.0] * (len(shape) - 2)]
        return [max(shape) / self.size] * len(shape)
