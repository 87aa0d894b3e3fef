"""AJI and panoptic quality equal straightforward computations, and MONAI's."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
import torch
from monai.metrics.panoptic_quality import compute_panoptic_quality
from numpy.typing import NDArray
from scipy import ndimage

from bundle.scoring import CellScore, Score, metrics_csv, score_cells, score_label, summarise

Cells = NDArray[np.int32]


def cells(seed: int, quantile: float = 0.6, shift: int = 0) -> Cells:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((60, 70)), 2.0)
    pieces: Cells = ndimage.label(noise > np.quantile(noise, quantile))[0]
    return np.roll(pieces, shift, axis=1)


def sets(numbers: Cells) -> list[set[tuple[int, int]]]:
    return [
        {(int(row), int(column)) for row, column in np.argwhere(numbers == number)}
        for number in np.unique(numbers)
        if number
    ]


def naive(predicted: Cells, truth: Cells) -> tuple[float, float, float, float]:
    """AJI as algorithm 1 of Kumar et al. 2017 has it, PQ, DQ, SQ as Kirillov et al. 2019 do, cell by cell."""
    true, found = sets(truth), sets(predicted)
    overlap = union = 0
    used = set()
    for one in true:
        ratios = [len(one & other) / len(one | other) for other in found]
        best = int(np.argmax(ratios)) if found else 0
        if found and ratios[best] > 0:
            overlap += len(one & found[best])
            union += len(one | found[best])
            used.add(best)
        else:
            union += len(one)
    union += sum(len(other) for number, other in enumerate(found) if number not in used)
    matches = [
        ratio for one in true for other in found if (ratio := len(one & other) / len(one | other)) > 0.5
    ]
    dq = len(matches) / (len(matches) + (len(true) - len(matches)) / 2 + (len(found) - len(matches)) / 2)
    sq = sum(matches) / len(matches) if matches else math.nan
    return overlap / union, dq * sq if matches else 0.0, dq, sq


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shift", [0, 1, 3, 9])
def test_both_equal_a_naive_computation(seed: int, shift: int) -> None:
    truth, predicted = cells(seed), cells(seed, 0.6 + 0.03 * (seed % 3), shift)
    predicted[predicted == 2] = 0
    predicted[30:, 20] = 0
    score = score_cells(predicted, truth)
    expected = naive(predicted, truth)
    assert (score.aji, score.pq, score.dq, score.sq) == pytest.approx(
        [100 * value for value in expected], nan_ok=True
    )
    assert score.truth_cells == truth.max() and score.predicted_cells == len(np.unique(predicted)) - 1


@pytest.mark.parametrize("seed", range(3))
def test_panoptic_quality_is_that_of_monai(seed: int) -> None:
    truth, predicted = cells(seed), cells(seed, 0.65, 1)
    pair = torch.from_numpy(predicted), torch.from_numpy(truth)
    score = score_cells(predicted, truth)
    for name, value in (("pq", score.pq), ("rq", score.dq), ("sq", score.sq)):
        assert value == pytest.approx(100 * float(compute_panoptic_quality(*pair, name)), abs=1e-3)


def test_the_same_cells_are_perfect_whatever_their_numbers() -> None:
    truth = cells(1)
    score = score_cells(truth * 7 % 1009, truth)
    assert (score.aji, score.pq, score.dq, score.sq) == (100, 100, 100, 100)
    assert score.matched_cells == score.truth_cells == score.predicted_cells


def test_two_cells_found_as_one_cost_more_than_their_dice() -> None:
    truth = np.zeros((20, 40), dtype=np.int32)
    truth[5:15, 5:20], truth[5:15, 20:35] = 1, 2
    score = score_cells((truth > 0).astype(np.int32), truth)
    assert score.aji == pytest.approx(100 * (150 + 150) / (300 + 300))
    assert (score.pq, score.matched_cells, score.truth_cells, score.predicted_cells) == (0, 0, 2, 1)
    assert math.isnan(score.sq)


def test_nothing_found_and_nothing_there() -> None:
    none, some = np.zeros((30, 30), dtype=np.int32), cells(0)[:30, :30]
    nothing = score_cells(none, none)
    assert all(math.isnan(value) for value in (nothing.aji, nothing.pq, nothing.dq, nothing.sq))
    for predicted, truth in ((none, some), (some, none)):
        score = score_cells(predicted, truth)
        assert (score.aji, score.pq, score.dq) == (0, 0, 0) and math.isnan(score.sq)
    with pytest.raises(ValueError, match="differ in shape"):
        score_cells(none, some[1:])


def rows() -> list[Score]:
    truth, predicted = cells(0), cells(0, 0.65, 1)
    of = {"nucleus": score_cells(predicted, truth, "connected pieces"), "liver": None}
    return [
        Score(**{**score_label("a", name, predicted > 0, truth > 0).row(), "cells": own})
        for name, own in of.items()
    ]


def test_the_summary_has_them_for_what_is_counted() -> None:
    per_label = summarise(rows())["per_label"]
    own = score_cells(cells(0, 0.65, 1), cells(0))
    found = per_label["nucleus"]["instances"]
    assert found["reference"] == "connected pieces" and "instances" not in per_label["liver"]
    for name in ("aji", "pq", "dq", "sq"):
        assert found[name] == pytest.approx(getattr(own, name), abs=1e-4)
    assert found["truth_cells"] == own.truth_cells and found["matched_cells"] == own.matched_cells


def test_the_table_has_columns_of_cells_where_any_are_counted() -> None:
    with_cells = list(csv.DictReader(io.StringIO(metrics_csv(rows()))))
    assert float(with_cells[0]["aji"]) > 0 and with_cells[1]["aji"] == ""
    assert with_cells[0]["cell_reference"] == "connected pieces"
    without = csv.DictReader(io.StringIO(metrics_csv(rows()[1:])))
    assert list(without.fieldnames or []) == Score.columns()
    assert set(CellScore.__dataclass_fields__).isdisjoint(without.fieldnames or [])
