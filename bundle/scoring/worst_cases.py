"""Keeps the cases that an evaluator segments worst, to be looked at."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from ignite.engine import Engine, Events

from bundle.cases import read_label
from bundle.cases.modality import Modality
from bundle.results.pictures.comparison import ComparedCase
from bundle.results.prediction import Prediction
from bundle.scoring.handler import Scoring, in_mask_values
from bundle.scoring.summary import case_means


class WorstCases:
    """The cases of each modality with the lowest Dice, in the first mode that is scored.

    Dice is that of a summary: the mean over the labels present in the ground truth. Cases without any have no Dice and
    are not kept.

    Args:
        scoring: of the evaluator, attached to it before.
        count: cases kept a modality.

    Raises:
        ValueError: `count` is below 1.
    """

    def __init__(self, scoring: Scoring, count: int = 2) -> None:
        if count < 1:
            raise ValueError(f"the number of cases must be at least 1, not {count}")
        self.scoring = scoring
        self.count = count
        #: Modality -> cases, the worst first.
        self.cases: dict[Modality, list[ComparedCase]] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)

    def collect(self, engine: Engine) -> None:
        output = engine.state.output
        if "error" not in output:
            self._take(output["predictions"][self.scoring.modes[0]])

    def _take(self, prediction: Prediction) -> None:
        reference = prediction.case.reference
        mode = self.scoring.modes[0]
        scores = [one for one in self.scoring.scores if (one.case, one.text) == (reference.id, mode)]
        dice = case_means(scores).get(reference.id)
        kept = self.cases.setdefault(prediction.case.modality, [])
        if dice is None or (len(kept) == self.count and dice >= kept[-1].dice):
            return
        labels = self.scoring.labels_of(reference)
        value_of = {name: value for value, name in labels.values()}
        compared = ComparedCase(
            prediction=replace(
                prediction,
                mask=np.where(
                    np.isin(prediction.mask, list(value_of.values())), prediction.mask, np.uint8(0)
                ),
            ),
            ground_truth=in_mask_values(read_label(reference, prediction.case), labels),
            dice=dice,
            labels={value_of[one.label]: (one.label, one.dice) for one in scores if math.isfinite(one.dice)},
        )
        self.cases[prediction.case.modality] = sorted([*kept, compared], key=lambda one: one.dice)[
            : self.count
        ]
