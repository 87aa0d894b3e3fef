"""What an uncertainty is worth, against naive computations."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.scoring.calibration import (
    Reliability,
    TemperatureFit,
    UnitCertainty,
    certainty_figures,
    relevant_voxels,
    unit_certainties,
)


def test_calibration_error_equals_the_naive_weighted_gap() -> None:
    random = np.random.default_rng(0)
    confidence, correct = random.random(5000), random.random(5000) < 0.6
    reliability = Reliability(bins=10)
    for part in np.array_split(np.arange(5000), 7):
        reliability.add(confidence[part], correct[part])
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence >= low) & (confidence < low + 0.1)
        expected += 100 * inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert reliability.expected_calibration_error() == pytest.approx(expected, abs=1e-6)


def test_a_network_that_is_as_right_as_it_says_has_no_calibration_error() -> None:
    reliability = Reliability()
    reliability.add(np.full(1000, 0.75), np.arange(1000) % 4 != 0)
    assert reliability.expected_calibration_error() == pytest.approx(0.0, abs=1e-9)
    assert Reliability().expected_calibration_error() is None


def test_certainty_one_counts_in_the_last_bin() -> None:
    reliability = Reliability(bins=5)
    reliability.add(np.array([1.0, 1.0]), np.array([True, False]))
    assert reliability.count.tolist() == [0, 0, 0, 0, 2]
    assert reliability.expected_calibration_error() == pytest.approx(50.0)


def test_relevant_are_voxels_that_are_probable_or_true() -> None:
    probability = np.array([[0.0, 0.02, 0.005, 0.0], [0.0, 0.0, 0.002, 0.0]])
    truth = np.array([0, 0, 0, 3], dtype=np.uint8)
    assert relevant_voxels(probability, truth).tolist() == [False, True, False, True]


def test_a_slice_without_truth_or_mask_is_left_out_and_a_false_finding_counts_zero() -> None:
    truth, mask = np.zeros((2, 2, 4), dtype=np.uint8), np.zeros((2, 2, 4), dtype=np.uint8)
    truth[:, :, 0], mask[:, :, 0] = 1, 1  # right
    truth[:, :, 1], mask[0, :, 1] = 2, 2  # half of it found: 2 * 2 / (2 + 4)
    mask[0, 0, 2] = 1  # nothing there
    uncertainty = np.broadcast_to(np.array([0.1, 0.4, 0.8, 0.0]), (2, 2, 4))
    units = unit_certainties(mask, truth, uncertainty, (mask > 0) | (truth > 0), axis=2)
    assert [round(unit.dice, 3) for unit in units] == [100.0, 66.667, 0.0]
    assert [round(unit.uncertainty, 6) for unit in units] == [0.1, 0.4, 0.8]


def test_a_picture_is_one_unit() -> None:
    mask = np.array([[1, 1], [0, 0]], dtype=np.uint8)
    units = unit_certainties(mask, mask, np.full((2, 2), 0.3), mask > 0, axis=None)
    assert units == [UnitCertainty(pytest.approx(0.3), 100.0)]


def test_quarters_are_those_of_least_and_most_uncertainty() -> None:
    units = [UnitCertainty(uncertainty=i / 8, dice=100.0 - 10 * i) for i in range(8)]
    figures = certainty_figures(units[::-1])
    assert figures["units"] == 8
    assert figures["dice_most_certain"] == pytest.approx(95.0)
    assert figures["dice_least_certain"] == pytest.approx(35.0)
    assert figures["dice_all"] == pytest.approx(65.0)
    assert certainty_figures([])["dice_all"] is None


def test_the_least_certain_tenth_stands_against_the_rest() -> None:
    units = [UnitCertainty(uncertainty=number / 20, dice=100.0 - number) for number in range(20)]
    figures = certainty_figures(units)
    assert figures["dice_least_certain_tenth"] == pytest.approx((100 - 18 + 100 - 19) / 2)
    assert figures["dice_other_nine_tenths"] == pytest.approx(100 - sum(range(18)) / 18)


def test_the_rows_of_a_reliability_diagram_give_its_error() -> None:
    reliability = Reliability()
    generator = np.random.default_rng(0)
    confidence = generator.random(500)
    reliability.add(confidence, generator.random(500) < confidence**2)
    rows = reliability.table()
    assert sum(row["share"] for row in rows) == pytest.approx(1.0, abs=1e-4)
    error = 100 * sum(row["share"] * abs(row["confidence"] - row["accuracy"]) for row in rows)
    assert error == pytest.approx(reliability.expected_calibration_error(), abs=0.05)
    assert error > 5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_best_temperature_is_the_one_that_logits_were_spoilt_by(temperature: float) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(4, 20000)) * 2.0
    honest = np.exp(logits) / np.exp(logits).sum(axis=0)
    truth = (honest.cumsum(axis=0) < generator.random(20000)).sum(axis=0)
    spoilt = honest ** (1 / temperature) / (honest ** (1 / temperature)).sum(axis=0)
    fit = TemperatureFit()
    assert fit.best() is None
    for half in (slice(0, 10000), slice(10000, None)):
        fit.add(spoilt[:, half], truth[half])
    # the temperature that undoes it
    assert fit.best() == pytest.approx(1 / temperature, rel=0.06)
