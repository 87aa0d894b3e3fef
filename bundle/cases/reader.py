"""One file or series in, one checked case out: the image with its modality, and the ground truth that belongs to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from bundle.cases.case import Case, CaseReference
from bundle.cases.dicom.headers import is_dicom_content, looks_like_dicom
from bundle.cases.dicom.locate import series_at
from bundle.cases.dicom.read import read_series
from bundle.cases.errors import CaseError
from bundle.cases.files import (
    IMAGE_SUFFIXES,
    ITK_SUFFIXES,
    NIFTI_SUFFIXES,
    PICTURE_SUFFIXES,
    SLIDE_SUFFIXES,
    image_suffix,
    read_head,
)
from bundle.cases.greyness import LUMINANCE
from bundle.cases.hounsfield import NO_HU, shift_from_hounsfield
from bundle.cases.image import SourceImage
from bundle.cases.itk_files import read_itk
from bundle.cases.modality import Modality
from bundle.cases.nifti import read_nifti
from bundle.cases.pictures import read_mask, read_picture

# A body in air spans more; less has been normalised.
_LEAST_HU_RANGE = 50.0
# How far the corners of a mask may lie from those of its image, in parts of the shortest voxel edge.
_CORNER_TOLERANCE = 0.1

Mask = tuple[NDArray[np.floating], NDArray[np.float64] | None]


class Reader(NamedTuple):
    """What reads files of one kind; both functions get the file and its first bytes, and raise `CaseError`.

    Attributes:
        image: gives the image.
        mask: gives labels, (X, Y, Z) or (H, W) upright, and the affine of a volume.
    """

    image: Callable[[Path, bytes], SourceImage]
    mask: Callable[[Path, bytes], Mask]


def _volumes(read: Callable[[Path, bytes], SourceImage]) -> Reader:
    def mask(path: Path, head: bytes) -> Mask:
        volume = read(path, head)
        return volume.array, volume.affine

    return Reader(read, mask)


def _no_slide(path: Path, head: bytes) -> NoReturn:
    problem = "is a whole-slide image, which is not read as a whole"
    raise CaseError(path, problem, "segment it, or cut it into pictures")


#: Suffix -> reader. DICOM is told by its content and comes by `bundle.cases.dicom`.
READERS = {
    **dict.fromkeys(NIFTI_SUFFIXES, _volumes(read_nifti)),
    **dict.fromkeys(ITK_SUFFIXES, _volumes(read_itk)),
    **dict.fromkeys(
        PICTURE_SUFFIXES, Reader(lambda path, _: read_picture(path), lambda path, _: (read_mask(path), None))
    ),
    **dict.fromkeys(SLIDE_SUFFIXES, Reader(_no_slide, _no_slide)),
}


def _reader_of(path: Path) -> Reader:
    reader = READERS.get(image_suffix(path).lower())
    if reader is None:
        raise CaseError(path, "is of a type that is not known", f"use one of {' '.join(IMAGE_SUFFIXES)}")
    return reader


def read_case(reference: CaseReference) -> Case:
    """Read the image of a case and decide on its modality.

    Returns:
        The case; see `Case` for axes, units and ranges.

    Raises:
        CaseError: the image cannot be read or does not suit the stated modality. No other exception
            leaves this function.
    """
    with _only_case_errors(reference.image):
        return _case(reference)


def _case(reference: CaseReference) -> Case:
    image = _image(reference)
    source: Literal["option", "datalist", "file"] = "file"
    modality = image.modality
    if reference.modality is not None:
        modality, source = reference.modality, reference.modality_source
    is_volume = image.affine is not None
    if is_volume and modality != "CT":
        problem = f"is a volume, but the modality is stated as {modality}"
        raise CaseError(reference.image, problem, "give a picture, or state CT")
    if not is_volume and modality == "CT":
        problem = "is a picture, but the modality is stated as CT"
        raise CaseError(reference.image, problem, "give CT as a volume in HU")
    warnings = [*reference.notes, *image.warnings]
    array = _volume(image.array, warnings) if is_volume else _picture(image.array, modality, warnings)
    return Case(
        reference,
        array,
        image.affine,
        modality,
        source,
        image.header,
        warnings,
        image.full_scale,
        patient_orientation=image.patient_orientation,
    )


def _image(reference: CaseReference) -> SourceImage:
    path = reference.image
    if reference.held is not None:
        return reference.held
    if reference.series is not None:
        return read_series(reference.series, reference.modality)
    head = b"" if os.path.isdir(path) else read_head(path)
    if not head or looks_like_dicom(path, head):
        return read_series(series_at(path, reference.modality), reference.modality)
    return _reader_of(path).image(path, head)


def read_label(reference: CaseReference, case: Case | None = None) -> NDArray[np.uint8]:
    """Read the ground truth of a case.

    Args:
        reference: names the label file and, in `labels`, the values it may hold beside 0; without
            `labels`, any whole number up to 255 is taken.
        case: the image that was read; where given, shape and geometry of the label must be its own.

    Returns:
        (X, Y, Z) for volumes, (H, W) upright for pictures. The one value 255 of a black and white
        picture becomes 1, unless `labels` lists 255.

    Raises:
        CaseError: there is no label, or it cannot be read, or it does not fit. No other exception
            leaves this function.
    """
    path = reference.label
    if path is None:
        raise CaseError(reference.image, "has no label", "add one to the datalist")
    with _only_case_errors(path):
        head = read_head(path)
        if is_dicom_content(head):
            raise CaseError(path, "is DICOM, which is not read as a label", "convert it to NIfTI")
        values, affine = _reader_of(path).mask(path, head)
        if affine is None:
            values = _unit_mask(values, reference.labels)
        if case is not None:
            _check_fit(path, values.shape, affine, case)
        return _label_values(path, values, reference.labels)


def read_instances(reference: CaseReference, case: Case) -> NDArray[np.int32] | None:
    """Read which cell each pixel of a picture's ground truth belongs to.

    Returns:
        (H, W), 0 or the number of a cell; None where the case has no such picture.

    Raises:
        CaseError: as `read_label`.
    """
    path = reference.instances
    if path is None:
        return None
    with _only_case_errors(path):
        values = read_mask(path)
        _check_fit(path, values.shape, None, case)
        numbers = values.astype(np.int32)
        if numbers.min() < 0 or not np.array_equal(numbers, values):
            problem = "numbers cells by something else than whole numbers from 0"
            raise CaseError(path, problem, "save it as 16-bit PNG or TIFF")
        return numbers


@contextmanager
def _only_case_errors(path: Path) -> Iterator[None]:
    """Turn whatever a library raises into a `CaseError`, so that one file never stops a run over many."""
    try:
        yield
    except CaseError:
        raise
    except MemoryError as error:
        raise CaseError(path, "does not fit into memory", "crop or resample it") from error
    except Exception as error:
        problem = f"cannot be read ({type(error).__name__})"
        raise CaseError(path, problem, "open it in another program and export it again") from error


# --- images ----------------------------------------------------------------------------------------------


def _volume(array: NDArray[np.float32], warnings: list[str]) -> NDArray[np.float32]:
    """(X, Y, Z) in HU -> (1, X, Y, Z)."""
    low, high = float(array.min()), float(array.max())
    if low == high:
        warnings.append(f"Every voxel has the same value ({low:g}).")
    elif shift := shift_from_hounsfield(array):
        cause = (
            "as stored values that were not rescaled" if shift > 0 else "as if they had been rescaled twice"
        )
        warnings.append(
            f"The intensities ({low:g} to {high:g}) {NO_HU}: they lie about {abs(shift)} "
            f"{'above' if shift > 0 else 'below'} them, {cause}. Export the volume in HU; it was segmented as it is."
        )
    elif low >= 0 or high - low < _LEAST_HU_RANGE:
        warnings.append(f"The intensities ({low:g} to {high:g}) {NO_HU}.")
    return array[None]


def _picture(array: NDArray[np.float32], modality: Modality, warnings: list[str]) -> NDArray[np.float32]:
    """(1 or 3, H, W) -> the channels that pictures of the modality have."""
    is_colour = array.shape[0] == 3
    if float(array.min()) == float(array.max()):
        warnings.append(f"Every pixel has the same value ({float(array.min()):g}).")
    if modality == "H&E" and not is_colour:
        warnings.append("The picture is grey, which is unusual for H&E; its channel was used three times.")
        return np.repeat(array, 3, axis=0)
    if modality == "X-ray" and is_colour:
        warnings.append(
            "The X-ray is in colour (a tint, a marker, compression); it was converted to luminance."
        )
        return np.tensordot(LUMINANCE, array, axes=1)[None].astype(np.float32)
    return array


# --- labels ----------------------------------------------------------------------------------------------


def _unit_mask(values: NDArray[np.floating], labels: Mapping[int, str]) -> NDArray[np.floating]:
    """A mask of 0 and 255 with 1 for 255, where 255 is not a label of its own."""
    if 255 not in labels and (values == 255).any() and np.isin(values, (0, 255)).all():
        return values / 255
    return values


def _check_fit(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64] | None, case: Case) -> None:
    if (affine is not None) != case.is_volume:
        image = "volume" if case.is_volume else "picture"
        raise CaseError(path, f"is the label of a {image} but none itself", f"save it as a {image}")
    expected = case.array.shape[1:]
    if shape != expected:
        sizes = [" x ".join(str(length) for length in lengths) for lengths in (shape, expected)]
        problem = f"has the shape {sizes[0]}, but its image {sizes[1]}"
        raise CaseError(path, problem, "resample the label onto the image")
    if affine is None or case.affine is None:
        return
    corners = np.array([(x, y, z, 1) for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])])
    distance = float(np.linalg.norm(corners @ (affine - case.affine).T, axis=1).max())
    if distance > _CORNER_TOLERANCE * min(case.spacing or (1.0,)):
        problem = f"lies up to {distance:.2f} mm away from its image"
        raise CaseError(path, problem, "resample the label onto the image")


def _label_values(path: Path, values: NDArray[np.floating], labels: Mapping[int, str]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        raise CaseError(
            path, f"is a mask with values from {low:g} to {high:g}", "use whole numbers from 0 to 255"
        )
    mask = np.ascontiguousarray(values.astype(np.uint8))
    if not np.array_equal(mask, values):
        raise CaseError(path, "is a mask with fractional values", "use whole numbers from 0 to 255")
    found = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    strange = [int(value) for value in found if value != 0 and labels and int(value) not in labels]
    if strange:
        named = ", ".join(str(value) for value in strange[:5]) + (", ..." if len(strange) > 5 else "")
        raise CaseError(path, f"holds values that no label is named for ({named})", "name them in 'labels'")
    return mask
