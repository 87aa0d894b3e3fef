"""What noise is seeded with: the image itself, so that a case gives one result under any name and beside any other."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.transforms import MapTransform

#: In the meta of an image.
CONTENT_KEY = "content_key"


class ContentKeyd(MapTransform):
    """Write a digest of the image's values into its meta, as 'content_key'.

    It comes where the image stands as every source of it gives it, in one voxel order and polarity and not yet
    resampled: a study as DICOM and as NIfTI has the same values, but an affine that differs by rounding. Values are
    rounded to whole numbers, HU or grey levels, so that it does not matter in what precision they were scaled.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key].meta[CONTENT_KEY] = content_key(np.asarray(item[key]))
        return item


def content_key(array: np.ndarray) -> str:
    """Hexadecimal digest of shape and rounded values, slice by slice along the last axis."""
    digest = hashlib.sha256(repr(array.shape).encode())
    for block in np.moveaxis(array, -1, 0):
        whole = np.rint(block) + np.float32(0)  # no -0
        digest.update(np.ascontiguousarray(whole, dtype=np.float32).data)
    return digest.hexdigest()[:32]
