"""How sure the predictions of steps and members are, a number a pixel in [0, 1]."""

from __future__ import annotations

import math
from typing import Literal, get_args

from torch import Tensor

UncertaintyName = Literal["entropy", "variance"]


def uncertainty(predictions: Tensor, fused: Tensor, classes: int, method: UncertaintyName) -> Tensor:
    """Uncertainty map of one of two kinds.

    Args:
        predictions: (members * steps, B, K, H, W) probabilities.
        fused: (B, K, H, W), their consensus.
        classes: how many of the K classes were possible at all, background included.
        method: 'entropy' of the consensus, which also holds what each prediction itself is unsure of;
            'variance' over steps and members, their disagreement alone.

    Returns:
        (B, H, W) in [0, 1]: entropy as a share of ln(classes); variance as a share of its maximum.
    """
    if method == "entropy":
        return predictive_entropy(fused, classes)
    if method == "variance":
        return disagreement(predictions, classes)
    raise ValueError(f"uncertainty must be one of {', '.join(get_args(UncertaintyName))}, not {method!r}")


def tempered(probability: Tensor, temperature: float) -> Tensor:
    """Probabilities whose logits are divided by a temperature: (B, K, ...) -> the same.

    Temperature scaling (Guo et al., 'On calibration of modern neural networks', 2017, sec. 4.2): above 1 the
    network becomes less sure, and its decisions stay what they are.
    """
    if temperature == 1.0:
        return probability
    # what is impossible stays so: 1e-12 of it would not after division by a high temperature
    logits = (probability.clamp_min(1e-12).log() / temperature).masked_fill(probability <= 0.0, float("-inf"))
    return logits.softmax(dim=1)


def predictive_entropy(probability: Tensor, classes: int) -> Tensor:
    """Entropy of (B, K, H, W) probabilities over K as a share of its maximum ln(classes): (B, H, W)."""
    entropy = -(probability * probability.clamp_min(1e-12).log()).sum(dim=1)
    return (entropy / math.log(max(classes, 2))).clamp(0.0, 1.0)


def disagreement(predictions: Tensor, classes: int) -> Tensor:
    """Variance of (N, B, K, H, W) probabilities over N, summed over K, as a share of its maximum: (B, H, W).

    The maximum 1 - 1/classes is reached where every class is the certain answer of equally many predictions.
    """
    return (predictions.var(dim=0, unbiased=False).sum(dim=1) / (1.0 - 1.0 / max(classes, 2))).clamp(0.0, 1.0)
