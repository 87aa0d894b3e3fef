"""Where the borders of nuclei lie by a picture's own stain, when a network is unsure of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bundle.transforms.intensity import optical_density

#: Probabilities from which a pixel could count as found.
CANDIDATES = np.arange(4, 17) / 20.0  # 0.2, 0.25 .. 0.8
_FEWEST = 100  # pixels on either side of a candidate, fewer of which say little about a stain
_LEAST = 1e-6  # Cohen's d that is not rounding


def at_stain_borders(probability: Tensor, image: Tensor) -> Tensor:
    """(K, H, W) probabilities, background first, whose decisions follow `stain_threshold`: the same shape.

    The odds against background are scaled so that what had the threshold has one half. Where several structures
    share that half, the largest of all still decides.

    Args:
        image: (3, H, W), RGB in [0, 1] on the same pixels.
    """
    found = 1.0 - probability[0]
    threshold = stain_threshold(found.cpu().double().numpy(), image.cpu().double().numpy())
    scaled = probability.clone()
    scaled[0] *= threshold / (1.0 - threshold)
    return scaled / scaled.sum(dim=0).clamp_min(torch.finfo(scaled.dtype).tiny)


def stain_threshold(found: NDArray[np.float64], image: NDArray[np.float64]) -> float:
    """From which probability on a pixel of this picture counts as nucleus.

    Haematoxylin, which nuclei take up, absorbs red light, and eosin hardly does. Of the `CANDIDATES` that one is
    looked for whose mask differs most from the rest in its optical density of red, by Cohen's d: the difference of
    the means over the root of the mean of the variances; of equals the one nearest to one half. The threshold lies
    half way between it and one half, for the network knows what the stain does not. (All of this was chosen on
    the 19 training tiles of MoNuSeg that docs/results.md tells of.)

    Args:
        found: (H, W) probability of all that is not background.
        image: (3, H, W), RGB in [0, 1].

    Returns:
        In [0.35, 0.65]; one half where no candidate has what is stained more on its side.
    """
    density = optical_density(image[0]).ravel()
    # of pixels by the number of candidates that they reach: how many, their density and its square
    reached = np.searchsorted(CANDIDATES, found.ravel(), side="right")
    sums = np.stack(
        [
            np.bincount(reached, weights=weight, minlength=len(CANDIDATES) + 1)
            for weight in (np.ones_like(density), density, density**2)
        ]
    )
    below = sums.cumsum(axis=1)[:, :-1]  # of each candidate
    inside = sums.sum(axis=1, keepdims=True) - below
    both = (inside[0] >= _FEWEST) & (below[0] >= _FEWEST)
    if not both.any():
        return 0.5
    (mean_in, variance_in), (mean_out, variance_out) = (_moments(part[:, both]) for part in (inside, below))
    differs = (mean_in - mean_out) / np.sqrt(np.maximum((variance_in + variance_out) / 2.0, 1e-12))
    if not differs.max() > _LEAST:
        return 0.5
    best = CANDIDATES[both][differs >= differs.max() - _LEAST]
    return float((best[np.abs(best - 0.5).argmin()] + 0.5) / 2.0)


def _moments(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count, first, second = sums
    mean = first / count
    return mean, second / count - mean**2
