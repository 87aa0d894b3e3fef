"""What files of volumes share, whatever their kind: bounds, axes, and a geometry in mm that can be inverted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.cases.errors import COPY_AGAIN, CaseError
from bundle.cases.image import SourceImage

MAX_VOXELS = 2_000_000_000
#: A report's warning of a file that does not say all of where it lies.
NOMINAL = "The file states no orientation or position in space; its geometry is nominal."

_SPLIT = "split it into 3-D volumes"
# No scan is longer than a few people, or shorter than a voxel of the network.
_LEAST_MM, _MOST_MM = 3.0, 5000.0


def checked(path: Path, volume: SourceImage) -> SourceImage:
    """A volume that can be used, as it is.

    Raises:
        CaseError: it holds values that are not finite, or has a geometry that cannot be inverted or is not in mm.
    """
    affine, values = volume.affine, volume.array
    assert affine is not None
    if not np.isfinite(affine).all():
        raise CaseError(path, "has a geometry with values that are not finite", "correct its header")
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    # Relative to the voxel, so that microscopic voxels pass and axes that fall together do not.
    if edges.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / edges)) < 1e-4:
        raise CaseError(path, "has a geometry that cannot be inverted", "correct its header")
    longest = float((edges * values.shape).max())
    if not _LEAST_MM <= longest <= _MOST_MM:
        problem = f"is {longest:.4g} mm long by its header"
        raise CaseError(path, problem, "correct its voxel size or the unit of its lengths")
    wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
    if wrong == values.size:
        raise CaseError(path, "holds only values that are not finite (NaN or infinite)", COPY_AGAIN)
    if wrong:
        raise CaseError(path, f"holds {wrong} values that are not finite (NaN or infinite)", "replace them")
    return volume


def volume_of(
    path: Path, array: NDArray[Any], affine: NDArray[np.float64], warnings: list[str]
) -> SourceImage:
    """An array (X, Y, Z), or (X, Y) of one slice, in HU, checked as that of a file would be; it is copied.

    Args:
        path: that messages name.
        affine: (4, 4) voxel index -> mm, RAS+.

    Raises:
        CaseError: see `spatial_shape` and `checked`; values that are no numbers.
    """
    if array.dtype.kind not in "iuf":
        raise CaseError(path, f"holds values of the type {array.dtype}", "give one grey value a voxel")
    shape = spatial_shape(path, array.shape, warnings)
    values = np.array(array, dtype=np.float32, order="C").reshape(shape)
    return checked(path, SourceImage(values, affine, "CT", warnings))


def spatial_shape(path: Path, shape: tuple[int, ...], warnings: list[str]) -> tuple[int, int, int]:
    """The (X, Y, Z) that a file's dimensions stand for; a 2-D image is a volume of one slice.

    Raises:
        CaseError: there are none, too many, or more than three.
    """
    if len(shape) < 2:
        raise CaseError(path, f"has {len(shape)} dimension(s)", "use a 2-D or 3-D image")
    if math.prod(shape) == 0:
        raise CaseError(path, f"holds no voxels (shape {_times(shape)})", COPY_AGAIN)
    if any(length != 1 for length in shape[3:]):
        raise CaseError(path, f"has {len(shape)} dimensions ({_times(shape)})", _SPLIT)
    if math.prod(shape) > MAX_VOXELS:
        raise CaseError(path, f"has more than {MAX_VOXELS:,} voxels ({_times(shape)})", "crop or resample it")
    if len(shape) > 3:
        warnings.append(f"Axes of length 1 after the third were dropped (shape {_times(shape)}).")
    x, y, z = (*shape, 1)[:3]
    return x, y, z


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)
