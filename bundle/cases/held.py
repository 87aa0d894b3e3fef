"""Images that a program holds in memory: nibabel, MONAI, SimpleITK and NumPy, as files of them would be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.cases.errors import CaseError
from bundle.cases.image import SourceImage
from bundle.cases.nifti import nifti_volume
from bundle.cases.pictures import check_size, picture_of
from bundle.cases.volumes import volume_of

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NO_POSITION = "The array came without a position or orientation: its axes were taken to run R, A, S."


def held_image(
    image: Any, name: Path, affine: ArrayLike | None = None, spacing: Sequence[float] | None = None
) -> SourceImage:
    """An image that lies in memory, checked as that of a file; its values are copied.

    Args:
        image: a nibabel NIfTI image; a MetaTensor, (1, X, Y, Z) or (X, Y, Z) with its affine, or (C, W, H) as MONAI
            reads pictures; a SimpleITK image of two or three dimensions; or an array, volumes in HU (X, Y, Z), pictures
            (H, W) or (H, W, 3) upright.
        name: what messages call it.
        affine: of arrays alone, (4, 4) voxel index -> mm, RAS+; makes a volume of them.
        spacing: instead of an affine, voxel edge lengths in mm along X, Y and Z, axes running right, front and head.

    Raises:
        CaseError: it is of another type or shape, or cannot be used.
    """
    if (affine is not None or spacing is not None) and not _is_plain(image):
        raise CaseError(name, "has a geometry of its own", "leave out affine and spacing")
    if isinstance(image, nibabel.nifti1.Nifti1Pair):
        return nifti_volume(name, image)
    if type(image).__module__.partition(".")[0] == "SimpleITK":
        return _of_simple_itk(image, name)
    if hasattr(image, "affine") and hasattr(image, "as_tensor"):
        return _of_meta_tensor(image, name)
    try:
        array = np.asarray(image)
    except Exception as error:  # of whatever type the caller gave
        raise _unknown(image, name) from error
    if array.dtype.kind not in "biuf":
        raise _unknown(image, name)
    if affine is None and spacing is None:
        return _picture(array, name)
    if affine is not None and spacing is not None:
        raise CaseError(name, "came with both affine and spacing", "give one of them")
    return volume_of(name, array, *_geometry(name, affine, spacing))


def _is_plain(image: Any) -> bool:
    return not hasattr(image, "affine") and type(image).__module__.partition(".")[0] != "SimpleITK"


def _unknown(image: Any, name: Path) -> CaseError:
    problem = f"is of a type that is not known ({type(image).__name__})"
    return CaseError(name, problem, "give a path, a nibabel or SimpleITK image, a MetaTensor or an array")


def _geometry(
    name: Path, affine: ArrayLike | None, spacing: Sequence[float] | None
) -> tuple[NDArray[np.float64], list[str]]:
    """The affine of an array, and what is to be said of it."""
    given = np.asarray(affine if spacing is None else spacing, dtype=np.float64)
    if spacing is None:
        if given.shape != (4, 4):
            raise CaseError(name, f"came with an affine of shape {given.shape}", "give one of (4, 4)")
        return given, []
    if given.shape != (3,) or not (given > 0).all():
        raise CaseError(name, f"came with the spacing {spacing!r}", "give three lengths in mm")
    return np.diag([*given, 1.0]), [_NO_POSITION]


def _picture(array: NDArray[Any], name: Path) -> SourceImage:
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[-1] == 3):
        shape = " x ".join(map(str, array.shape))
        problem = f"is an array of {shape} without a geometry"
        raise CaseError(
            name, problem, "give affine or spacing of a volume, or a picture of (H, W) or (H, W, 3)"
        )
    check_size(name, array.shape[1], array.shape[0])
    return picture_of(name, array.astype(np.uint8) * 255 if array.dtype == bool else array, [])


def _of_meta_tensor(image: Any, name: Path) -> SourceImage:
    array = image.detach().as_tensor().cpu().numpy()
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    elif array.ndim == 3 and len(array) in (1, 3) and np.array_equal(np.asarray(image.affine), np.eye(4)):
        return _picture(array.transpose(2, 1, 0), name)
    affine = np.asarray(image.affine, dtype=np.float64)
    if str(image.meta.get("space", "RAS")).upper().endswith("LPS"):
        affine = _LPS_TO_RAS @ affine
    return volume_of(name, array, affine, [])


def _of_simple_itk(image: Any, name: Path) -> SourceImage:
    import SimpleITK

    array = SimpleITK.GetArrayViewFromImage(image)
    dimensions = image.GetDimension()
    if dimensions == 2:
        return _picture(array, name)
    if dimensions != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise CaseError(name, "is no grey image of two or three dimensions", "give one volume in HU")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return volume_of(name, array.transpose(2, 1, 0), _LPS_TO_RAS @ affine, [])
