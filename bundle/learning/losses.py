"""Hybrid Dice and cross-entropy on the predicted clean mask, for any number of classes, some of them unlabelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bundle.networks.segmenter import MaskAndNaming


@dataclass(frozen=True)
class MaskTarget:
    """The truth of a batch.

    Attributes:
        label: (B, H, W) int64 channel index; 0 also where a structure is not labelled in this data.
        labelled: (B, K) bool, classes whose truth is known; background always.
        possible: (B, K) bool, classes that the modality can show; holds all that are labelled.
        named: (texts, K - 1) bool, structures that each text of the step names; None where none is learned.
    """

    label: Tensor
    labelled: Tensor
    possible: Tensor
    named: Tensor | None = None

    def scaled_one_hot(self) -> Tensor:
        """The mask as the diffusion sees it: (B, K, H, W) float32, 1 at the label and -1 elsewhere."""
        batch, height, width = self.label.shape
        masks = torch.full((batch, self.labelled.shape[1], height, width), -1.0, device=self.label.device)
        return masks.scatter_(1, self.label[:, None], 1.0)

    def background(self) -> Tensor:
        """(B, K) float32, 1 for background and for what is possible but not labelled in this data."""
        merged = self.possible & ~self.labelled
        merged[:, 0] = True
        return merged.float()


def true_log_probability(log_probability: Tensor, target: MaskTarget) -> Tensor:
    """log-probability of the truth, where the truth 'background' may be any class that is not labelled.

    In data that labels the liver alone, a pixel of background may be spleen: the probability of unlabelled
    classes counts as background's. Marginal loss, Shi et al., 'Marginal loss and exclusion loss for
    partially supervised multi-organ segmentation' (2021), eq. 3.

    Args:
        log_probability: (B, K, H, W).

    Returns:
        (B, H, W).
    """
    true = log_probability.gather(1, target.label[:, None])[:, 0]
    merged = target.background().to(log_probability)
    if (merged.sum(dim=1) == 1).all():
        return true
    background = torch.einsum("bkhw,bk->bhw", log_probability.exp(), merged).clamp_min(1e-12).log()
    return torch.where(target.label > 0, true, background)


class HybridLoss(nn.Module):
    """``dice_weight * Dice + ce_weight * cross-entropy`` (MedCondDiff's training loss).

    Dice is taken over the batch, class by class, for the foreground classes that the batch shows; classes
    that it does not show are judged by the cross-entropy.

    Args:
        dice_weight, ce_weight: MedCondDiff takes 0.3 and 0.7.
        class_weights: K weights of the cross-entropy, see `log_inverse_frequency`; None for equal ones.
        naming_weight: of the binary cross-entropy of what texts name, for networks that name structures.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        dice_weight: float = 0.3,
        ce_weight: float = 0.7,
        class_weights: Sequence[float] | Tensor | None = None,
        naming_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        self.naming_weight = naming_weight
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights)

    def forward(self, output: Tensor | MaskAndNaming, target: MaskTarget) -> Tensor:
        """(B, K, H, W) logits, and beside them log-odds of names where the network has some -> scalar."""
        if not isinstance(output, MaskAndNaming):
            return self._of_mask(output, target)
        loss = self._of_mask(output.mask, target)
        if target.named is None:
            return (
                loss + 0.0 * output.naming.sum()
            )  # every weight has a gradient, as distributed training needs
        naming = nn.functional.binary_cross_entropy_with_logits(output.naming, target.named.float())
        return loss + self.naming_weight * naming

    def _of_mask(self, logits: Tensor, target: MaskTarget) -> Tensor:
        log_probability = logits.log_softmax(dim=1)
        true = true_log_probability(log_probability, target)
        if self.class_weights is None:
            cross_entropy = -true.mean()
        else:
            weights = self.class_weights[target.label]
            cross_entropy = -(weights * true).sum() / weights.sum()
        scores = batch_dice(log_probability.exp(), target)
        dice = 1.0 - scores.mean() if len(scores) else logits.sum() * 0.0
        return self.dice_weight * dice + self.ce_weight * cross_entropy


def batch_dice(probability: Tensor, target: MaskTarget) -> Tensor:
    """Soft Dice over the batch for each foreground class that it shows.

    Images in which a class is not labelled say nothing of it and are left out of its sums.

    Args:
        probability: (B, K, H, W).

    Returns:
        (classes shown,), empty where there are none.
    """
    labels = target.label.flatten(1)  # (B, pixels)
    at_truth = probability.flatten(2).gather(1, labels[:, None])[:, 0]
    zeros = torch.zeros_like(probability[:, :, 0, 0])  # (B, K)
    overlap = zeros.scatter_add(1, labels, at_truth)
    truth = zeros.scatter_add(1, labels, torch.ones_like(at_truth))
    known = target.labelled.to(probability)
    overlap, truth, predicted = (
        (sums * known).sum(dim=0)[1:] for sums in (overlap, truth, probability.sum((2, 3)))
    )
    shown = truth > 0
    return 2.0 * overlap[shown] / (truth + predicted)[shown].clamp_min(1e-6)


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
