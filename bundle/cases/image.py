"""What every reader of images gives, whatever the file or series."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.cases.modality import Modality


@dataclass
class SourceImage:
    """An image as its file or series gives it.

    Attributes:
        array: float32. Volumes (X, Y, Z) in the voxel order of the file, or (columns, rows, slices) of DICOM;
            pictures (C, H, W), upright, C 1 (grey) or 3 (RGB), in the value range of the file.
        affine: (4, 4) voxel index -> mm, RAS+; None for pictures.
        modality: that the file states, or that images of its kind have.
        warnings: what a reader of the report should know.
        header: see `bundle.cases.Case`.
        full_scale: of pictures, the value of white: 255 for 8 bit and 65535 for 16, of other types the largest value.
        patient_orientation: see `bundle.cases.Case`.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64] | None
    modality: Modality
    warnings: list[str] = field(default_factory=list)
    header: Any = None
    full_scale: float | None = None
    patient_orientation: tuple[str, str] | None = None
