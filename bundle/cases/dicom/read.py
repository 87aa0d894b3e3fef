"""A series read: a volume in HU with its affine, or a film or picture as it is meant to be seen."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from bundle.cases.dicom.acquisitions import acquisition_of, check_not_interleaved
from bundle.cases.dicom.exclusion import MICROSCOPY_MODALITIES, XRAY_MODALITIES
from bundle.cases.dicom.films import as_colour, as_film
from bundle.cases.dicom.geometry import SlicePlane, SliceStack, read_plane, stack
from bundle.cases.dicom.headers import MODALITY_OF_CLASS, numbers, quiet, text, texts
from bundle.cases.dicom.pixels import in_hounsfield, open_image, stored_values
from bundle.cases.dicom.series import DicomSeries
from bundle.cases.dicom.source import DicomSource
from bundle.cases.errors import CaseError, broken_file
from bundle.cases.image import SourceImage
from bundle.cases.modality import Modality
from bundle.cases.pictures import MAX_PIXELS, MIN_EDGE
from bundle.cases.volumes import MAX_VOXELS

# The extended CT scale ends at 30710 HU; signed values that are read as unsigned lie above 60000.
_IMPOSSIBLE_HU = 40000.0
_ONE_SERIES = "send one series at a time"


def read_series(series: DicomSeries, stated: Modality | None = None) -> SourceImage:
    """Read and check the files of a series.

    Slices are decoded one after the other into the array, so that a series needs its own size in float32 and
    one slice more. `highdicom.get_volume_from_series` would hold it three times, and refuses tilted gantries.

    Args:
        stated: modality that the user states, for what the bundle would not segment by itself.

    Raises:
        CaseError: the files are no volume or picture that can be segmented.
    """
    modality = _modality_of(series, stated)
    return _read_volume(series, modality) if series.is_volume else _read_picture(series, modality)


def _modality_of(series: DicomSeries, stated: Modality | None) -> Modality:
    modality = series.modality
    if series.is_slide:
        problem = "is a whole-slide image, which is not read as a whole"
        raise CaseError(series.place, problem, "segment it, or cut it into pictures")
    of_class = MODALITY_OF_CLASS.get(series.sop_class, modality)
    if modality == "CT" and of_class not in ("CT", "CR", "DX"):
        problem = f"says that it is {modality}, and by its storage class it is {of_class}"
        raise CaseError(series.place, problem, "correct its Modality or SOPClassUID")
    if modality == "CT":
        return "CT"
    if modality in XRAY_MODALITIES:
        return "X-ray"
    if modality in MICROSCOPY_MODALITIES:
        return "H&E"
    if stated is not None:
        return stated
    problem = f"has modality {modality or 'none'}, and this bundle segments CT, X-ray (CR, DX) and H&E"
    raise CaseError(series.place, problem, "leave it out, or state the modality to treat it as one of them")


# --- volumes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Slice:
    """One slice before its pixels are read; `frame` counts from 1 in files of several frames, else 0."""

    path: Path
    plane: SlicePlane
    frame: int
    identity: tuple[str, ...]
    acquisition: Mapping[str, str]


def _read_volume(series: DicomSeries, modality: Modality) -> SourceImage:
    warnings = list(series.notes)
    is_ct = series.modality == "CT"
    if not is_ct:
        warnings.append(
            f"The series has modality {series.modality or 'none'}; it was read as {modality} as stated."
        )
    paths = _without_copies(series, warnings)
    frames = _Frames(series, is_ct)
    headers = {path: frames.header(path) for path in paths}
    _check_whole(headers, series.place)
    slices = [one for path, header in headers.items() for one in frames.of_file(path, header)]
    _check_one_acquisition(slices, series.place)
    placed = stack([one.plane for one in slices], series.place, series.resample)
    rows, columns = slices[0].plane.shape
    depth = len(placed.blend) or len(slices)
    if rows * columns * depth > MAX_VOXELS:
        raise CaseError(series.place, f"has more than {MAX_VOXELS:,} voxels", "crop or resample it")
    array = np.empty((depth, rows, columns), dtype=np.float32)
    ordered = [slices[index] for index in placed.order]
    if len({bool(one.frame) for one in slices}) > 1:
        raise CaseError(series.place, "mixes files of one frame and of several", _ONE_SERIES)
    _fill(array, placed, lambda index: frames.read(ordered[index]))
    highest = float(array.max())
    if is_ct and highest > _IMPOSSIBLE_HU:
        problem = f"holds values up to {highest:g} HU, which no scanner gives"
        raise CaseError(series.place, problem, "correct its PixelRepresentation or rescale")
    source = DicomSource(
        files=tuple(one.path for one in ordered) if len(paths) > 1 or not ordered[0].frame else (paths[0],),
        study_uid=series.study_uid,
        series_uid=series.series_uid,
        frames=tuple(one.frame for one in ordered if one.frame),
        repaired={path: series.repaired[path] for path in paths if path in series.repaired},
        resampled=bool(placed.blend),
    )
    if frames.padded:
        warnings.append("Padding brighter than any tissue was set to air (-1024 HU).")
    _check_tilt_tag(frames, placed, warnings)
    # (slices, rows, columns) -> (columns, rows, slices), without a copy
    warnings += placed.warnings
    return SourceImage(array.transpose(2, 1, 0), placed.affine, modality, warnings, source)


def _check_whole(headers: Mapping[Path, Any], place: Path) -> None:
    """See that a concatenation (PS3.3 C.7.6.16.2.2.4) has all its parts, and that there is nothing else with it."""
    parts = [header for header in headers.values() if text(header, "ConcatenationUID")]
    if not parts:
        return
    frames = [int((numbers(header, "NumberOfFrames", 1) or [1.0])[0]) for header in parts]
    offsets = [int((numbers(header, "ConcatenationFrameOffsetNumber", 1) or [-1.0])[0]) for header in parts]
    total = int((numbers(parts[0], "InConcatenationTotalNumber", 1) or [len(parts)])[0])
    starts = [
        sum(count for count, at in zip(frames, offsets, strict=True) if at < offset) for offset in offsets
    ]
    if len(parts) != len(headers) or total != len(parts) or (min(offsets) >= 0 and starts != offsets):
        problem = f"holds {len(parts)} of the {max(total, len(parts) + 1)} parts of a concatenated image"
        if total == len(parts):
            problem = "holds parts of a concatenated image that do not follow on one another"
        raise CaseError(place, problem, "send all its parts")


def _identity(header: Any) -> tuple[str, ...]:
    """What all slices of an acquisition share; hashed, so that no error can quote it."""
    patient = hashlib.sha256("\n".join(text(header, key) for key in ("PatientID", "PatientName")).encode())
    shared = ("FrameOfReferenceUID", "Modality", "ConvolutionKernel")
    return (patient.hexdigest(), *(text(header, keyword) for keyword in shared))


def _check_one_acquisition(slices: Sequence[_Slice], place: Path) -> None:
    names = ("patient", "frame of reference", "modality", "reconstruction kernel")
    for position, name in enumerate(names):
        if len({one.identity[position] for one in slices}) > 1:
            raise CaseError(place, f"mixes files of more than one {name}", _ONE_SERIES)
    normal = slices[0].plane.normal
    heights = np.array([one.plane.position @ normal for one in slices])
    check_not_interleaved(heights, [one.acquisition for one in slices], place)


def _fill(array: NDArray[np.float32], placed: SliceStack, read: Callable[[int], NDArray[np.float32]]) -> None:
    if not placed.blend:
        for index in range(len(array)):
            array[index] = read(index)
        return
    kept: dict[int, NDArray[np.float32]] = {}
    for index, (lower, upper, part) in enumerate(placed.blend):
        # At most two slices are held: each pair's lower one is an earlier pair's upper one.
        kept = {one: kept[one] if one in kept else read(one) for one in (lower, upper)}
        array[index] = kept[lower] if not part else (1 - part) * kept[lower] + part * kept[upper]


def _check_tilt_tag(frames: _Frames, placed: SliceStack, warnings: list[str]) -> None:
    if abs(frames.tilt) > 0.5 and not any("tilted" in warning for warning in placed.warnings):
        warnings.append(
            f"The header states a gantry tilt of {frames.tilt:g} degrees, its geometry none; the geometry was believed."
        )


class _Frames:
    """Decodes slices of a series; of a file of several frames, all are kept until the next file."""

    def __init__(self, series: DicomSeries, is_ct: bool) -> None:
        self.series = series
        self.is_ct = is_ct
        self.padded = False
        self.tilt = 0.0
        self._open: tuple[Path, Any, NDArray[Any]] | None = None

    def header(self, path: Path) -> Any:
        with broken_file(path), quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            for keyword, value in self.series.repaired.get(path, {}).items():
                setattr(header, keyword, value)
        self.tilt = (numbers(header, "GantryDetectorTilt", 1) or [0.0])[0]
        return header

    def of_file(self, path: Path, header: Any) -> list[_Slice]:
        """The slice of a file, or those of an enhanced image, PS3.3 C.7.6.16."""
        count = int((numbers(header, "NumberOfFrames", 1) or [1.0])[0])
        frames = header.get("PerFrameFunctionalGroupsSequence")
        if not frames and count == 1:
            plane = read_plane(path, header, header, header, header)
            return [_Slice(path, plane, 0, _identity(header), acquisition_of(header))]
        if not frames or len(frames) != count:
            raise CaseError(
                path, "holds several frames without saying where each lies", "export one image a slice"
            )
        identity = _identity(header)
        slices = []
        for number, frame in enumerate(frames, start=1):
            groups = [frame, *(header.get("SharedFunctionalGroupsSequence") or [])]
            position, orientation, measures = (
                _group(groups, name)
                for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
            )
            plane = read_plane(path, position, orientation, measures, header)
            content = _group(groups, "FrameContentSequence")
            slices.append(_Slice(path, plane, number, identity, acquisition_of(content, header)))
        return slices

    def read(self, one: _Slice) -> NDArray[np.float32]:
        """(rows, columns) in HU."""
        if self._open is None or self._open[0] != one.path:
            self._open = None  # the last file's memory is free before the next is read
            dataset = open_image(one.path, self.series.repaired.get(one.path))
            _check_grey(one.path, dataset)
            values = stored_values(one.path, dataset)
            if one.frame:
                del dataset.PixelData
            self._open = (one.path, dataset, values)
        _, dataset, values = self._open
        rescale = dataset
        if one.frame:
            values = values[one.frame - 1] if values.ndim > 2 else values
            frame = dataset.PerFrameFunctionalGroupsSequence[one.frame - 1]
            groups = [frame, *(dataset.get("SharedFunctionalGroupsSequence") or [])]
            rescale = _group(groups, "PixelValueTransformationSequence") or dataset
        hounsfield, padded = in_hounsfield(one.path, dataset, values, rescale, self.is_ct)
        self.padded |= padded
        return hounsfield


def _group(groups: Sequence[Any], name: str) -> Any:
    """The first item of a functional group, of the frame itself or shared; an empty one where there is none."""
    for group in groups:
        if group.get(name):
            return group[name][0]
    return pydicom.Dataset()


def _check_grey(path: Path, dataset: Any) -> None:
    if int((numbers(dataset, "SamplesPerPixel", 1) or [1])[0]) != 1:
        raise CaseError(path, "holds colour where grey values are expected", "send the original images")


# --- copies ------------------------------------------------------------------------------------------------


def _without_copies(series: DicomSeries, warnings: list[str]) -> list[Path]:
    """One file an instance; copies must be the same to the pixel."""
    by_instance: defaultdict[str, list[Path]] = defaultdict(list)
    for path, instance in zip(series.files, series.instances, strict=True):
        by_instance[instance].append(path)
    for paths in by_instance.values():
        for copy in paths[1:]:
            if not _same_content(paths[0], copy):
                problem = f"differs from {copy.name}, though both have the same SOPInstanceUID"
                raise CaseError(paths[0], problem, "keep the right one of them")
    copies = len(series.files) - len(by_instance)
    if copies:
        files = "1 file is a copy" if copies == 1 else f"{copies} files are copies"
        warnings.append(f"{files} of another of the series and counted once.")
    return [paths[0] for paths in by_instance.values()]


def _same_content(one: Path, other: Path) -> bool:
    first, second = open_image(one), open_image(other)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
        if text(first, keyword) != text(second, keyword):
            return False
    same_syntax = first.file_meta.TransferSyntaxUID == second.file_meta.TransferSyntaxUID
    if not (same_syntax and first.PixelData == second.PixelData) and not np.array_equal(
        stored_values(one, first), stored_values(other, second)
    ):
        return False
    return all(
        text(first, keyword) == text(second, keyword)
        for keyword in ("RescaleSlope", "RescaleIntercept", "PhotometricInterpretation")
    )


# --- films and pictures ------------------------------------------------------------------------------------


def _read_picture(series: DicomSeries, modality: Modality) -> SourceImage:
    warnings = list(series.notes)
    path = _without_copies(series, warnings)[0]
    dataset = open_image(path, series.repaired.get(path))
    frames = int((numbers(dataset, "NumberOfFrames", 1) or [1])[0])
    if frames > 1:
        raise CaseError(path, f"holds {frames} frames where one picture is expected", "export one of them")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if min(rows, columns) < MIN_EDGE:
        problem = f"is too small ({columns} x {rows} pixels)"
        raise CaseError(path, problem, f"use at least {MIN_EDGE} x {MIN_EDGE} pixels")
    if rows * columns > MAX_PIXELS:
        raise CaseError(path, f"has more than {MAX_PIXELS:,} pixels", "crop it into tiles")
    values = as_colour(path, dataset, stored_values(path, dataset))
    if values.ndim == 2:
        grey, white = as_film(path, dataset, values, warnings)
        array = np.ascontiguousarray(grey[None], dtype=np.float32)
    else:
        array = np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32)
        white = float((1 << int(dataset.get("BitsStored") or dataset.BitsAllocated)) - 1)
        if (array == array[:1]).all():
            array = array[:1]
    source = DicomSource(
        files=(path,),
        study_uid=series.study_uid,
        series_uid=series.series_uid,
        repaired={path: series.repaired[path]} if path in series.repaired else {},
    )
    return SourceImage(array, None, modality, warnings, source, white, _patient_orientation(dataset))


def _patient_orientation(dataset: Any) -> tuple[str, str] | None:
    """Where rows and columns run in the patient; None where the header does not say so."""
    found = [one.upper() for one in texts(dataset, "PatientOrientation")]
    return (found[0], found[1]) if len(found) == 2 and all(found) else None
