"""Cells of pictures: what decides that there are any, and where their numbers stand in the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from skimage.draw import disk

from bundle.cases.case import Case, CaseReference
from bundle.cases.modality_settings import HistologySettings
from bundle.cases.structures import Structures
from bundle.inference.postprocess import joined, picture_instances
from bundle.results import GeoJsonResults, Prediction, write_prediction

STRUCTURES = Structures(
    [
        {"name": "lymphocyte", "modality": "H&E", "kind": "cell"},
        {"name": "gland", "modality": "H&E", "kind": "hollow"},
        {"name": "tumour cell", "modality": "H&E", "kind": "cell"},
    ]
)


def picture(**settings: Any) -> Prediction:
    """Two lymphocytes that touch, a tumour cell beside them, and a gland."""
    mask = np.zeros((80, 100), dtype=np.uint8)
    for column, value in ((20, 1), (39, 1), (58, 3)):
        mask[disk((30, column), 11)] = value
    mask[60:75, 10:60] = 2
    labels = STRUCTURES.of_modality("H&E")
    probability = np.stack([np.where(mask == value, 0.8, 0.05) for value in labels]).astype(np.float32)
    image = np.zeros((3, *mask.shape), dtype=np.float32)
    case = Case(CaseReference("he", Path("in/he.png")), image, None, "H&E", "file", full_scale=255.0)
    return Prediction(
        case=case,
        mask=mask,
        probability=probability,
        uncertainty=np.zeros(mask.shape, dtype=np.float32),
        labels=labels,
        structures=STRUCTURES,
        instances=picture_instances(
            mask, labels, STRUCTURES, HistologySettings(**{"instances": True, **settings}), probability
        ),
    )


def test_structures_of_kind_cell_are_counted_whatever_their_name() -> None:
    cells = picture().instances
    assert cells is not None and sorted(cells.values.tolist()) == [1, 1, 3]
    assert picture(instances=False).instances is None
    mask = np.ones((30, 30), dtype=np.uint8) * 2
    assert picture_instances(mask, {2: "gland"}, STRUCTURES, HistologySettings(instances=True)) is None


def test_report_numbers_and_polygons_agree(tmp_path: Path) -> None:
    prediction = picture()
    result = write_prediction(prediction, tmp_path, writers=[GeoJsonResults(images=True)])
    labels = result["report"]["labels"]
    assert [labels[name].get("count") for name in ("lymphocyte", "gland", "tumour cell")] == [2, None, 1]
    assert labels["tumour cell"]["median_area_px"] > 350
    assert "per_mm2" not in labels["lymphocyte"], "nobody said how wide a pixel is"
    numbers = tifffile.imread(tmp_path / "he" / "instances.tif")
    assert numbers.dtype == np.uint16 and numbers.shape == (80, 100)
    assert np.unique(numbers).tolist() == [0, 1, 2, 3]
    assert np.array_equal(numbers > 0, np.isin(prediction.mask, (1, 3)))
    features = json.loads((tmp_path / "he" / "mask.geojson").read_text(encoding="utf-8"))["features"]
    named = [one["properties"]["classification"]["name"] for one in features]
    assert sorted(named) == ["gland", "lymphocyte", "lymphocyte", "tumour cell"]
    assert result["report"]["geojson"]["pieces"] == {"lymphocyte": 2, "gland": 1, "tumour cell": 1}
    assert "2 cells" in (tmp_path / "he" / "index.html").read_text(encoding="utf-8")


def test_areas_and_densities_need_the_resolution(tmp_path: Path) -> None:
    prediction = picture(image_mpp=0.5)
    entry = write_prediction(prediction, tmp_path)["report"]["labels"]["lymphocyte"]
    pixels = int((prediction.mask == 1).sum())
    assert entry["median_area_um2"] == pytest.approx(pixels / 2 * 0.25, rel=0.02)
    assert entry["per_mm2"] == pytest.approx(2 / (80 * 100 * 0.25e-6))
    assert "cells, 1,000 per mm²" in (tmp_path / "he" / "index.html").read_text(encoding="utf-8")


def test_without_them_nothing_else_changes(tmp_path: Path) -> None:
    for name, settings in (("with", {}), ("without", {"instances": False})):
        write_prediction(picture(**settings), tmp_path / name)
    files = {name: {one.name for one in (tmp_path / name / "he").iterdir()} for name in ("with", "without")}
    assert files["with"] - files["without"] == {"instances.tif"}
    mask = "he/mask.png"
    assert (tmp_path / "with" / mask).read_bytes() == (tmp_path / "without" / mask).read_bytes()


def test_several_prompts_of_one_picture_are_counted_together() -> None:
    prediction = picture()
    both = joined({1: prediction, 3: prediction}, {1: "lymphocyte", 3: "tumour cell"})
    assert both.instances is not None and set(both.instances.values.tolist()) <= {1, 3}


@pytest.mark.parametrize("value", [0.01, 20, "0.25", True])
def test_a_resolution_that_no_microscope_has_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="histology#image_mpp must be micrometres per pixel"):
        HistologySettings(image_mpp=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "pixel"),
    [
        ({}, 0.25),
        ({"zoom": 0.5, "resolution": 0.5}, 0.25),  # 40x, shown at 20x to a network that learnt at 20x
        ({"zoom": 2.0}, 0.5),  # 20x, shown at 40x
        ({"zoom": 2.0, "image_mpp": 0.46}, 0.46),
    ],
)
def test_how_wide_a_pixel_of_an_image_is_taken_to_be(settings: dict[str, float], pixel: float) -> None:
    assert HistologySettings(**settings).image_pixel == pytest.approx(pixel)  # type: ignore[arg-type]
