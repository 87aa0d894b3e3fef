"""What a synthetic study is, and which structures its ground truth names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.cases.modality import Modality
from bundle.cases.structures import shipped_structures
from bundle.cases.structures_file import REPORTS

#: Value in the ground truth -> name of the structure.
CT_LABELS = shipped_structures().of_modality("CT")
XRAY_LABELS, HISTOLOGY_LABELS = (
    {1: next(one.name for one in shipped_structures() if one.words.get("reports") == kind)}
    for kind in REPORTS
)


@dataclass(frozen=True)
class Phantom:
    """A synthetic study and its ground truth.

    Attributes:
        image: CT int16 (X, Y, Z) in HU; X-ray uint8 (H, W); H&E uint8 (H, W, 3), upright.
        label: uint8, the image's spatial shape; 0 is background.
        affine: (4, 4) voxel index -> mm, RAS+ as NIfTI defines it; None for 2-D images.
        modality: 'CT', 'X-ray' or 'H&E'.
        labels: value in the label -> name of the structure, background left out.
        text: a report sentence that agrees with the ground truth; empty for CT, where a prompt is the name
            of an organ.
    """

    image: NDArray[Any]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64] | None
    modality: Modality
    labels: dict[int, str]
    text: str
