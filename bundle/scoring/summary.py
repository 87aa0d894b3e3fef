"""From rows to figures: means over cases with bootstrap intervals, whole-set overlaps, a table a label."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from bundle.scoring.instances import CellScore
from bundle.scoring.metrics import Score


def case_means(scores: Iterable[Score], figure: str = "dice") -> dict[str, float]:
    """Case -> mean of a figure over the labels present in the case's ground truth; cases without any are left out."""
    present: dict[str, list[float]] = {}
    for score in scores:
        value = float(getattr(score, figure))
        if score.truth > 0 and math.isfinite(value):
            present.setdefault(score.case, []).append(value)
    return {case: float(np.mean(values)) for case, values in present.items()}


def bootstrap_ci95(values: Sequence[float], resamples: int = 2000, seed: int = 0) -> list[float] | None:
    """95 % interval of the mean by the percentile bootstrap over cases; None below two cases."""
    if len(values) < 2:
        return None
    rng = np.random.default_rng(seed)
    found = bootstrap((values,), np.mean, n_resamples=resamples, method="percentile", rng=rng)
    return [round(float(end), 4) for end in found.confidence_interval]


def summarise(scores: Sequence[Score]) -> dict[str, Any]:
    """The figures of one way of prompting.

    Returns:
        dice, dice_ci95, iou, iou_ci95: mean over cases of the mean over the labels present in the ground truth;
        dice_global: overlap accumulated over all cases, mean over labels; hd95_mm where spacing is true;
        cases; empty_truth: cases that show nothing, and how many were left empty; per_label, where `absent` counts
        slices or 2-D images without the label and `left_empty` is the share of them in which none was found, and
        `instances` is of what is counted one by one: see `bundle.scoring.instances.CellScore`, means over cases. Per
        cent; null where there is nothing to average.
    """
    dice, iou, distance = (case_means(scores, figure) for figure in ("dice", "iou", "hd95_mm"))
    labels = list(dict.fromkeys(score.label for score in scores))
    per_label = {
        label: _label_figures([score for score in scores if score.label == label]) for label in labels
    }
    whole = [figures["dice_global"] for figures in per_label.values() if figures["dice_global"] is not None]
    shown: dict[str, bool] = {}
    found: dict[str, bool] = {}
    for score in scores:
        shown[score.case] = shown.get(score.case, False) or score.truth > 0
        found[score.case] = found.get(score.case, False) or score.predicted > 0
    empty = [case for case, present in shown.items() if not present]
    return {
        "cases": len(shown),
        "dice": _mean(dice.values()),
        "dice_ci95": bootstrap_ci95(list(dice.values())),
        "dice_global": _mean(whole),
        "iou": _mean(iou.values()),
        "iou_ci95": bootstrap_ci95(list(iou.values())),
        "hd95_mm": _mean(distance.values()),
        "empty_truth": {"cases": len(empty), "left_empty": sum(not found[case] for case in empty)},
        "per_label": per_label,
    }


def _label_figures(scores: Sequence[Score]) -> dict[str, Any]:
    present = [score for score in scores if score.truth > 0]
    size = sum(score.predicted + score.truth for score in scores)
    overlap = sum(score.overlap for score in scores)
    absent = sum(score.absent for score in scores)
    cells = [score.cells for score in present if score.cells is not None]
    return {
        "cases": len(present),
        **({"instances": _cell_figures(cells)} if cells else {}),
        "dice": _mean(score.dice for score in present),
        "dice_ci95": bootstrap_ci95([score.dice for score in present]),
        "dice_global": round(100.0 * 2 * overlap / size, 4) if size else None,
        "iou": _mean(score.iou for score in present),
        "hd95_mm": _mean(score.hd95_mm for score in present if math.isfinite(score.hd95_mm)),
        "absent": absent,
        "left_empty": round(100.0 * sum(score.left_empty for score in scores) / absent, 4)
        if absent
        else None,
    }


def _cell_figures(scores: Sequence[CellScore]) -> dict[str, Any]:
    return {
        "reference": " and ".join(sorted({score.cell_reference for score in scores})),
        "aji": _mean(score.aji for score in scores),
        "aji_ci95": bootstrap_ci95([score.aji for score in scores]),
        "pq": _mean(score.pq for score in scores),
        "pq_ci95": bootstrap_ci95([score.pq for score in scores]),
        "dq": _mean(score.dq for score in scores),
        "sq": _mean(score.sq for score in scores if math.isfinite(score.sq)),
        **{
            name: sum(getattr(score, name) for score in scores)
            for name in ("truth_cells", "predicted_cells", "matched_cells")
        },
    }


def _mean(values: Iterable[float]) -> float | None:
    collected = list(values)
    return round(float(np.mean(collected)), 4) if collected else None


def metrics_csv(scores: Iterable[Score]) -> str:
    """The rows as CSV; empty where a figure has no meaning. Columns of cells are there where any are counted."""
    scores, stream = list(scores), io.StringIO()
    columns = Score.columns(cells=any(score.cells is not None for score in scores))
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for score in scores:
        row = score.row()
        writer.writerow(
            {
                name: ("" if not math.isfinite(value) else round(value, 4))
                if isinstance(value, float)
                else value
                for name, value in row.items()
            }
        )
    return stream.getvalue()
