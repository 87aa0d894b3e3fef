"""The preview: the right side left, the right size, and any prompt."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.cases.structures import shipped_structures
from bundle.results import Prediction
from bundle.results.pictures.encoding import encode_png
from bundle.results.pictures.lettering import MISSING, printable, shorten, width, wrap
from bundle.results.pictures.preview import PANEL_KEY, volume_text, write_preview
from bundle.results.pictures.views import select_views
from bundle.results.report import build_report

Make = Callable[..., Prediction]


def _preview(prediction: Prediction, tmp_path: Path) -> Image.Image:
    path = tmp_path / "preview.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_preview(prediction, build_report(prediction), path)
    assert path.stat().st_size < 500_000
    return Image.open(path)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "liver at $5 and $\\frac{a}{b$ <script>alert(1)</script> {x} %s \\n",
        "first line\nsecond line\ttab\x00\x07",
        "胆囊切除术后 желчный пузырь مرارة पित्ताशय 🫁",
        "x" * 3000,
        "liver " * 8192,
    ],
)
def test_any_prompt_is_drawn(tmp_path: Path, make_prediction: Make, prompt: str) -> None:
    assert _preview(make_prediction(prompt=prompt), tmp_path).width == 1500


@pytest.mark.parametrize(
    "changes",
    [
        {"empty": True},
        {"labels": {}},
        {"shape": (30, 20, 1)},
        {"shape": (1, 1, 1), "empty": True},
        {"shape": (24, 20, 3), "affine": np.diag([0.5, 0.5, 8.0, 1.0])},
        {"shape": (24, 20, 10), "affine": np.zeros((4, 4))},
        {"labels": {value: f"structure {value}" for value in range(1, 5)}, "warnings": ["one", "two"]},
        {"shape": (60, 1500)},
        {"shape": (2100, 300)},
    ],
)
def test_any_shape_is_drawn(tmp_path: Path, make_prediction: Make, changes: dict[str, Any]) -> None:
    picture = _preview(make_prediction(**changes), tmp_path)
    assert 800 <= picture.width <= 1500
    left, top, right, bottom = map(int, picture.info[PANEL_KEY].split(","))
    assert 0 <= left < right <= picture.width and 0 <= top < bottom <= picture.height


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_volumes_are_shown_in_radiological_convention(make_prediction: Make, signs: tuple[int, ...]) -> None:
    prediction = make_prediction(affine=np.diag([*signs, 1.0]) * [1.5, 1.5, 3.0, 1.0], empty=True)
    shape = prediction.mask.shape
    # One voxel at the patient's right, anterior, superior corner, wherever the file keeps it.
    corner = tuple(edge - 1 if sign > 0 else 0 for edge, sign in zip(shape, signs, strict=True))
    prediction.mask[corner] = 1
    (axial, coronal), _ = select_views(prediction)
    assert axial.letters == ("R", "L", "A", "P") and coronal.letters == ("R", "L", "S", "I")
    assert axial.mask[0, 0] == 1 and coronal.mask[0, 0] == 1
    assert axial.mask.sum() == 1 and axial.mask.shape == (20, 24)
    assert axial.size == pytest.approx((36.0, 30.0)) and coronal.size == pytest.approx((36.0, 30.0))
    assert axial.title == f"Axial, slice {corner[2] + 1} of 10"


def test_the_slice_with_most_structures_is_chosen(make_prediction: Make) -> None:
    prediction = make_prediction(labels={1: "liver", 2: "spleen"}, empty=True, affine=np.diag([1.0, 1, 1, 1]))
    prediction.mask[2:20, 2:18, 3] = 1
    prediction.mask[2:16, 2:18, 6] = 1
    prediction.mask[18:20, 2:6, 6] = 2
    (axial, *_), _ = select_views(prediction)
    assert axial.title == "Axial, slice 7 of 10"


def test_the_window_follows_the_structures(make_prediction: Make) -> None:
    assert "level 40 HU" in select_views(make_prediction())[1]
    assert "level -600 HU" in select_views(make_prediction(labels={1: "left lung", 2: "right lung"}))[1]
    assert select_views(make_prediction(shape=(30, 30)))[1] == ""


def test_a_large_section_gets_a_detail_of_its_densest_part(tmp_path: Path, make_prediction: Make) -> None:
    prediction = make_prediction(shape=(900, 700), labels={1: "nucleus"}, empty=True)
    prediction.case.modality = "H&E"
    prediction.case.array = np.random.default_rng(1).integers(0, 255, (3, 900, 700)).astype(np.float32)
    prediction.mask[600:800, 300:500] = 1
    (whole, detail), _ = select_views(prediction)
    assert whole.inset is not None and whole.mask.shape == whole.image.shape[:2] == whole.uncertainty.shape
    assert detail.mask.shape == (256, 256) and detail.mask.sum() == 200 * 200
    _preview(prediction, tmp_path)


def test_colours_are_stable_and_distinct() -> None:
    rgb = shipped_structures().rgb
    assert rgb("Left_Kidney") == rgb("left kidney")
    assert rgb("duodenum") == rgb("duodenum") != rgb("bladder")
    assert all(0 <= channel <= 1 for channel in rgb("陰影"))


def test_text_is_wrapped_and_nothing_is_lost_unsaid() -> None:
    text = "one two three four five six seven eight nine ten"
    lines, rest = wrap(text, 9, 2)
    assert all(width(line) <= 9 for line in lines)
    assert text.startswith(" ".join(lines)) and len(" ".join(lines)) + 1 + rest == len(text)
    assert wrap(MISSING * 30, 10.5 * width(MISSING), 9)[0] == [MISSING * 10] * 3
    assert printable("a\n b\ufffe") == f"a b{MISSING}"
    assert width(shorten("a" * 50, 10)) <= 10 and shorten("short", 10) == "short"
    assert wrap("", 10, 3) == ([], 0)


def test_volumes_read_well() -> None:
    assert [volume_text(value) for value in (1556.7, 64.94, 0.42, 0.001)] == [
        "1,557 ml",
        "64.9 ml",
        "0.42 ml",
        "< 0.01 ml",
    ]


def test_a_noisy_picture_stays_small_and_keeps_its_key_colours() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
    pixels[:40, :40] = (255, 0, 0)
    data = encode_png(pixels, [(1.0, 0.0, 0.0)], 60_000, "box", (0, 0, 40, 40))
    assert len(data) <= 60_000
    picture = Image.open(io.BytesIO(data))
    assert picture.convert("RGB").getpixel((5, 5)) == (255, 0, 0)
    assert re.fullmatch(r"0,0,\d+,\d+", picture.info["box"])
