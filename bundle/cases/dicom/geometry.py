"""Where slices lie: their order, the affine of their stack, and what makes them no stack.

PS3.3 C.7.6.2.1.1 gives the position of each pixel of a slice; positions alone decide, never names or numbers.
highdicom.spatial.get_series_volume_positions takes no tilted gantry and does not say what is wrong with a series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.cases.dicom.headers import numbers, text
from bundle.cases.errors import CaseError

RESAMPLE_REMEDY = "send all slices, or let them be resampled (resample_slices)"
# How far steps between slices may differ, in parts of a step, or in mm for rounded positions.
_STEP_TOLERANCE = 0.01
_ROUNDING_MM = 0.02
# Every position must lie this near to where the affine puts its slice, in parts of a step.
_POSITION_TOLERANCE = 0.1
_DIRECTION_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-4
_MIN_SPACING_MM, _MAX_SPACING_MM = 0.01, 100.0
# Gantries tilt by up to 30 degrees; a stack that leans further has wrong positions or orientations.
_MAX_TILT_DEGREES = 35.0
_TILT_WORTH_A_WARNING = 0.5
# A gap of more steps than this is a hole, which interpolation would invent.
_MAX_GAP_STEPS = 4.5
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class SlicePlane:
    """One slice in space, LPS+ as DICOM has it.

    Attributes:
        source: its file, for errors.
        position: of the centre of the first pixel, mm.
        row, column: unit vectors along a row (to the next column) and along a column (to the next row).
        spacing: between rows and between columns, mm.
        shape: rows, columns.
        thickness: between slices as the header says, mm; None where it does not.
    """

    source: Path
    position: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    thickness: float | None

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.row, self.column)


@dataclass(frozen=True)
class SliceStack:
    """Slices in order.

    Attributes:
        order: of the planes, along the normal of the slices.
        affine: (4, 4), (column, row, slice) -> mm, RAS+; sheared where the gantry was tilted.
        blend: for each slice (lower, upper, part of the upper), as positions in `order`; empty where every
            slice is one of the planes.
        warnings: what a reader of the report should know.
    """

    order: tuple[int, ...]
    affine: NDArray[np.float64]
    blend: tuple[tuple[int, int, float], ...] = ()
    warnings: list[str] = field(default_factory=list)


def read_plane(path: Path, position: Any, orientation: Any, measures: Any, image: Any) -> SlicePlane:
    """The plane of one slice from the data sets that hold its attributes.

    Args:
        position, orientation, measures: hold ImagePositionPatient, ImageOrientationPatient and PixelSpacing:
            the image itself, or items of functional groups.
        image: holds Rows and Columns.

    Raises:
        CaseError: an attribute is absent or makes no sense.
    """
    where = _checked(path, position, "ImagePositionPatient", 3)
    cosines = _checked(path, orientation, "ImageOrientationPatient", 6)
    spacing = _checked(path, measures, "PixelSpacing", 2)
    shape = [_checked(path, image, keyword, 1)[0] for keyword in ("Rows", "Columns")]
    if spacing.min() < _MIN_SPACING_MM or spacing.max() > _MAX_SPACING_MM:
        raise CaseError(
            path,
            f"has a PixelSpacing of {spacing[0]:g} x {spacing[1]:g} mm",
            "export it with its true spacing",
        )
    row, column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(np.array([row, column]), axis=1)
    skew = max(float(np.abs(lengths - 1).max()), abs(float(row @ column)))
    if skew > _DIRECTION_TOLERANCE:
        raise CaseError(
            path,
            "has an ImageOrientationPatient that is no pair of perpendicular directions",
            "export it again",
        )
    if min(shape) < 1:
        raise CaseError(path, "holds no pixels (Rows or Columns is 0)", "export it again")
    return SlicePlane(
        path,
        where,
        row,
        column,
        (float(spacing[0]), float(spacing[1])),
        (int(shape[0]), int(shape[1])),
        _thickness(image, measures),
    )


def _checked(path: Path, dataset: Any, keyword: str, count: int) -> NDArray[np.float64]:
    values = numbers(dataset, keyword, count)
    if values is None:
        problem = f"has no {keyword} that makes sense" if text(dataset, keyword) else f"has no {keyword}"
        raise CaseError(path, problem, "export the series with its geometry")
    array = np.array(values)
    if not np.isfinite(array).all():
        raise CaseError(path, f"has no {keyword} that makes sense", "export the series with its geometry")
    return array


def _thickness(image: Any, measures: Any) -> float | None:
    for dataset in (measures, image):
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            values = numbers(dataset, keyword, 1)
            if values and np.isfinite(values[0]) and values[0] > 0:
                return values[0]
    return None


def stack(planes: Sequence[SlicePlane], place: Path, resample: bool = False) -> SliceStack:
    """Put slices in order and find the affine of their stack.

    Args:
        planes: at least one.
        place: the series, for errors.
        resample: answer uneven or missing slices with a blend of their neighbours instead of an error.

    Raises:
        CaseError: the slices differ in size, spacing or orientation, lie at one position, or are spaced unevenly.
    """
    first = planes[0]
    _check_alike(planes, place)
    if len(planes) == 1:
        if first.thickness is None:
            problem = "is a single slice that states no thickness (SliceThickness, SpacingBetweenSlices)"
            raise CaseError(place, problem, "send the whole series")
        return SliceStack((0,), _affine(first, first.position, first.normal * first.thickness))
    heights = np.array([plane.position @ first.normal for plane in planes])
    order = np.argsort(heights, kind="stable")
    heights = heights[order]
    positions = np.array([planes[index].position for index in order])
    gaps = np.diff(heights)
    # The lower median: with one slice missing among three, the step is that between the neighbours.
    step = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    _check_apart(planes, order, gaps, place)
    even = bool((np.abs(gaps - step) <= max(_STEP_TOLERANCE * step, _ROUNDING_MM)).all())
    count = len(planes) if even else round(float(heights[-1] - heights[0]) / step) + 1
    direction = (positions[-1] - positions[0]) / (heights[-1] - heights[0])
    line = positions[0] + np.outer(heights - heights[0], direction)
    if np.linalg.norm(positions - line, axis=1).max() > _POSITION_TOLERANCE * max(step, min(first.spacing)):
        problem = "has slices that are shifted against each other within their planes"
        raise CaseError(place, problem, "export the series again, one acquisition at a time")
    spacing = float(heights[-1] - heights[0]) / (count - 1)
    regular = heights[0] + spacing * np.arange(count)
    warnings = _remarks(planes, first, direction, spacing, place)
    affine = _affine(first, positions[0], direction * spacing)
    indices = tuple(int(index) for index in order)
    if even and np.abs(heights - regular).max() <= _POSITION_TOLERANCE * spacing:
        return SliceStack(indices, affine, (), warnings)
    low, high = float(gaps.min()), float(gaps.max())
    widest = planes[indices[int(gaps.argmax())]].source.name
    if not resample:
        problem = (
            f"has slices missing or unevenly spaced (from {low:.4g} to {high:.4g} mm apart, "
            f"the widest gap at {widest})"
        )
        raise CaseError(place, problem, RESAMPLE_REMEDY)
    if high > _MAX_GAP_STEPS * step:
        problem = f"has a hole of {high:.4g} mm at {widest}, which is too wide to be filled"
        raise CaseError(place, problem, "send the missing slices")
    blend = _blend(heights, regular, spacing)
    made = sum(part > 0 for _, _, part in blend)
    warnings.append(
        f"The slices were unevenly spaced or missing (from {low:.4g} to {high:.4g} mm apart): they were resampled to "
        f"{count} slices {spacing:.4g} mm apart, {made} of them interpolated."
    )
    return SliceStack(indices, affine, blend, warnings)


def _check_alike(planes: Sequence[SlicePlane], place: Path) -> None:
    first = planes[0]
    for plane in planes[1:]:
        if plane.shape != first.shape:
            sizes = " and ".join(f"{rows} x {columns}" for rows, columns in (first.shape, plane.shape))
            raise CaseError(place, f"mixes slices of different size ({sizes})", "send one series at a time")
        turned = max(np.abs(plane.row - first.row).max(), np.abs(plane.column - first.column).max())
        if turned > _DIRECTION_TOLERANCE:
            problem = f"mixes slices of different orientation ({plane.source.name} lies otherwise)"
            raise CaseError(place, problem, "send one series at a time, without localizers")
        if not np.allclose(plane.spacing, first.spacing, rtol=_SPACING_TOLERANCE, atol=0):
            problem = f"mixes slices of different PixelSpacing ({plane.source.name} differs)"
            raise CaseError(place, problem, "send one series at a time")


def _check_apart(
    planes: Sequence[SlicePlane], order: NDArray[Any], gaps: NDArray[np.float64], place: Path
) -> None:
    if float(gaps.sum()) < _ROUNDING_MM:
        problem = f"has all its {len(planes)} slices at one position"
        raise CaseError(place, problem, "export it with the position of each slice")
    closest = int(gaps.argmin())
    if gaps[closest] < min(_ROUNDING_MM, 0.1 * float(gaps.max())):
        pair = " and ".join(planes[int(order[index])].source.name for index in (closest, closest + 1))
        problem = f"has two different slices at one position ({pair})"
        raise CaseError(place, problem, "send one acquisition at a time")


def _remarks(
    planes: Sequence[SlicePlane],
    first: SlicePlane,
    direction: NDArray[np.float64],
    spacing: float,
    place: Path,
) -> list[str]:
    """What to say of a stack that leans, or whose slices lie otherwise than their headers say."""
    cosine = float(abs(direction @ first.normal) / np.linalg.norm(direction))
    tilt = float(np.degrees(np.arccos(min(1.0, cosine))))
    if tilt > _MAX_TILT_DEGREES:
        problem = f"has slices stacked {tilt:.0f} degrees off their normal, more than a gantry tilts"
        raise CaseError(place, problem, "export it with its true orientation and positions")
    remarks = []
    if tilt > _TILT_WORTH_A_WARNING:
        remarks.append(
            f"The gantry was tilted by {tilt:.1f} degrees: the affine is sheared, as the slices lie in the patient."
        )
    stated = first.thickness
    if stated is not None and spacing > 1.5 * stated:
        remarks.append(
            f"The slices lie {spacing:.4g} mm apart, and their header says {stated:.4g} mm: "
            "some may be missing, or there are gaps between them."
        )
    return remarks


def _blend(
    heights: NDArray[np.float64], regular: NDArray[np.float64], spacing: float
) -> tuple[tuple[int, int, float], ...]:
    pairs = []
    for height in regular:
        upper = min(int(np.searchsorted(heights, height)), len(heights) - 1)
        lower = max(upper - 1, 0)
        nearest = lower if abs(heights[lower] - height) < abs(heights[upper] - height) else upper
        if abs(heights[nearest] - height) <= _STEP_TOLERANCE * spacing:
            pairs.append((nearest, nearest, 0.0))
        else:
            part = (height - heights[lower]) / (heights[upper] - heights[lower])
            pairs.append((lower, upper, float(part)))
    return tuple(pairs)


def _affine(plane: SlicePlane, origin: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """(column, row, slice) -> mm in RAS+, PS3.3 equation C.7.6.2.1-1 with slices added."""
    affine = np.eye(4)
    affine[:3, 0] = plane.row * plane.spacing[1]
    affine[:3, 1] = plane.column * plane.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = origin
    return np.asarray(_LPS_TO_RAS @ affine)
