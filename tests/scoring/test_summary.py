"""The figures of a run are those of the contract: per case, then over cases; whole-set overlaps apart."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np
import pytest

from bundle.scoring import Score, bootstrap_ci95, case_means, metrics_csv, summarise

NAN = float("nan")


def score(case: str, label: str, truth: int, predicted: int, overlap: int, hd95: float = NAN) -> Score:
    union = truth + predicted - overlap
    dice = 100 * 2 * overlap / (truth + predicted) if union else NAN
    return Score(
        case,
        "off",
        label,
        dice,
        100 * overlap / union if union else NAN,
        hd95,
        truth,
        predicted,
        overlap,
        absent=int(truth == 0),
        left_empty=int(truth == 0 and predicted == 0),
    )


SCORES = [
    score("a", "liver", 10, 10, 8, hd95=2.0),  # 80
    score("a", "spleen", 4, 4, 1, hd95=6.0),  # 25
    score("b", "liver", 30, 10, 10, hd95=4.0),  # 50
    score("b", "spleen", 0, 5, 0),  # not in the truth: no part of b's mean
    score("c", "liver", 0, 0, 0),  # shows nothing, and nothing was found
    score("c", "spleen", 0, 0, 0),
    score("d", "liver", 0, 3, 0),  # shows nothing, and something was invented
    score("d", "spleen", 0, 0, 0),
]


def test_dice_is_the_mean_over_cases_of_the_mean_over_the_labels_present() -> None:
    figures = summarise(SCORES)
    assert case_means(SCORES) == pytest.approx({"a": 52.5, "b": 50.0})
    assert figures["dice"] == pytest.approx(51.25)
    assert figures["iou"] == pytest.approx(((100 * 8 / 12 + 100 / 7) / 2 + 100 / 3) / 2, abs=1e-4)
    assert figures["hd95_mm"] == pytest.approx((4.0 + 4.0) / 2)
    assert figures["cases"] == 4


def test_dice_global_accumulates_over_all_cases() -> None:
    figures = summarise(SCORES)
    liver, spleen = 100 * 2 * 18 / (20 + 40 + 3), 100 * 2 * 1 / (8 + 5)
    assert figures["per_label"]["liver"]["dice_global"] == pytest.approx(liver, abs=1e-4)
    assert figures["per_label"]["spleen"]["dice_global"] == pytest.approx(spleen, abs=1e-4)
    assert figures["dice_global"] == pytest.approx((liver + spleen) / 2, abs=1e-4)


def test_the_table_of_a_label_is_over_the_cases_that_show_it() -> None:
    liver = summarise(SCORES)["per_label"]["liver"]
    assert liver["cases"] == 2 and liver["dice"] == pytest.approx(65.0)
    assert liver["hd95_mm"] == pytest.approx(3.0)
    assert summarise(SCORES)["per_label"]["spleen"]["cases"] == 1
    assert summarise(SCORES)["per_label"]["spleen"]["dice_ci95"] is None


def test_cases_that_show_nothing_are_accounted_for() -> None:
    assert summarise(SCORES)["empty_truth"] == {"cases": 2, "left_empty": 1}
    assert summarise(SCORES[:4])["empty_truth"] == {"cases": 0, "left_empty": 0}


def test_nothing_to_average_is_null() -> None:
    figures = summarise(SCORES[4:6])
    for name in ("dice", "dice_ci95", "dice_global", "iou", "iou_ci95", "hd95_mm"):
        assert figures[name] is None
    assert figures["cases"] == 1
    assert summarise([])["dice"] is None and summarise([])["cases"] == 0


def test_the_order_of_the_cases_does_not_change_the_means() -> None:
    backward = summarise(SCORES[::-1])
    for name in ("cases", "dice", "dice_global", "iou", "hd95_mm", "empty_truth"):
        assert backward[name] == summarise(SCORES)[name]


# --- intervals -------------------------------------------------------------------------------------------


def test_the_interval_encloses_the_mean_and_is_that_of_resampling() -> None:
    values = np.random.default_rng(0).normal(80, 6, 50).tolist()
    interval = bootstrap_ci95(values)
    assert interval is not None and interval == bootstrap_ci95(values)
    assert interval[0] < np.mean(values) < interval[1]
    half = 1.96 * np.std(values) / math.sqrt(50)
    assert interval == pytest.approx([np.mean(values) - half, np.mean(values) + half], abs=0.25)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        low, high = bootstrap_ci95(
            np.random.default_rng(seed).normal(70, 10, 40).tolist(), resamples=400
        ) or (0, 0)
        covered += low <= 70 <= high
    # 95 % of 200 is 190; the percentile bootstrap of 40 values covers slightly less, and 9 is three deviations
    assert 177 <= covered <= 199


def test_no_interval_below_two_cases() -> None:
    assert bootstrap_ci95([]) is None and bootstrap_ci95([50.0]) is None
    assert bootstrap_ci95([50.0, 50.0]) == [50.0, 50.0]


# --- the table -------------------------------------------------------------------------------------------


def test_the_table_gives_the_scores_back() -> None:
    scores = [*SCORES, score('case, with "quotes"', "left kidney, upper", 7, 9, 5, hd95=1.23456)]
    rows = list(csv.DictReader(io.StringIO(metrics_csv(scores))))
    assert len(rows) == len(scores)
    kinds: dict[str, Any] = {name: type(value) for name, value in scores[0].row().items()}
    for row, given in zip(rows, scores, strict=True):
        assert list(row) == Score.columns()
        for name, value in given.row().items():
            if isinstance(value, float) and math.isnan(value):
                assert row[name] == ""
            elif isinstance(value, float):
                assert float(row[name]) == pytest.approx(value, abs=5.1e-5)
            else:
                assert kinds[name](row[name]) == value
