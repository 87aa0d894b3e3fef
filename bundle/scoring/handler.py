"""Scores the cases an evaluator segments, and writes the figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from numpy.typing import NDArray

from bundle.atomic import write_atomically
from bundle.cases import CaseError, CaseReference, read_label
from bundle.cases.reader import read_instances
from bundle.cases.structures import Structures
from bundle.results.prediction import Prediction
from bundle.scoring.calibration import (
    Reliability,
    TemperatureFit,
    UnitCertainty,
    certainty_figures,
    relevant_voxels,
    unit_certainties,
)
from bundle.scoring.instances import CellReference, connected_pieces, score_cells
from bundle.scoring.metrics import Score, score_masks
from bundle.scoring.summary import metrics_csv, summarise
from bundle.scoring.text_effect import TextMode

logger = logging.getLogger(__name__)


class Scoring:
    """Collects a row a case, text mode and label while an evaluator runs.

    The evaluator's output holds, for each case that did not fail, mode -> `Prediction` under 'predictions'.
    At the end `engine.state.metrics['dice']` is the mean Dice in per cent of the first mode and, with
    `output_dir`, metrics.csv and summary.json stand there.

    Args:
        structures: of the network.
        modes: of the text that the evaluator runs, see `text_prompts`; the uncertainty is that of the first.
        split: name of the list the cases came from, for the summary.
        spacing_is_true: whether the data's spacing is real; distances in mm are given only then.
        output_dir: None to keep the figures to the evaluator's state.
    """

    def __init__(
        self,
        structures: Structures,
        modes: Sequence[TextMode] = ("off",),
        split: str = "",
        spacing_is_true: bool = True,
        output_dir: Path | str | None = None,
    ) -> None:
        self.structures = structures
        self.modes = list(modes)
        self.split = split
        self.spacing_is_true = spacing_is_true
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.scores: list[Score] = []
        self.units: list[UnitCertainty] = []
        self.reliability = Reliability()
        self.temperature = TemperatureFit()
        self.dice: float | None = None

    def take_dice(self) -> float | None:
        """Mean Dice in per cent, in the first mode, of the run that has just ended; None until the next one has."""
        dice, self.dice = self.dice, None
        return dice

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def reset(self, engine: Engine) -> None:
        self.scores, self.units = [], []
        self.reliability, self.temperature = Reliability(), TemperatureFit()

    def collect(self, engine: Engine) -> None:
        predictions: Mapping[str, Prediction] | None = engine.state.output.get("predictions")
        if predictions is None:
            logger.warning("not scored: %s", engine.state.output.get("error"))
            return
        try:
            self.score(predictions, engine.state.output.get("ground_truth"))
        except CaseError as error:  # the rest of the list goes on
            engine.state.output["error"] = str(error)
            logger.warning("not scored: %s", error)

    def score(self, predictions: Mapping[str, Prediction], truth: NDArray[np.uint8] | None = None) -> None:
        """Add the figures of one case.

        Args:
            predictions: text mode -> prediction, all of the one case; every mode of `modes` is there.
            truth: the case's label as `read_label` gives it; None to read it.

        Raises:
            CaseError: no label, or one that does not fit the image.
        """
        case = predictions[self.modes[0]].case
        reference = case.reference
        if reference.label is None:
            raise CaseError(
                reference.image, "has no label to compare with", "evaluate a list whose cases have labels"
            )
        self.structures.check_labels([reference])
        labels = self.labels_of(reference)
        spacing = case.spacing if self.spacing_is_true else None
        truth = read_label(reference, case) if truth is None else truth
        axis = case.head_foot_axis
        cells: dict[str, NDArray[np.int32]] = {}
        numbers = None
        if any(prediction.instances is not None for prediction in predictions.values()):
            numbers = read_instances(reference, case)
            cells = self._true_cells(truth, labels, numbers)
        source: CellReference = "connected pieces" if numbers is None else "instances"
        for mode in self.modes:
            mask = predictions[mode].mask
            scores = score_masks(reference.id, mask, truth, labels, spacing, mode, axis)
            self.scores.extend(self._with_cells(score, predictions[mode], cells, source) for score in scores)
        self._add_certainty(predictions[self.modes[0]], truth, labels, axis)

    def _true_cells(
        self,
        truth: NDArray[np.uint8],
        labels: Mapping[int, tuple[int, str]],
        numbers: NDArray[np.int32] | None,
    ) -> dict[str, NDArray[np.int32]]:
        """Name of a structure that is counted one by one -> the true ones."""
        names = {value: name for value, (_, name) in labels.items()}
        return {
            names[value]: connected_pieces(truth == value) if numbers is None else numbers * (truth == value)
            for value in self.structures.cells(names)
        }

    def _with_cells(
        self,
        score: Score,
        prediction: Prediction,
        cells: Mapping[str, NDArray[np.int32]],
        source: CellReference,
    ) -> Score:
        found = prediction.instances
        if found is None or score.label not in cells:
            return score
        own = found.only(self.structures.value(score.label))
        return replace(score, cells=score_cells(own, cells[score.label], source))

    def labels_of(self, reference: CaseReference) -> dict[int, tuple[int, str]]:
        """Value in a case's ground truth -> (value in the mask, name)."""
        return {value: (self.structures.value(name), name) for value, name in reference.labels.items()}

    def _add_certainty(
        self,
        prediction: Prediction,
        truth: NDArray[np.uint8],
        labels: Mapping[int, tuple[int, str]],
        axis: int | None,
    ) -> None:
        truth = in_mask_values(truth, labels)
        known = [mask_value for mask_value, _ in labels.values()]
        # what this data set does not label is background in its ground truth, and so it is here
        mask = np.where(np.isin(prediction.mask, known), prediction.mask, np.uint8(0))
        shown = [value for value in self.structures.of_modality(prediction.case.modality) if value in known]
        if not shown:  # labels of another modality alone: nothing that could be sure or unsure
            return
        of_value = dict(zip(prediction.labels, prediction.probability, strict=True))
        # what the prompt did not name has no channel: nothing was found there
        nothing = np.zeros(prediction.mask.shape, dtype=np.float32)
        probability = np.stack([of_value.get(value, nothing) for value in shown])
        relevant = relevant_voxels(probability, truth)
        confidence = np.maximum(probability.max(axis=0), 1.0 - probability.sum(axis=0))[relevant].clip(
            0.0, 1.0
        )
        self.reliability.add(confidence, (mask == truth)[relevant])
        if self.output_dir is not None:
            channel_of = np.zeros(256, dtype=np.int64)
            channel_of[shown] = range(1, len(shown) + 1)
            shares = probability[:, relevant].astype(np.float64)
            shares = np.concatenate([np.maximum(1.0 - shares.sum(axis=0, keepdims=True), 0.0), shares])
            self.temperature.add(shares, channel_of[truth[relevant]])
        self.units.extend(unit_certainties(mask, truth, prediction.uncertainty, relevant, axis))

    def finish(self, engine: Engine) -> None:
        of_mode = {
            mode: summarise([score for score in self.scores if score.text == mode]) for mode in self.modes
        }
        figures = of_mode[self.modes[0]]
        self.dice = figures["dice"]
        if self.dice is not None:
            engine.state.metrics["dice"] = self.dice
        if self.output_dir is None:
            return
        summary: dict[str, Any] = {"split": self.split, "cases": figures["cases"], "text": of_mode}
        summary["uncertainty"] = {
            "expected_calibration_error": self.reliability.expected_calibration_error(),
            "reliability": self.reliability.table(),
            "best_temperature": self.temperature.best(),  # times the one that was used
            **certainty_figures(self.units),
        }
        with write_atomically(self.output_dir / "metrics.csv") as path:
            path.write_text(metrics_csv(self.scores), encoding="utf-8")
        with write_atomically(self.output_dir / "summary.json") as path:
            path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        for mode, found in of_mode.items():
            logger.info(
                "Dice %s %% over %d cases of %s, text %s", found["dice"], found["cases"], self.split, mode
            )


def in_mask_values(truth: NDArray[np.uint8], labels: Mapping[int, tuple[int, str]]) -> NDArray[np.uint8]:
    """A ground truth in the numbering of the mask.

    Args:
        labels: value in the ground truth -> (value in the mask, name); what it has not becomes background.
    """
    table = np.zeros(256, dtype=np.uint8)
    for value, (mask_value, _) in labels.items():
        table[value] = mask_value
    return table[truth]
