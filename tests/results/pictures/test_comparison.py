"""Masks beside the ground truth: the right slice, the right colours in the right panel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.cases.structures import shipped_structures
from bundle.results import Prediction
from bundle.results.pictures.comparison import COMPARED_KEY, ComparedCase, write_comparison
from bundle.results.pictures.views import compared_views

Make = Callable[..., Prediction]


def test_the_slice_is_where_mask_and_ground_truth_differ_most(make_prediction: Make) -> None:
    prediction = make_prediction(affine=np.diag([-1.5, -1.5, 3.0, 1.0]))
    ground_truth = prediction.mask.copy()
    ground_truth[4:12, 5:15, 7] = 0
    shown, found, note = compared_views(prediction, ground_truth)
    assert shown.title == found.title == "Axial, slice 8 of 10" and note.startswith("window")
    assert shown.mask.sum() < found.mask.sum() == prediction.mask[..., 7].sum()
    assert (shown.image == found.image).all()
    # where nothing differs, the ground truth decides, not the middle of the volume
    ground_truth[:] = 0
    ground_truth[3:6, 3:6, 2] = 1
    prediction.mask[:] = ground_truth
    assert compared_views(prediction, ground_truth)[0].title == "Axial, slice 3 of 10"


def test_large_histology_is_shown_in_detail(make_prediction: Make) -> None:
    prediction = make_prediction(shape=(600, 700), labels={1: "nucleus"})
    prediction.case.modality = "H&E"
    ground_truth = prediction.mask.copy()
    ground_truth[500:520, 600:640] = 1
    shown, found, _ = compared_views(prediction, ground_truth)
    assert shown.title == "Detail, 256 x 256 of 700 x 600 pixels"
    assert shown.mask.sum() == 20 * 40 and not found.mask.any()


@pytest.mark.parametrize("prompt", ["", "infection " * 900])
def test_mask_and_ground_truth_are_drawn_in_their_own_panels(
    make_prediction: Make, tmp_path: Path, prompt: str
) -> None:
    prediction = make_prediction(
        shape=(60, 60), labels={1: "infection"}, empty=True, prompt=prompt, case_id="case with a name " * 20
    )
    prediction.case.array[:] = 0.0
    prediction.mask[10:30, 10:30] = 1
    ground_truth = np.zeros_like(prediction.mask)
    ground_truth[35:55, 35:55] = 1
    case = ComparedCase(prediction, ground_truth, 0.0, {1: ("infection", 0.0)})
    path = tmp_path / "compared.png"
    write_comparison([case, case], path)
    assert path.stat().st_size < 500_000
    picture = Image.open(path)
    left, top, right, bottom = map(int, picture.info[COMPARED_KEY].split(","))
    side = (right - left) / 60
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64) / 255
    red = shipped_structures().rgb("infection")

    def tinted(column: int, place: int) -> bool:
        across = round(left + (column - 2) * (right - left + 14) + (place + 0.5) * side)
        colour = pixels[round(top + (place + 0.5) * side), across]
        return bool(np.abs(colour - 0.33 * np.array(red)).max() < 0.03)

    inside, outside = 20, 45  # of the mask, on the diagonal; of the ground truth it is the other way around
    assert [tinted(column, inside) for column in range(3)] == [False, False, True]
    assert [tinted(column, outside) for column in range(3)] == [False, True, False]


def test_no_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no case to show"):
        write_comparison([], tmp_path / "compared.png")
