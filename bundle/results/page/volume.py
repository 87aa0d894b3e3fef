"""Image and mask of a volume, small enough for a viewer in a page."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.results.files.images import write_nifti
from bundle.results.pictures.windows import display_window, to_grey
from bundle.results.prediction import Prediction

_MOST_VOXELS = 3_000_000


@dataclass(frozen=True)
class ViewerVolume:
    """A volume as the viewer takes it.

    Attributes:
        image, mask: gzipped NIfTI, uint8; the image through the window in which slices are shown.
        shape: of both, in the order of the file.
        spacing: edges of a voxel in mm.
    """

    image: bytes
    mask: bytes
    shape: tuple[int, ...]
    spacing: tuple[float, ...]

    def script(self) -> str:
        """A script that defines `caseVolume`: a page opened from a folder may load scripts, but no other files."""
        parts = {"image": self.image, "mask": self.mask}
        encoded = {name: base64.b64encode(content).decode() for name, content in parts.items()}
        return f"globalThis.caseVolume = {json.dumps(encoded)};\n"


def viewer_volume(prediction: Prediction, most_voxels: int = _MOST_VOXELS) -> ViewerVolume | None:
    """Image and mask with at most `most_voxels` voxels, the short edges of voxels merged first.

    Merged voxels have the mean of the image (of those that are there: `skimage.measure.block_reduce` would count zeros
    beyond the edge) and the label in their middle. None where the affine is degenerate.
    """
    affine, spacing = prediction.case.affine, prediction.case.spacing
    if affine is None or spacing is None or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        return None
    image, mask = prediction.case.array[0], prediction.mask
    shape, edges, factors = np.array(mask.shape), np.array(spacing), np.ones(3, dtype=np.int64)
    while np.prod(-(-shape // factors)) > most_voxels:
        factors[np.argmin(np.where(shape > factors, edges * factors, np.inf))] += 1
    for axis, factor in enumerate(factors.tolist()):
        starts = np.arange(0, mask.shape[axis], factor)
        counts = np.diff(starts, append=mask.shape[axis]).astype(np.float32)
        image = np.add.reduceat(image, starts, axis) / np.expand_dims(
            counts, [one for one in range(3) if one != axis]
        )
        mask = np.take(mask, np.minimum(starts + factor // 2, mask.shape[axis] - 1), axis)
    scaling = np.diag([*factors, 1.0])
    scaling[:3, 3] = (factors - 1) / 2
    return ViewerVolume(
        image=_nifti(to_grey(image, display_window(prediction)), affine @ scaling),
        mask=_nifti(mask, affine @ scaling),
        shape=mask.shape,
        spacing=tuple((edges * factors).tolist()),
    )


def _nifti(data: NDArray[np.uint8], affine: NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    write_nifti(buffer, data.shape, np.moveaxis(data, -1, 0), affine)
    return buffer.getvalue()
