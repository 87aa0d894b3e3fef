"""What a workflow hands to the results room of a whole-slide image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.cases.case import Case
from bundle.cases.slides import SlideGrid
from bundle.cases.structures import Structures
from bundle.results.instances import Instances


@dataclass(frozen=True)
class StructureSums:
    """Of one structure, over the pixels that the mask gives it.

    Attributes:
        pixels: of the mask.
        probability, uncertainty: sums of values in [0, 1].
    """

    pixels: int
    probability: float
    uncertainty: float


@dataclass
class SlidePrediction:
    """A slide with its mask; of probability and uncertainty there is an overview only.

    Attributes:
        case: the overview of the slide as an image.
        mask: (H, W) uint8 on `grid`, perhaps a file that is mapped into memory; 0 or keys of `labels`.
        grid: of the mask.
        probability: (K, h, w) float32 in [0, 1], means over the pixels of the overview, one an entry of `labels`.
        uncertainty: (h, w) float32 in [0, 1], likewise.
        labels: label value (1-255) -> name of the structure, those that were asked for.
        structures: of the network; pieces of those that are not one connected piece are counted.
        sums: label value -> its sums.
        mean_uncertainty: over the tiles; None where there were none.
        about: what the report says of the slide.
        instances: its cells; None where none are looked for.
    """

    case: Case
    mask: NDArray[np.uint8]
    grid: SlideGrid
    probability: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    labels: dict[int, str]
    structures: Structures
    sums: dict[int, StructureSums]
    mean_uncertainty: float | None
    about: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    instances: Instances | None = None


@dataclass
class RegionPrediction:
    """The mask of a region of a slide.

    Attributes:
        mask: (h, w) uint8, a part of `grid`; 0 or keys of `labels`.
        grid: of the mask of the whole slide.
        corner: column and row of the grid that the mask begins at.
        labels, structures, instances: as of `SlidePrediction`; cells at the region's border as far as they lie in it.
    """

    mask: NDArray[np.uint8]
    grid: SlideGrid
    corner: tuple[int, int]
    labels: dict[int, str]
    structures: Structures
    warnings: list[str] = field(default_factory=list)
    instances: Instances | None = None

    @property
    def offset(self) -> tuple[float, float]:
        """Where its upper left corner lies, across and down, in pixels of level 0."""
        return self.corner[0] * self.grid.scale[0], self.corner[1] * self.grid.scale[1]
