"""How probabilities of a structure are distributed, in its mask and outside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 20
LEAST = 1 / BINS  # the first bin is left out: nearly all of an image is in it


@dataclass(frozen=True)
class Histogram:
    """Counts of voxels or pixels by probability, in `BINS` - 1 bins of equal width from `LEAST` to 1.

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


def probability_histogram(probability: NDArray[np.float32], inside: NDArray[np.bool_]) -> Histogram:
    """Count probabilities in [0, 1]; both arrays have the same shape."""
    counted = probability >= LEAST
    return Histogram(_counts(probability[counted & inside]), _counts(probability[counted & ~inside]))


def _counts(values: NDArray[np.float32]) -> list[int]:
    bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    counts: list[int] = np.bincount(bins, minlength=BINS)[1:].tolist()
    return counts
