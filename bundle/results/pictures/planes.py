"""A volume upright in its anatomical planes, in radiological convention: the patient's right on the left."""

from __future__ import annotations

from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

_THIN = 0.15  # a plane whose short side is under this part of its long side shows too little
_OBLIQUE_COSINE = 0.99


class Plane(NamedTuple):
    """An anatomical plane in a RAS+ grid: the axis it fixes, the two it shows, the letters around it.

    Attributes:
        letters: orientation at the left, right, top and bottom edge.
    """

    name: str
    fixed: int
    across: int
    down: int
    letters: tuple[str, str, str, str]


PLANES = (
    Plane("Axial", 2, 0, 1, ("R", "L", "A", "P")),
    Plane("Coronal", 1, 0, 2, ("R", "L", "S", "I")),
    Plane("Sagittal", 0, 1, 2, ("A", "P", "S", "I")),
)


class UprightGrid:
    """How a volume's grid lies in the patient.

    Args:
        affine: (4, 4) voxel index -> mm, RAS+; a degenerate one is shown as it is stored.
        shape: of the volume, in the order of the file.
    """

    def __init__(self, affine: NDArray[np.float64], shape: tuple[int, ...]) -> None:
        self._orientation = _orientation(affine)
        order = np.argsort(self._orientation[:, 0])  # RAS+ axis -> axis of the file
        edges = nib.affines.voxel_sizes(affine)
        self.shape = tuple(shape[axis] for axis in order)
        self.spacing: NDArray[np.float64] = np.where(edges > 0, edges, 1.0)[order]
        self._flipped = self._orientation[order, 1] < 0
        self._oblique = _is_oblique(affine)

    def turned(self, array: NDArray[Any]) -> NDArray[Any]:
        """A volume in the order of the file -> the closest RAS+ order; no copy."""
        turned: NDArray[Any] = nib.orientations.apply_orientation(array, self._orientation)
        return turned

    def useful_planes(self) -> list[Plane]:
        """Those that are no mere line; at least one."""
        extent = np.asarray(self.shape) * self.spacing

        def slenderness(plane: Plane) -> float:
            sides = extent[[plane.across, plane.down]]
            return float(sides.min() / max(sides.max(), 1e-12))

        useful = [plane for plane in PLANES if slenderness(plane) >= _THIN]
        return useful or [max(PLANES, key=slenderness)]

    def size(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a plane in mm."""
        sides = [float(self.shape[axis] * self.spacing[axis]) for axis in (plane.across, plane.down)]
        return sides[0], sides[1]

    def title(self, plane: Plane) -> str:
        return f"{plane.name}{' (oblique)' if self._oblique else ''}"

    def number(self, plane: Plane, index: int) -> int:
        """Of a slice in the file, from 1, given its index in the RAS+ order."""
        return self.shape[plane.fixed] - index if self._flipped[plane.fixed] else index + 1


def upright(turned: NDArray[Any], plane: Plane, index: int) -> NDArray[Any]:
    """One slice of a RAS+ volume as rows from the top and columns from the left."""
    return np.ascontiguousarray(np.moveaxis(turned, plane.fixed, 0)[index][::-1, ::-1].T)


def best_slice(mask: NDArray[np.uint8], axis: int) -> int:
    """Where most structures are near their largest cross-section; the middle of an empty mask."""
    areas = np.stack([np.bincount(cut.ravel(), minlength=256)[1:] for cut in np.moveaxis(mask, axis, 0)])
    largest = areas.max(axis=0)
    if not largest.any():
        return int(mask.shape[axis]) // 2
    nearness: NDArray[np.float64] = (areas / np.maximum(largest, 1)).sum(axis=1)
    return int(nearness.argmax())


def _orientation(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the file's axes to the closest RAS+ ones."""
    orientation: NDArray[np.float64] = nib.orientations.io_orientation(affine)
    if np.isnan(orientation).any():
        return np.array([[0, 1], [1, 1], [2, 1]], dtype=np.float64)
    return orientation


def _is_oblique(affine: NDArray[np.float64]) -> bool:
    directions = np.abs(affine[:3, :3]) / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12)
    return bool((directions.max(axis=0) < _OBLIQUE_COSINE).any())
