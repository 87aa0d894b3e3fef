"""What is hardly possible is flagged, what is merely cut by the field of view is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageDraw

from bundle.cases.case import Case, CaseReference
from bundle.cases.hounsfield import NO_HU
from bundle.cases.structures import Structures, shipped_structures
from bundle.phantoms import ct_phantom, xray_phantom
from bundle.results.page.case import write_case_page
from bundle.results.plausibility import Flag, flags_of
from bundle.results.report import build_report

STRUCTURES = shipped_structures()
SHAPE = (100, 80, 100)
SPACING = 4.0
# patient's right is at low indices; a body of 400 x 320 mm from 400 mm below to 0
AFFINE = np.diag([-SPACING, -SPACING, SPACING, 1.0])
ORGANS = {
    "liver": (slice(15, 45), slice(20, 50), slice(40, 65)),
    "spleen": (slice(72, 86), slice(45, 60), slice(45, 62)),
    "right kidney": (slice(28, 40), slice(50, 60), slice(22, 36)),
    "left kidney": (slice(62, 74), slice(50, 60), slice(24, 38)),
    "gallbladder": (slice(35, 42), slice(25, 32), slice(38, 44)),
}
HU = {"liver": 90.0, "spleen": 100.0, "right kidney": 140.0, "left kidney": 140.0, "gallbladder": 10.0}
Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def body(with_lungs: bool = True) -> tuple[np.ndarray, np.ndarray]:
    image = np.full(SHAPE, -1000.0, np.float32)
    image[5:95, 10:70] = 40.0
    mask = np.zeros(SHAPE, np.uint8)
    for name, box in ORGANS.items():
        mask[box], image[box] = STRUCTURES.value(name), HU[name]
    if with_lungs:
        for box in (
            (slice(12, 45), slice(15, 60), slice(68, 98)),
            (slice(55, 88), slice(15, 60), slice(68, 98)),
        ):
            mask[box], image[box] = STRUCTURES.value("lung"), -800.0
    return image, mask


def flags(image: np.ndarray, mask: np.ndarray, affine: Any = AFFINE) -> list[tuple[str, str | None]]:
    case = Case(CaseReference("x", Path("x")), image[None], affine, "CT", "file")
    return [
        (one.kind, one.structure) for one in flags_of(case, mask, STRUCTURES.of_modality("CT"), STRUCTURES)
    ]


def moved(name: str, box: tuple[slice, ...]) -> Change:
    def change(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mask[mask == STRUCTURES.value(name)] = 0
        mask[box], image[box] = STRUCTURES.value(name), HU[name]
        return image, mask

    return change


def named(one: str, other: str) -> Change:
    first, second = STRUCTURES.value(one), STRUCTURES.value(other)
    return lambda image, mask: (image, np.where(mask == first, second, np.where(mask == second, first, mask)))


def test_a_body_as_it_should_be() -> None:
    assert flags(*body()) == [] == flags(*body(with_lungs=False))


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1, 2)])
def test_the_voxel_order_of_the_file_does_not_matter(axes: tuple[int, ...]) -> None:
    affine = AFFINE.copy()
    for axis in axes:
        affine[:, 3] += affine[:, axis] * (SHAPE[axis] - 1)
        affine[:, axis] *= -1
    image, mask = (np.flip(one, axes) for one in body())
    assert flags(image, mask, affine) == []
    turned = AFFINE[:, [2, 0, 1, 3]]
    image, mask = (one.transpose(2, 0, 1) for one in body())
    assert flags(image, mask, turned) == []
    assert ("side", "liver") in flags(np.flip(image, 1), np.flip(mask, 1), turned)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda image, mask: (image + 1024, mask), ("intensity", "liver")),
        (lambda image, mask: (image - 1024, mask), ("intensity", "lung")),
        (lambda image, mask: (image[::-1], mask[::-1]), ("side", "liver")),
        (lambda image, mask: (image[..., ::-1], mask[..., ::-1]), ("place", "right kidney")),
        (named("left kidney", "right kidney"), ("side", "left kidney")),
        (named("liver", "spleen"), ("side", "spleen")),
        (moved("right kidney", (slice(12, 18), slice(30, 37), slice(90, 95))), ("place", "right kidney")),
        (moved("right kidney", (slice(30, 35), slice(50, 56), slice(24, 30))), ("volume", "right kidney")),
        (moved("gallbladder", (slice(40, 41), slice(25, 26), slice(40, 42))), ("volume", "gallbladder")),
        (moved("gallbladder", (slice(33, 40), slice(25, 32), slice(12, 18))), ("place", "gallbladder")),
    ],
)  # fmt: skip
def test_what_cannot_be(change: Change, expected: tuple[str, str]) -> None:
    assert expected in flags(*change(*body()))


def test_a_case_whose_intensities_are_no_hu_is_one_flag() -> None:
    image, mask = body()
    case = Case(CaseReference("x", Path("x")), image[None] + 1024, AFFINE, "CT", "file")
    case.warnings.append(f"The intensities (0 to 9) {NO_HU}.")
    found = flags_of(case, mask, STRUCTURES.of_modality("CT"), STRUCTURES)
    assert [(one.kind, one.structure) for one in found] == [("intensity", None)]


@pytest.mark.parametrize(("scale", "kind"), [(0.3, "volume"), (3.0, "volume")])
def test_spacing_that_is_not_the_patients(scale: float, kind: str) -> None:
    assert (kind, "liver") in flags(*body(), AFFINE * [[scale, scale, scale, 1]])


def test_a_piece_far_away() -> None:
    image, mask = body()
    mask[72:86, 45:60, 5:15] = STRUCTURES.value("spleen")
    assert ("pieces", "spleen") in flags(image, mask)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_organ_that_the_field_of_view_cuts_is_not_small(axis: int) -> None:
    image, mask = body(with_lungs=False)
    box = ORGANS["right kidney"][axis]
    part = [slice(None)] * 3
    part[axis] = slice(box.stop - 2, None)
    mask[mask != STRUCTURES.value("right kidney")] = 0
    image, mask = image[tuple(part)], mask[tuple(part)]
    assert 0 < (mask > 0).sum() * SPACING**3 / 1000 < 40
    assert not [one for one in flags(image, mask) if one[0] == "volume"]


def test_the_numbers_and_their_bounds_are_said() -> None:
    image, mask = moved("right kidney", (slice(30, 35), slice(50, 56), slice(24, 30)))(*body())
    case = Case(CaseReference("x", Path("x")), image[None], AFFINE, "CT", "file")
    [flag] = flags_of(case, mask, STRUCTURES.of_modality("CT"), STRUCTURES)
    assert flag.text == "right kidney of 12 ml; 40 to 700 ml are plausible."


def test_bounds_of_an_own_structure() -> None:
    own = Structures([{"name": "cyst", "modality": "CT", "plausible": {"volume_ml": [0, 100]}}])
    image, mask = body()
    case = Case(CaseReference("x", Path("x")), image[None], AFFINE, "CT", "file")
    assert [one.structure for one in flags_of(case, (mask == 5).astype(np.uint8), {1: "cyst"}, own)] == [
        "cyst"
    ]


# --- pictures -----------------------------------------------------------------------------------------------


def drawn(colour: bool) -> np.ndarray:
    image = Image.new("RGB", (640, 480), (236, 238, 241))
    draw = ImageDraw.Draw(image)
    for row in range(8):
        draw.rectangle(
            (20, 20 + 55 * row, 150, 60 + 55 * row), fill=(200, 90, 190) if colour else (190, 190, 190)
        )
        draw.text((180, 30 + 55 * row), "Ward 3, bed 7: " * 4, fill=(10, 10, 10))
    return np.asarray(image)


def of_picture(image: np.ndarray, modality: Any) -> list[Flag]:
    array = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    if modality == "X-ray":
        array = array.mean(axis=0, keepdims=True)
    elif len(array) == 1:
        array = np.repeat(array, 3, axis=0)
    case = Case(
        CaseReference("x", Path("x")), array.astype(np.float32), None, modality, "file", full_scale=255.0
    )
    return flags_of(case, np.zeros(array.shape[1:], np.uint8), {}, STRUCTURES)


@pytest.mark.parametrize("seed", range(12))
def test_phantoms_of_films_are_films(seed: int) -> None:
    assert of_picture(xray_phantom(seed, size=160).image, "X-ray") == []


@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee", "chelsea", "coins", "moon", "page"])
@pytest.mark.parametrize("modality", ["X-ray", "H&E"])
def test_photographs_and_pages(name: str, modality: str) -> None:
    assert [one.kind for one in of_picture(getattr(skimage.data, name)(), modality)] == ["picture"]


@pytest.mark.parametrize("modality", ["X-ray", "H&E"])
@pytest.mark.parametrize("colour", [True, False])
def test_screenshots(modality: str, colour: bool) -> None:
    [flag] = of_picture(drawn(colour), modality)
    assert "flat areas" in flag.text or not colour


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("height", [0.4, 0.6, 0.8])
def test_slices_of_ct_are_no_films(seed: int, height: float) -> None:
    volume = ct_phantom(seed).image
    hounsfield = volume[..., int(height * volume.shape[2])].T.astype(np.float32)
    shown = np.clip((hounsfield + 160.0) / 400.0 * 255.0, 0.0, 255.0)
    [flag] = of_picture(shown.astype(np.uint8), "X-ray")
    assert flag.kind == "picture"


@pytest.mark.parametrize("seed", range(4))
def test_films_with_a_black_frame_are_films(seed: int) -> None:
    film = xray_phantom(seed, size=160).image
    framed = np.pad(film, ((30, 30), (10, 60)))
    assert not [one for one in of_picture(framed, "X-ray") if "black all around" in one.text]


@pytest.mark.parametrize("value", [0, 30, 255])
@pytest.mark.parametrize("modality", ["X-ray", "H&E"])
def test_empty_pictures(value: int, modality: str) -> None:
    assert of_picture(np.full((90, 80), value, np.uint8), modality)


def test_a_mask_over_all_of_a_film(make_prediction: Callable[..., Any]) -> None:
    case = make_prediction(shape=(60, 50), labels={10: "COVID-19 infection"}).case
    found = flags_of(case, np.full((60, 50), 10, np.uint8), {10: "COVID-19 infection"}, STRUCTURES)
    assert ("volume", "COVID-19 infection") in [(one.kind, one.structure) for one in found]


# --- where they are shown -----------------------------------------------------------------------------------


def test_report_and_page_show_them(make_prediction: Callable[..., Any], tmp_path: Path) -> None:
    flag = Flag("volume", "liver", "liver of 14,600 ml; 500 to 5000 ml are plausible.")
    prediction = make_prediction(flags=[flag], notices=["It was assumed."])
    report = build_report(prediction)
    assert report["flags"] == [{"kind": "volume", "structure": "liver", "text": flag.text}]
    write_case_page(prediction, report, tmp_path, {})
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert flag.text in page and "It was assumed." in page
