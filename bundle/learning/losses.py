"""Hybrid Dice and cross-entropy on the predicted clean mask, for any number of classes, some of them unlabelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bundle.networks.segmenter import IMPOSSIBLE


@dataclass(frozen=True)
class MaskTarget:
    """The truth of a batch.

    Attributes:
        label: (B, H, W) int64 channel index; 0 also where a structure is not labelled in this data.
        labelled: (B, K) bool, classes whose truth is known; background always.
        possible: (B, K) bool, classes that the modality can show; holds all that are labelled.
    """

    label: Tensor
    labelled: Tensor
    possible: Tensor

    def one_hot(self) -> Tensor:
        """(B, K, H, W) float32, 1 at the label."""
        return nn.functional.one_hot(self.label, self.labelled.shape[1]).movedim(-1, 1).float()


def merge_unlabelled(logits: Tensor, target: MaskTarget) -> Tensor:
    """Count what a data set does not label as its background.

    In data that labels the liver alone, a pixel of background may be spleen: the probability of all
    unlabelled classes is added to the background's. Marginal loss, Shi et al., 'Marginal loss and exclusion
    loss for partially supervised multi-organ segmentation' (2021), eq. 3.

    Args:
        logits: (B, K, H, W).

    Returns:
        logits of the same shape in which unlabelled classes are impossible.
    """
    unlabelled = target.possible & ~target.labelled
    if not unlabelled.any():
        return logits
    unlabelled = unlabelled[:, :, None, None]
    into_background = unlabelled.clone()
    into_background[:, 0] = True
    background = logits.masked_fill(~into_background, IMPOSSIBLE).logsumexp(dim=1, keepdim=True)
    return torch.cat([background, logits[:, 1:].masked_fill(unlabelled[:, 1:], IMPOSSIBLE)], dim=1)


class HybridLoss(nn.Module):
    """``dice_weight * Dice + ce_weight * cross-entropy`` (MedCondDiff's training loss).

    Dice is taken over the batch, class by class, for the foreground classes that the batch shows; classes
    that it does not show are judged by the cross-entropy.

    Args:
        dice_weight, ce_weight: MedCondDiff takes 0.3 and 0.7.
        class_weights: K weights of the cross-entropy, see `log_inverse_frequency`; None for equal ones.
    """

    class_weights: Tensor | None

    def __init__(
        self, dice_weight: float = 0.3, ce_weight: float = 0.7, class_weights: Sequence[float] | Tensor | None = None
    ) -> None:
        super().__init__()
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights)

    def forward(self, logits: Tensor, target: MaskTarget) -> Tensor:
        """(B, K, H, W) logits -> scalar."""
        logits = merge_unlabelled(logits, target)
        cross_entropy = nn.functional.cross_entropy(logits, target.label, weight=self.class_weights)
        return self.dice_weight * self._dice(logits, target) + self.ce_weight * cross_entropy

    def _dice(self, logits: Tensor, target: MaskTarget) -> Tensor:
        scores = batch_dice(logits.softmax(dim=1), target)
        return 1.0 - scores.mean() if len(scores) else logits.sum() * 0.0


def batch_dice(probability: Tensor, target: MaskTarget) -> Tensor:
    """Soft Dice over the batch for each foreground class that it shows.

    Args:
        probability: (B, K, H, W).

    Returns:
        (classes shown,), empty where there are none.
    """
    truth = target.one_hot()[:, 1:]
    # images in which a class is not labelled say nothing of it
    known = target.labelled[:, 1:, None, None].float()
    overlap = (probability[:, 1:] * truth * known).sum(dim=(0, 2, 3))
    size = ((probability[:, 1:] + truth) * known).sum(dim=(0, 2, 3))
    shown = truth.sum(dim=(0, 2, 3)) > 0
    return 2.0 * overlap[shown] / size[shown].clamp_min(1e-6)


def log_inverse_frequency(pixels: Tensor) -> Tensor:
    """Class weights ``ln(1 + 1 / frequency)``, scaled to a mean of 1; 1 for a class never seen.

    Args:
        pixels: (K,) how many pixels of each class the training data hold.
    """
    frequency = pixels.double() / pixels.sum().clamp_min(1)
    weights = torch.log1p(1.0 / frequency.clamp_min(1e-12))
    seen = pixels > 0
    weights = weights / weights[seen].mean() if seen.any() else weights
    return torch.where(seen, weights, torch.ones_like(weights)).float()
