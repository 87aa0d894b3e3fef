"""How probabilities of a structure are distributed, in its mask and outside."""

from __future__ import annotations

from collections.abc import Iterable
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


def probability_histogram(
    blocks: Iterable[tuple[NDArray[np.float32], NDArray[np.bool_]]],
) -> Histogram:
    """Count probabilities in [0, 1], piece by piece, each with where the mask has the structure."""
    counts = np.zeros((2, BINS - 1), dtype=np.int64)
    for probability, inside in blocks:
        counted = probability >= LEAST
        counts += np.stack([_counts(probability[counted & inside]), _counts(probability[counted & ~inside])])
    return Histogram(*counts.tolist())


def _counts(values: NDArray[np.float32]) -> NDArray[np.int64]:
    bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    return np.bincount(bins, minlength=BINS)[1:]
