"""Whether a result can be: volumes, places and sides of organs, and whether the picture is of its modality at all.

Nothing is repaired. Bounds of a structure stand under `plausible` in configs/structures.yaml, those of pictures in
`bundle.results.picture_kind`; docs/results.md says how often they flag good cases and catch spoiled ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.cases.case import Case
from bundle.cases.hounsfield import NO_HU
from bundle.cases.structures import Structure, Structures
from bundle.results.picture_kind import why_no_film, why_no_stain

Kind = Literal["intensity", "volume", "place", "side", "pieces", "picture"]

# Where a structure ends this close to the end of the volume it may go on beyond it: voxels, and along head-foot mm, but
# no more than a share of the volume.
_NEAR_END, _NEAR_END_MM, _NEAR_END_SHARE = 2, 10.0, 0.05
# Further pieces of a structure that is one: their share of the largest, and mm from it.
_PIECE_SHARE, _PIECE_DISTANCE = 0.05, 50.0
# Beyond the middle of the body, in parts of its half width, a structure of one side is on the other.
_ACROSS = 0.1
# Mm that one structure may lie above another that it is not above, and that two may be apart that lie side by side.
_ABOVE, _APART = 20.0, 30.0
# A section shows the chest where this share of it is aerated lung; HU of lung and of soft tissue.
_CHEST_SHARE, _LUNG_HU, _SOFT_HU = 0.25, (-900.0, -500.0), -100.0
# HU at which windows for soft tissue end: what is cut there says nothing of air.
_WINDOWS = (-250.0, -50.0)
# Mm above the lowest section of the chest from which on abdominal organs are out of place.
_INTO_CHEST = 40.0


@dataclass(frozen=True)
class Flag:
    """Something about a result that is hardly possible.

    Attributes:
        kind: of the problem.
        structure: name; None of the picture as a whole.
        text: one sentence with the number and its bounds.
    """

    kind: Kind
    structure: str | None
    text: str


@dataclass(frozen=True)
class _Found:
    """A structure where it was found in a volume.

    Attributes:
        box: of the array.
        centre: mm, RAS+.
        cut: whether it may go on beyond the volume.
    """

    structure: Structure
    box: tuple[slice, ...]
    centre: NDArray[np.float64]
    volume_ml: float
    mean_hu: float
    cut: bool


def flags_of(
    case: Case,
    mask: NDArray[np.uint8],
    labels: Mapping[int, str],
    structures: Structures,
    small: bool = False,
) -> list[Flag]:
    """What is hardly possible about a mask and its image.

    Args:
        mask: as of `bundle.results.Prediction`.
        labels: value -> name.
        structures: of the network.
        small: the image is the overview of something larger.
    """
    if case.affine is not None:
        return list(_of_volume(case, case.affine, mask, labels, structures)) if case.modality == "CT" else []
    why = why_no_film(case.array[0], case.photometric) if case.modality == "X-ray" else None
    if case.modality == "H&E":
        why = why_no_stain(case.array, case.full_scale, small)
    flags = [Flag("picture", None, why)] if why else []
    counts = np.bincount(mask.ravel(), minlength=256)
    for value, name in labels.items():
        structure = structures.get(name)
        most = structure.plausible.get("most_of_image") if structure else None
        share = float(counts[value]) / mask.size
        if most is not None and share > most:
            text = f"{name} covers {share:.0%} of the image; more than {most:.0%} is hardly possible."
            flags.append(Flag("volume", name, text))
    return flags


def _of_volume(
    case: Case,
    affine: NDArray[np.float64],
    mask: NDArray[np.uint8],
    labels: Mapping[int, str],
    structures: Structures,
) -> Iterator[Flag]:
    image = case.array[0]
    darkest = float(image.min())
    no_hu = any(NO_HU in warning for warning in case.warnings)
    if no_hu:
        yield Flag(
            "intensity",
            None,
            "The intensities are no HU, as a warning says: nothing of the mask can be relied on.",
        )
    found: dict[str, _Found] = {}
    boxes = ndimage.find_objects(mask)
    for value, name in labels.items():
        structure = structures.get(name)
        box = boxes[value - 1] if value <= len(boxes) else None
        if structure is None or box is None or not (structure.plausible or structure.one_piece):
            continue
        found[name] = _measured(structure, value, box, mask, image, affine, case.head_foot_axis)
        flags = _size_and_intensity(found[name], darkest)
        yield from (flag for flag in flags if not (no_hu and flag.kind == "intensity"))
        if structure.one_piece:
            yield from _pieces(name, mask[box] == value, case.spacing or (1.0, 1.0, 1.0))
    yield from _sides(found, image, affine, case.head_foot_axis)
    yield from _places(found, image, affine, case.head_foot_axis)


def _measured(
    structure: Structure,
    value: int,
    box: tuple[slice, ...],
    mask: NDArray[np.uint8],
    image: NDArray[np.float32],
    affine: NDArray[np.float64],
    head_foot: int | None,
) -> _Found:
    inside = mask[box] == value
    count = int(np.count_nonzero(inside))
    along = [inside.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    middle = np.array(
        [box[axis].start + np.average(np.arange(len(one)), weights=one) for axis, one in enumerate(along)]
    )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cut = False
    for axis, part in enumerate(box):
        near = float(_NEAR_END)
        if axis == head_foot:
            near = max(near, min(_NEAR_END_MM / spacing[axis], _NEAR_END_SHARE * mask.shape[axis]))
        cut |= bool(part.start < near or part.stop > mask.shape[axis] - near)
    return _Found(
        structure,
        box,
        affine[:3, :3] @ middle + affine[:3, 3],
        count * abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0,
        float(image[box].sum(where=inside, dtype=np.float64)) / count,
        cut,
    )


def _size_and_intensity(one: _Found, darkest: float) -> Iterator[Flag]:
    name, plausible = one.structure.name, one.structure.plausible
    least, most = plausible.get("volume_ml", (0.0, np.inf))
    if one.volume_ml > most or (one.volume_ml < least and not one.cut):
        size = f"{one.volume_ml:,.0f}" if one.volume_ml >= 100 else f"{one.volume_ml:.2g}"
        text = f"{name} of {size} ml; {least:g} to {most:g} ml are plausible."
        yield Flag("volume", name, text)
    low, high = plausible.get("hu", (-np.inf, np.inf))
    if high < _WINDOWS[0] < darkest < _WINDOWS[1]:
        return
    if not low <= one.mean_hu <= high:
        text = f"{name} of {one.mean_hu:.0f} HU on average; {low:g} to {high:g} HU are plausible."
        yield Flag("intensity", name, text)


def _pieces(name: str, inside: NDArray[np.bool_], spacing: tuple[float, ...]) -> Iterator[Flag]:
    pieces, count = ndimage.label(inside)
    if count < 2:
        return
    sizes = np.bincount(pieces.ravel())[1:]
    boxes = ndimage.find_objects(pieces)
    largest = int(sizes.argmax())
    for number in np.flatnonzero(sizes >= _PIECE_SHARE * sizes[largest]):
        gap = _gap(boxes[largest], boxes[number], spacing)
        if gap > _PIECE_DISTANCE:
            share = sizes[number] / sizes[largest]
            text = f"{name} has a piece of {share:.0%} of its size {gap:.0f} mm away from it."
            yield Flag("pieces", name, text)
            return


def _gap(one: tuple[slice, ...], other: tuple[slice, ...], spacing: tuple[float, ...]) -> float:
    """Mm between two boxes."""
    apart = [max(0, a.start - b.stop, b.start - a.stop) for a, b in zip(one, other, strict=True)]
    return float(np.linalg.norm(np.multiply(apart, spacing)))


def _sides(
    found: Mapping[str, _Found],
    image: NDArray[np.float32],
    affine: NDArray[np.float64],
    head_foot: int | None,
) -> Iterator[Flag]:
    lateral = int(np.abs(affine[0, :3]).argmax())
    for name, one in found.items():
        side = one.structure.plausible.get("side")
        if side is None or head_foot is None or head_foot == lateral:
            continue
        sign = 1.0 if side == "right" else -1.0
        body = _across(image, one.box[head_foot], head_foot, lateral)
        if body is None:
            continue
        first, last = body
        ends = [affine[0, lateral] * one_end for one_end in (first, last)]
        # of the organ along the same axis, other axes left out of both
        place = affine[0, lateral] * float(
            np.linalg.solve(affine[:3, :3], one.centre - affine[:3, 3])[lateral]
        )
        half = abs(ends[1] - ends[0]) / 2.0
        beyond = sign * (place - sum(ends) / 2.0)
        if half > 0 and beyond < -_ACROSS * half:
            text = (
                f"{name} lies {-beyond:.0f} mm {'left' if sign > 0 else 'right'} of the middle of the body."
            )
            yield Flag("side", name, text)


def _across(
    image: NDArray[np.float32], sections: slice, head_foot: int, lateral: int
) -> tuple[float, float] | None:
    """Where soft tissue begins and ends from side to side in some sections; None where there is none."""
    part = np.moveaxis(image, head_foot, 0)[sections]
    lines = np.zeros(image.shape[lateral], dtype=np.int64)
    axis = lateral - (lateral > head_foot)
    for section in part:
        lines += np.count_nonzero(section > _SOFT_HU, axis=1 - axis)
    body = np.flatnonzero(lines > 0.05 * lines.max()) if lines.any() else lines[:0]
    return (float(body[0]), float(body[-1])) if len(body) else None


def _places(
    found: Mapping[str, _Found],
    image: NDArray[np.float32],
    affine: NDArray[np.float64],
    head_foot: int | None,
) -> Iterator[Flag]:
    spacing = tuple(float(edge) for edge in np.linalg.norm(affine[:3, :3], axis=0))
    chest: float | None = None
    if head_foot is not None and any(one.structure.plausible.get("below_chest") for one in found.values()):
        chest = _chest_begins(image, affine, head_foot)
    for name, one in found.items():
        plausible = one.structure.plausible
        above = [
            (float(one.centre[2] - found[other].centre[2]), other)
            for other in plausible.get("not_above", ())
            if other in found and not found[other].cut
        ]
        if above and max(above)[0] > _ABOVE:
            distance, other = max(above)
            yield Flag("place", name, f"{name} lies {distance:.0f} mm above the {other}, towards the head.")
        elif plausible.get("below_chest") and chest is not None and one.centre[2] > chest + _INTO_CHEST:
            yield Flag(
                "place", name, f"{name} lies {one.centre[2] - chest:.0f} mm above the foot of the lungs."
            )
        for other in plausible.get("beside", ()):
            gap = _gap(one.box, found[other].box, spacing) if other in found else 0.0
            if gap > _APART:
                yield Flag("place", name, f"{name} lies {gap:.0f} mm away from the {other}.")


def _chest_begins(image: NDArray[np.float32], affine: NDArray[np.float64], head_foot: int) -> float | None:
    """Mm along head-foot of the lowest section that shows lungs; None where no section does."""
    heights: list[float] = []
    for index, section in enumerate(np.moveaxis(image, head_foot, 0)):
        lung = np.count_nonzero((section > _LUNG_HU[0]) & (section < _LUNG_HU[1]))
        body = lung + np.count_nonzero(section > _SOFT_HU)
        if lung > _CHEST_SHARE * body > 0:
            heights.append(float(affine[2, head_foot]) * index)
    if not heights:
        return None
    others = [axis for axis in range(3) if axis != head_foot]
    middle: Any = sum(float(affine[2, axis]) * (image.shape[axis] - 1) / 2.0 for axis in others)
    return float(min(heights) + middle + affine[2, 3])
