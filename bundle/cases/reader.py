"""One file or series in, one checked case out: the image with its modality, and the truth that belongs to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bundle.cases.case import Case, CaseReference
from bundle.cases.dicom.headers import is_dicom_content, looks_like_dicom
from bundle.cases.dicom.locate import series_at
from bundle.cases.dicom.read import DicomImage, read_series
from bundle.cases.errors import CaseError
from bundle.cases.files import file_kind, read_head
from bundle.cases.modality import Modality
from bundle.cases.pictures import Picture, read_mask, read_picture
from bundle.cases.volumes import Volume, read_volume

# ITU-R BT.601, the luminance that grey conversions of pictures use.
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# A body in air spans more; less has been normalised.
_LEAST_HU_RANGE = 50.0
# How far the corners of a mask may lie from those of its image, in parts of the shortest voxel edge.
_CORNER_TOLERANCE = 0.1


def read_case(reference: CaseReference) -> Case:
    """Read the image of a case and settle its modality.

    Returns:
        The case; see `Case` for axes, units and ranges.

    Raises:
        CaseError: the image cannot be read or does not suit the stated modality. No other exception
            leaves this function.
    """
    with _only_case_errors(reference.image):
        case = _case(reference)
        case.warnings[:0] = reference.notes
        return case


def _case(reference: CaseReference) -> Case:
    path = reference.image
    if reference.series is None:
        head = b"" if os.path.isdir(path) else read_head(path)
        if head and not looks_like_dicom(path, head):
            kind = file_kind(path)
            if kind == "picture":
                return _picture_case(reference, read_picture(path))
            if kind == "slide":
                problem = "is a whole-slide image, which is not read as a whole"
                raise CaseError(path, problem, "segment it, or cut it into pictures")
            return _volume_case(reference, read_volume(path, head), "CT")
        reference = replace(reference, series=series_at(path, reference.modality))
    assert reference.series is not None
    image = read_series(reference.series, reference.modality)
    case = _dicom_case(reference, image)
    case.header = image.source
    return case


def _dicom_case(reference: CaseReference, image: DicomImage) -> Case:
    if image.affine is not None:
        volume = Volume(image.array, image.affine, None, image.warnings)
        return _volume_case(reference, volume, image.told)
    picture = Picture(image.array, image.full_scale or 1.0, image.warnings)
    return _picture_case(reference, picture, image.told)


def read_label(reference: CaseReference, case: Case | None = None) -> NDArray[np.uint8]:
    """Read the truth of a case.

    Args:
        reference: names the label file and, in `labels`, the values it may hold beside 0; without
            `labels`, any whole number up to 255 is taken.
        case: the image that was read; where given, shape and geometry of the truth must be its own.

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
            raise CaseError(path, "is DICOM, which is not read as a truth", "convert it to NIfTI")
        affine: NDArray[np.float64] | None = None
        values: NDArray[np.floating]
        if file_kind(path) == "picture":
            values = _unit_mask(read_mask(path), reference.labels)
        else:
            volume = read_volume(path, head)
            values, affine = volume.array, volume.affine
        if case is not None:
            _check_fit(path, values.shape, affine, case)
        return _label_values(path, values, reference.labels)


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


def _volume_case(reference: CaseReference, volume: Volume, told: Modality) -> Case:
    path = reference.image
    modality, source = _modality(reference, told)
    if modality != "CT":
        raise CaseError(
            path, f"is a volume, but the modality is stated as {modality}", "give a picture, or state CT"
        )
    warnings = list(volume.warnings)
    low, high = float(volume.array.min()), float(volume.array.max())
    if low == high:
        warnings.append(f"Every voxel has the same value ({low:g}).")
    elif modality == "CT" and (low >= 0 or high - low < _LEAST_HU_RANGE):
        warnings.append(f"The intensities ({low:g} to {high:g}) do not look like Hounsfield units.")
    return Case(reference, volume.array[None], volume.affine, modality, source, volume.header, warnings)


def _picture_case(reference: CaseReference, picture: Picture, told: Modality | None = None) -> Case:
    path = reference.image
    array, warnings = picture.array, list(picture.warnings)
    is_colour = array.shape[0] == 3
    modality, source = _modality(reference, told or ("H&E" if is_colour else "X-ray"))
    if modality == "CT":
        raise CaseError(path, "is a picture, but the modality is stated as CT", "give CT as a volume in HU")
    if float(array.min()) == float(array.max()):
        warnings.append(f"Every pixel has the same value ({float(array.min()):g}).")
    if modality == "H&E" and not is_colour:
        array = np.repeat(array, 3, axis=0)
        warnings.append("The picture is grey, which is unusual for H&E; its channel was used three times.")
    if modality == "X-ray" and is_colour:
        array = np.tensordot(_LUMINANCE, array, axes=1)[None].astype(np.float32)
        warnings.append("The X-ray is in colour; it was converted to luminance.")
    return Case(reference, array, None, modality, source, None, warnings, picture.full_scale)


def _modality(
    reference: CaseReference, told: Modality
) -> tuple[Modality, Literal["option", "datalist", "file"]]:
    if reference.modality is None:
        return told, "file"
    return reference.modality, reference.modality_source


# --- truth -----------------------------------------------------------------------------------------------


def _unit_mask(values: NDArray[np.float64], labels: Mapping[int, str]) -> NDArray[np.float64]:
    """A mask of 0 and 255 with 1 for 255, where 255 is not a label of its own."""
    if 255 not in labels and (values == 255).any() and np.isin(values, (0, 255)).all():
        return values / 255
    return values


def _check_fit(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64] | None, case: Case) -> None:
    if (affine is not None) != case.is_volume:
        image = "volume" if case.is_volume else "picture"
        raise CaseError(path, f"is the truth of a {image} but none itself", f"save it as a {image}")
    expected = case.array.shape[1:]
    if shape != expected:
        sizes = [" x ".join(str(length) for length in lengths) for lengths in (shape, expected)]
        problem = f"has the shape {sizes[0]}, but its image {sizes[1]}"
        raise CaseError(path, problem, "resample the truth onto the image")
    if affine is None or case.affine is None:
        return
    corners = np.array([(x, y, z, 1) for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])])
    distance = float(np.linalg.norm(corners @ (affine - case.affine).T, axis=1).max())
    if distance > _CORNER_TOLERANCE * min(case.spacing or (1.0,)):
        problem = f"lies up to {distance:.2f} mm away from its image"
        raise CaseError(path, problem, "resample the truth onto the image")


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
