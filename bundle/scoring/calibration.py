"""What an uncertainty is worth: are sure voxels right, and are unsure slices the bad ones?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Voxels in which the network gives any structure less than this, and the ground truth shows none, are left out:
#: there are so many that any network would be calibrated over all of them.
RELEVANT_PROBABILITY = 0.01


@dataclass
class Reliability:
    """Confidence against accuracy, collected voxel by voxel into equal bins of confidence.

    Guo et al., 'On calibration of modern neural networks' (2017), sec. 2: the confidence is the probability
    of the predicted class, background included. MONAI's CalibrationErrorMetric bins every channel of every voxel and
    gives a mean over cases; this leaves out voxels that say nothing, and weighs all cases' voxels alike.
    """

    bins: int = 15
    count: NDArray[np.float64] = field(init=False)
    confidence: NDArray[np.float64] = field(init=False)
    correct: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.count, self.confidence, self.correct = (np.zeros(self.bins) for _ in range(3))

    def add(self, confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> None:
        """Add voxels: confidence in [0, 1] and whether the prediction is right, both (N,)."""
        index = np.minimum((confidence * self.bins).astype(np.int64), self.bins - 1)
        self.count += np.bincount(index, minlength=self.bins)
        self.confidence += np.bincount(index, weights=confidence, minlength=self.bins)
        self.correct += np.bincount(index, weights=correct, minlength=self.bins)

    def table(self) -> list[dict[str, float]]:
        """A row a bin that holds voxels: `confidence` and `accuracy`, their means, and its `share` of the voxels."""
        filled = np.flatnonzero(self.count)
        return [
            {
                "confidence": round(float(self.confidence[i] / self.count[i]), 4),
                "accuracy": round(float(self.correct[i] / self.count[i]), 4),
                "share": round(float(self.count[i] / self.count.sum()), 6),
            }
            for i in filled
        ]

    def expected_calibration_error(self) -> float | None:
        """Mean gap between confidence and accuracy, weighted by the bins' voxels, in per cent (eq. 3)."""
        total = self.count.sum()
        return float(100.0 * np.abs(self.correct - self.confidence).sum() / total) if total else None


@dataclass
class TemperatureFit:
    """The temperature at which the ground truth is most likely (Guo et al. 2017, sec. 4.2), collected voxel by voxel.

    Attributes:
        temperatures: that are tried.
        loss: of each, negative log-likelihood over all voxels so far.
    """

    temperatures: NDArray[np.float64] = field(default_factory=lambda: np.geomspace(0.4, 4.0, 47))
    loss: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.loss = np.zeros(len(self.temperatures))

    def add(self, probability: NDArray[np.floating], truth: NDArray[np.integer]) -> None:
        """Add voxels: probabilities (K, N), background first, and the true channel (N,)."""
        logits = np.log(np.maximum(probability, 1e-12))
        true = np.take_along_axis(logits, truth[None], axis=0)[0]
        for number, temperature in enumerate(self.temperatures):
            total = np.log(np.exp(logits / temperature).sum(axis=0))
            self.loss[number] += float((total - true / temperature).sum())

    def best(self) -> float | None:
        """None before any voxel was added."""
        return round(float(self.temperatures[self.loss.argmin()]), 4) if self.loss.any() else None


@dataclass(frozen=True)
class UnitCertainty:
    """Uncertainty and Dice (per cent) of one slice or 2-D image."""

    uncertainty: float
    dice: float


def relevant_voxels(probability: NDArray[np.floating], truth: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where any structure is probable at all or true: (*spatial) of (K, *spatial) and (*spatial)."""
    return (probability.max(axis=0) >= RELEVANT_PROBABILITY) | (truth > 0)


def unit_certainties(
    mask: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    uncertainty: NDArray[np.floating],
    relevant: NDArray[np.bool_],
    axis: int | None,
) -> list[UnitCertainty]:
    """Uncertainty and Dice of each slice along an axis, or of the whole 2-D image.

    The uncertainty of a unit is its mean over relevant voxels. Dice is the mean over the labels in the unit's
    ground truth, and 0 where something was found that is not there. Units in which nothing is true or found say
    nothing and are left out.

    Args:
        mask, truth: (*spatial), values of one numbering.
        uncertainty: (*spatial) in [0, 1].
        relevant: of `relevant_voxels`.
        axis: of the slices; None for one unit.
    """
    arrays: Sequence[NDArray[Any]] = (mask, truth, uncertainty, relevant)
    units = zip(
        *(np.moveaxis(array, axis, 0) if axis is not None else array[None] for array in arrays), strict=True
    )
    result = []
    for unit_mask, unit_truth, unit_uncertainty, unit_relevant in units:
        if not unit_mask.any() and not unit_truth.any():
            continue
        present = [value for value in np.unique(unit_truth) if value]
        scores = [_dice(unit_mask == value, unit_truth == value) for value in present]
        mean = float(unit_uncertainty[unit_relevant].mean()) if unit_relevant.any() else 0.0
        result.append(UnitCertainty(mean, float(np.mean(scores)) if scores else 0.0))
    return result


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return 100.0 * 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())


def certainty_figures(
    units: Sequence[UnitCertainty], share: float = 0.25
) -> Mapping[str, float | int | None]:
    """Mean Dice of the most and of the least certain share of the units, of all, and of the least certain tenth and the
    rest.
    """
    ordered = sorted(units, key=lambda unit: unit.uncertainty)
    size, tenth = int(round(len(ordered) * share)), int(round(len(ordered) * 0.1))
    groups = {
        "all": ordered,
        "most_certain": ordered[:size],
        "least_certain": ordered[len(ordered) - size :],
        "least_certain_tenth": ordered[len(ordered) - tenth :],
        "other_nine_tenths": ordered[: len(ordered) - tenth],
    }
    figures: dict[str, float | int | None] = {"units": len(ordered), "share": share}
    for name, group in groups.items():
        figures[f"dice_{name}"] = round(float(np.mean([unit.dice for unit in group])), 4) if group else None
    return figures
