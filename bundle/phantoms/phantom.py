"""What a synthetic study is, and which structures its ground truth names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.cases.modality import Modality

CT_LABELS: dict[int, str] = {
    1: "aorta",
    2: "gallbladder",
    3: "left kidney",
    4: "right kidney",
    5: "liver",
    6: "pancreas",
    7: "spleen",
    8: "stomach",
    9: "lung",
}
XRAY_LABELS: dict[int, str] = {1: "COVID-19 infection"}
HISTOLOGY_LABELS: dict[int, str] = {1: "nucleus"}


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
