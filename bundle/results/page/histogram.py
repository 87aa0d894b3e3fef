"""How probabilities of a structure are distributed, in its mask and outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 20


@dataclass(frozen=True)
class Histogram:
    """Counts of voxels or pixels by probability, in `BINS` - 1 bins of equal width up to 1.

    The first bin is left out: nearly all of an image is in it.

    Attributes:
        inside: of those in the structure's mask.
        outside: of the others.
    """

    inside: list[int]
    outside: list[int]

    @property
    def highest(self) -> int:
        """The largest count of a bin, inside and outside together; at least 1."""
        return max(1, *(one + other for one, other in zip(self.inside, self.outside, strict=True)))


def probability_histogram(blocks: Iterable[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> Histogram:
    """Count probabilities in [0, 1], piece by piece, each with where the mask has the structure."""
    counts = np.zeros((2, BINS - 1), dtype=np.int64)
    for probability, inside in blocks:
        counted = probability >= 1 / BINS
        chosen = (probability[counted & inside], probability[counted & ~inside])
        counts += [np.histogram(values, BINS, (0, 1))[0][1:] for values in chosen]
    return Histogram(*counts.tolist())
