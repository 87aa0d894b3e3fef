"""How well cells are told apart: the aggregated Jaccard index and panoptic quality, as histology compares them.

MONAI's `compute_panoptic_quality` gives the same quality, but holds a mask of the whole image for each cell: gigabytes
for a tile with a thousand of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import contingency_table

#: What the true cells are: numbered ones, or connected pieces of a mask, in which cells that touch are one.
CellReference = Literal["instances", "connected pieces"]
_MATCH = 0.5


@dataclass(frozen=True)
class CellScore:
    """The cells of one structure of one case. Qualities in per cent; NaN where a figure has no meaning.

    Attributes:
        aji: aggregated Jaccard index (Kumar et al. 2017, algorithm 1): a predicted cell may be the best one of several
            true ones.
        pq: panoptic quality, `dq` times `sq` (Kirillov et al. 2019, eq. 1 and 2).
        dq: detection quality, the F1 score of cells that match: whose intersection over union is above one half.
        sq: segmentation quality, the mean intersection over union of those that match; NaN where none does.
        truth_cells, predicted_cells, matched_cells: how many.
        cell_reference: what the true cells are.
    """

    aji: float
    pq: float
    dq: float
    sq: float
    truth_cells: int
    predicted_cells: int
    matched_cells: int
    cell_reference: CellReference = "instances"


def connected_pieces(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(H, W), the pieces of a mask that pixel edges connect, numbered from 1."""
    pieces: NDArray[np.int32] = ndimage.label(mask)[0]
    return pieces


def score_cells(
    predicted: NDArray[np.integer], truth: NDArray[np.integer], reference: CellReference = "instances"
) -> CellScore:
    """Compare numbered cells.

    Args:
        predicted, truth: (H, W), 0 or the number of a cell; numbers may have gaps.
        reference: what the true cells are.

    Raises:
        ValueError: shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"cells {predicted.shape} and true cells {truth.shape} differ in shape")
    table = contingency_table(truth, predicted, sparse_type="array").tocoo()
    true_areas, areas = (np.asarray(table.sum(axis=axis)).ravel() for axis in (1, 0))
    true_areas[0] = areas[0] = 0.0
    both = (table.row > 0) & (table.col > 0)
    true, found, overlap = table.row[both], table.col[both], table.data[both]
    union = true_areas[true] + areas[found] - overlap
    iou = overlap / union
    matches = iou > _MATCH
    matched, truth_cells, cells = int(matches.sum()), int((true_areas > 0).sum()), int((areas > 0).sum())
    each = truth_cells + cells
    dq = 2 * matched / each if each else float("nan")
    sq = float(iou[matches].mean()) if matched else float("nan")
    order = np.lexsort((-iou, true))
    best = order[np.unique(true[order], return_index=True)[1]]
    lost = true_areas.sum() - true_areas[true[best]].sum()
    spare = areas.sum() - areas[np.unique(found[best])].sum()
    whole = union[best].sum() + lost + spare
    return CellScore(
        aji=100.0 * float(overlap[best].sum() / whole) if each else float("nan"),
        pq=100.0 * dq * sq if matched else 100.0 * dq,
        dq=100.0 * dq,
        sq=100.0 * sq,
        truth_cells=truth_cells,
        predicted_cells=cells,
        matched_cells=matched,
        cell_reference=reference,
    )
