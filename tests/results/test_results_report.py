"""The report's numbers, and that it is JSON whatever goes in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundle.results import Prediction
from bundle.results.report import build_report, to_plain, write_json

Make = Callable[..., Prediction]


def test_numbers_agree_with_a_direct_computation(make_prediction: Make) -> None:
    affine = np.array([[1.0, 0.2, 0, 0], [0, 1.5, 0.4, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])
    prediction = make_prediction(
        affine=affine, labels={1: "liver", 4: "spleen"}, settings={"steps": 10, "sampler": "ddim"}
    )
    report = build_report(prediction, 2.0)
    inside = prediction.mask == 4
    entry = report["labels"]["spleen"]
    assert entry["value"] == 4 and entry["voxels"] == inside.sum()
    # A sheared grid: its voxels hold 1 x 1.5 x 3 mm3 although their edges are longer.
    assert entry["volume_ml"] == pytest.approx(inside.sum() * 1.0 * 1.5 * 3.0 / 1000, abs=1e-6)
    assert entry["mean_probability"] == pytest.approx(prediction.probability[1][inside].mean(), abs=1e-5)
    assert entry["mean_uncertainty"] == pytest.approx(prediction.uncertainty[inside].mean(), abs=1e-5)
    assert report["mean_uncertainty"] == pytest.approx(prediction.uncertainty.mean(), abs=1e-5)
    foreground = prediction.uncertainty[prediction.mask > 0].mean()
    assert report["mean_uncertainty_foreground"] == pytest.approx(foreground, abs=1e-5)
    assert report["settings"] == {"steps": 10, "sampler": "ddim"}
    assert (report["case"], report["seconds"], report["source_series"]) == ("case_1", 2.0, None)
    assert report["spacing_mm"] == pytest.approx(np.linalg.norm(affine[:3, :3], axis=0), abs=1e-5)


@pytest.mark.parametrize("labels", [{1: "liver"}, {}])
def test_an_empty_mask_is_said_to_be_one(make_prediction: Make, labels: dict[int, str]) -> None:
    report = build_report(make_prediction(labels=labels, empty=True))
    assert report["found"] is False
    assert report["mean_uncertainty_foreground"] is None
    for entry in report["labels"].values():
        assert (entry["found"], entry["volume_ml"], entry["mean_probability"]) == (False, 0, None)


def test_a_value_without_a_label_is_refused(make_prediction: Make) -> None:
    prediction = make_prediction()
    prediction.mask[0, 0, 0] = 9
    with pytest.raises(ValueError, match=r"without a label: \[9\]"):
        build_report(prediction)


def test_each_warning_is_said_once(make_prediction: Make) -> None:
    prediction = make_prediction(
        case_warnings=["spacing assumed"], warnings=["prompt cut", "spacing assumed"]
    )
    assert build_report(prediction)["warnings"] == ["spacing assumed", "prompt cut"]


def test_whatever_goes_in_comes_out_as_json(tmp_path: Path) -> None:
    content = {
        "nan": float("nan"),
        "array": np.array([1.0, np.inf]),
        "scalar": np.float32(0.5),
        "path": Path("a/b"),
        "set": {2, 1},
        3: (True, None),
        "surrogate": "caf\udce9",
        "script": "胆囊 <b>&amp;</b> $x$\n",
    }
    write_json(tmp_path / "report.json", content)
    read = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read == {
        "nan": None,
        "array": [1.0, None],
        "scalar": 0.5,
        "path": "a/b",
        "set": [1, 2],
        "3": [True, None],
        "surrogate": "caf?",
        "script": content["script"],
    }
    assert to_plain(1.23456789) == 1.234568
