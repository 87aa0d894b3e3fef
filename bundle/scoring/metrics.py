"""How well a mask fits the ground truth: overlap and distance, a row a case and label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from numpy.typing import NDArray

from bundle.scoring.instances import CellScore


@dataclass(frozen=True)
class Score:
    """One label of one case. Overlaps in per cent; NaN where a figure has no meaning.

    Attributes:
        dice, iou: NaN where neither ground truth nor mask shows the label.
        hd95_mm: 95th percentile of the symmetric surface distance; NaN without true spacing, or where
            only one of ground truth and mask shows the label.
        truth, predicted, overlap: voxels or pixels of the ground truth, the mask and both.
        absent: slices, or 2-D images, whose ground truth does not show the label.
        left_empty: those of them where the mask does not show it either.
        cells: of what is counted one by one; None of all else.
    """

    case: str
    text: str
    label: str
    dice: float
    iou: float
    hd95_mm: float
    truth: int
    predicted: int
    overlap: int
    absent: int
    left_empty: int
    cells: CellScore | None = None

    @staticmethod
    def columns(cells: bool = False) -> list[str]:
        """Of `row`, with those of cells or without."""
        own = [field.name for field in fields(Score) if field.name != "cells"]
        return [*own, *(field.name for field in fields(CellScore))] if cells else own

    def row(self) -> dict[str, Any]:
        """Column -> value."""
        values = asdict(self)
        return values | (values.pop("cells") or {})


def score_label(
    case: str,
    label: str,
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: Sequence[float] | None = None,
    text: str = "off",
    slice_axis: int | None = None,
) -> Score:
    """Compare one label.

    Args:
        case: its id.
        label: name of the structure.
        predicted, truth: bool, of one shape.
        spacing: mm along each axis; None where it is unknown or nominal, and no distance is given.
        text: 'on', 'off' or 'shuffled'.
        slice_axis: of a volume's slices; None for 2-D images.

    Raises:
        ValueError: shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"{case}: mask {predicted.shape} and ground truth {truth.shape} differ in shape")
    n_predicted, n_truth = int(predicted.sum()), int(truth.sum())
    overlap = int((predicted & truth).sum())
    union = n_predicted + n_truth - overlap
    within = None if slice_axis is None else tuple(set(range(truth.ndim)) - {slice_axis})
    absent = ~truth.any(axis=within)
    return Score(
        case=case,
        text=text,
        label=label,
        dice=100.0 * 2 * overlap / (n_predicted + n_truth) if union else float("nan"),
        iou=100.0 * overlap / union if union else float("nan"),
        hd95_mm=_hd95(predicted, truth, spacing)
        if spacing is not None and n_predicted and n_truth
        else float("nan"),
        truth=n_truth,
        predicted=n_predicted,
        overlap=overlap,
        absent=int(absent.sum()),
        left_empty=int((absent & ~predicted.any(axis=within)).sum()),
    )


def _hd95(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    # surfaces lie inside the box around both; distances in the rest of the image need not be worked out
    occupied = np.argwhere(predicted | truth)
    low, high = np.maximum(occupied.min(axis=0) - 1, 0), occupied.max(axis=0) + 2
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    pair = [
        torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None].float() for mask in (predicted, truth)
    ]
    distance = compute_hausdorff_distance(
        *pair, include_background=True, percentile=95, spacing=list(spacing)
    )
    return float(distance)


def score_masks(
    case: str,
    predicted: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    labels: Mapping[int, tuple[int, str]],
    spacing: Sequence[float] | None = None,
    text: str = "off",
    slice_axis: int | None = None,
) -> list[Score]:
    """Compare every labelled structure of a case.

    Args:
        labels: value in the ground truth -> (value in the mask, name).
    """
    return [
        score_label(case, name, predicted == mask_value, truth == value, spacing, text, slice_axis)
        for value, (mask_value, name) in labels.items()
    ]
