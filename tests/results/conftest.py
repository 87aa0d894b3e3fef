"""Small predictions for the tests of the results room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.cases.case import Case, CaseReference
from bundle.results import Prediction

AFFINE = np.diag([-1.5, -1.5, 3.0, 1.0])


def _make(
    shape: tuple[int, ...] = (24, 20, 10),
    labels: dict[int, str] | None = None,
    affine: Any = AFFINE,
    header: Any = None,
    prompt: str = "the liver",
    case_id: str = "case_1",
    empty: bool = False,
    **extra: Any,
) -> Prediction:
    """A volume for three axes, a picture for two; each label is a slab of ones in the middle."""
    labels = {1: "liver"} if labels is None else labels
    rng = np.random.default_rng(7)
    volume = len(shape) == 3
    mask = np.zeros(shape, np.uint8)
    if not empty:
        for index, value in enumerate(labels):
            mask[3 + 5 * index : 7 + 5 * index, 4:15] = value
    array = rng.normal(50, 30, (1, *shape)).astype(np.float32)
    reference = CaseReference(case_id, Path("in") / f"{case_id}.nii.gz", prompt=prompt)
    case = Case(reference, array, affine if volume else None, "CT" if volume else "X-ray", "file", header)
    case.warnings = list(extra.pop("case_warnings", []))
    return Prediction(
        case=case,
        mask=mask,
        probability=rng.random((len(labels), *shape), np.float32) / max(len(labels), 1),
        uncertainty=rng.random(shape, np.float32),
        labels=labels,
        **extra,
    )


@pytest.fixture(scope="session")
def make_prediction() -> Callable[..., Prediction]:
    return _make
