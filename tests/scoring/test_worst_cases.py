"""The cases that are kept to be looked at are those with the lowest Dice of the evaluation itself."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

from bundle.scoring.worst_cases import WorstCases


def test_the_worst_cases_of_each_modality_are_kept_with_their_truth(
    tiny: Any, workflow: Callable[..., ConfigWorkflow], phantoms: dict[str, Path], tmp_path: Path
) -> None:
    made = workflow(
        "evaluate.yaml",
        datalist=[phantoms["H&E"], phantoms["X-ray"]],
        output_dir=str(tmp_path),
        weights=str(tiny.trained),
    )
    scoring = made.parser.get_parsed_content("scoring")
    worst, all_of_them = WorstCases(scoring, 1), WorstCases(scoring, 50)
    worst.attach(made.evaluator)
    all_of_them.attach(made.evaluator)
    made.run()
    with (tmp_path / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if int(row["truth"])]
    dice = {row["case"]: float(row["dice"]) for row in rows}  # one label a case
    assert {modality: len(cases) for modality, cases in worst.cases.items()} == {"H&E": 1, "X-ray": 1}
    found = [case for cases in all_of_them.cases.values() for case in cases]
    assert len(found) == len(dice) >= 4
    for case in found:
        reference = case.prediction.case.reference
        assert case.dice == pytest.approx(dice[reference.id], abs=1e-4)  # as the table rounds
        assert reference.label is not None
        assert ((case.ground_truth > 0) == (np.asarray(Image.open(reference.label)) > 0)).all()
        both = int(((case.prediction.mask == case.ground_truth) & (case.ground_truth > 0)).sum())
        total = int((case.prediction.mask > 0).sum() + (case.ground_truth > 0).sum())
        assert case.dice == pytest.approx(200 * both / total)
    for modality, cases in all_of_them.cases.items():
        assert [case.dice for case in cases] == sorted(case.dice for case in cases)
        assert worst.cases[modality][0].dice == cases[0].dice


def test_a_number_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        WorstCases(None, 0)  # type: ignore[arg-type]
