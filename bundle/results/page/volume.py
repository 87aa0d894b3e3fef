"""Image and mask of a volume, small enough for a viewer in a page."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.results.files.images import stream_nifti
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

    Merged voxels have the mean of the image and the label in their middle. None where the affine is degenerate.
    """
    affine, spacing = prediction.case.affine, prediction.case.spacing
    if affine is None or spacing is None or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        return None
    factors = _factors(prediction.mask.shape, spacing, most_voxels)
    image, mask = prediction.case.array[0], prediction.mask
    for axis, factor in enumerate(factors):
        if factor > 1:
            image = _merged(image, axis, factor)
            middles = np.minimum(np.arange(0, mask.shape[axis], factor) + factor // 2, mask.shape[axis] - 1)
            mask = np.take(mask, middles, axis)
    scaling = np.diag([*factors, 1.0])
    scaling[:3, 3] = (np.asarray(factors) - 1) / 2
    grey = to_grey(image, display_window(prediction))
    return ViewerVolume(
        image=_nifti(grey, affine @ scaling),
        mask=_nifti(mask, affine @ scaling),
        shape=mask.shape,
        spacing=tuple(edge * factor for edge, factor in zip(spacing, factors, strict=True)),
    )


def _factors(shape: tuple[int, ...], spacing: tuple[float, ...], most_voxels: int) -> list[int]:
    """How many voxels to merge along each axis, so that the merged ones are as close to cubes as may be."""
    factors = [1] * len(shape)
    while np.prod([-(-edge // factor) for edge, factor in zip(shape, factors, strict=True)]) > most_voxels:
        edges = [
            edge * factor if length > factor else np.inf
            for edge, factor, length in zip(spacing, factors, shape, strict=True)
        ]
        factors[int(np.argmin(edges))] += 1
    return factors


def _merged(values: NDArray[np.float32], axis: int, factor: int) -> NDArray[np.float32]:
    starts = np.arange(0, values.shape[axis], factor)
    counts = np.diff(np.append(starts, values.shape[axis])).astype(np.float32)
    sums: NDArray[np.float32] = np.add.reduceat(values, starts, axis=axis)
    return sums / counts.reshape([-1 if index == axis else 1 for index in range(values.ndim)])


def _nifti(data: NDArray[np.uint8], affine: NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    stream_nifti(buffer, data.shape, np.moveaxis(data, -1, 0), affine)
    return buffer.getvalue()
