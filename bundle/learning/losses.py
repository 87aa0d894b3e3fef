"""Hybrid Dice and cross-entropy on the predicted clean mask, for any number of classes, some of them unlabelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bundle.networks.segmenter import MaskAndNaming


@dataclass(frozen=True)
class MaskTarget:
    """The ground truth of a batch.

    Attributes:
        label: (B, H, W) int64 channel index; 0 also where a structure is not labelled in this data.
        labelled: (B, K) bool, classes that are labelled; background always.
        possible: (B, K) bool, classes that the modality can show; holds all that are labelled.
        named: (texts, K - 1) bool, structures that each text of the step names; None where none is learned.
        standalone: (B,) bool, images that are a case by themselves; the rest are slices of volumes. None where that
            makes no difference.
    """

    label: Tensor
    labelled: Tensor
    possible: Tensor
    named: Tensor | None = None
    standalone: Tensor | None = None

    def scaled_one_hot(self, stride: int = 1) -> Tensor:
        """The mask as the diffusion sees it, 1 at the label and -1 elsewhere.

        Args:
            stride: side of the squares over which the mask is averaged.

        Returns:
            (B, K, H / stride, W / stride) float32 in [-1, 1].
        """
        batch, height, width = self.label.shape
        rows, columns = height // stride, width // stride
        down = torch.arange(height, device=self.label.device)[:, None] // stride
        across = torch.arange(width, device=self.label.device)[None] // stride
        place = (self.label * (rows * columns) + down * columns + across).flatten(1)
        masks = torch.full((batch, self.labelled.shape[1] * rows * columns), -1.0, device=self.label.device)
        share = torch.full_like(place, 2.0 / stride**2, dtype=torch.float32)
        return masks.scatter_add_(1, place, share).unflatten(1, (-1, rows, columns))

    def alike(self) -> Iterator[tuple[Tensor, Tensor, MaskTarget]]:
        """The batch in parts that can show the same classes, and no other channel in them.

        Yields:
            rows of the batch, channels, and their target, in which a label counts within these channels.
        """
        rows_of: dict[tuple[bool, ...], list[int]] = {}
        for row, possible in enumerate(self.possible.tolist()):
            rows_of.setdefault(tuple(possible), []).append(row)
        for possible, members in rows_of.items():
            rows = torch.tensor(members, device=self.label.device)
            channels = torch.tensor(possible, device=self.label.device).nonzero()[:, 0]
            within = torch.zeros(len(possible), dtype=torch.long, device=self.label.device)
            within[channels] = torch.arange(len(channels), device=self.label.device)
            yield (
                rows,
                channels,
                MaskTarget(
                    within[self.label[rows]],
                    self.labelled[rows][:, channels],
                    self.possible[rows][:, channels],
                    standalone=None if self.standalone is None else self.standalone[rows],
                ),
            )

    def background(self) -> Tensor:
        """(B, K) float32, 1 for background and for what is possible but not labelled in this data."""
        merged = self.possible & ~self.labelled
        merged[:, 0] = True
        return merged.float()


def true_log_probability(log_probability: Tensor, target: MaskTarget) -> Tensor:
    """log-probability of the ground truth, whose background may be any class that is not labelled.

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
    that it does not show are judged by the cross-entropy. Only classes that an image can show are in its softmax.
    MONAI's DiceCELoss knows neither classes that are unlabelled in some images nor such that an image cannot show.

    Args:
        dice_weight, ce_weight: MedCondDiff takes 0.3 and 0.7.
        class_weights: K weights of the cross-entropy, see `log_inverse_frequency`; None for equal ones.
        naming_weight: of the binary cross-entropy of what texts name, for networks that name structures.
        dice_per_image: take Dice of 2-D images one by one, as they are scored, and of slices over the batch.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        dice_weight: float = 0.3,
        ce_weight: float = 0.7,
        class_weights: Sequence[float] | Tensor | None = None,
        naming_weight: float = 1.0,
        dice_per_image: bool = False,
    ) -> None:
        super().__init__()
        self.dice_per_image = dice_per_image
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        self.naming_weight = naming_weight
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights)

    def forward(
        self,
        output: Tensor | MaskAndNaming | Sequence[Tensor | MaskAndNaming],
        target: MaskTarget | Sequence[MaskTarget],
    ) -> Tensor:
        """(B, K, H, W) logits, and beside them log-odds of names where the network has some -> scalar.

        Of several batches, lists of both: each counts by its images.
        """
        if isinstance(target, MaskTarget):
            return self._of_batch(cast(Any, output), target)
        images = torch.tensor([float(len(part.label)) for part in target])
        losses = [self._of_batch(*part) for part in zip(cast(Any, output), target, strict=True)]
        return (torch.stack(losses) * images.to(losses[0]) / images.sum().to(losses[0])).sum()

    def _of_batch(self, output: Tensor | MaskAndNaming, target: MaskTarget) -> Tensor:
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
        """Part by part, so that what a modality cannot show costs nothing: most channels, in most images."""
        exact = torch.promote_types(logits.dtype, torch.float32)
        cross_entropy = weight = logits.new_zeros((), dtype=exact)
        slices = logits.new_zeros((3, logits.shape[1]), dtype=exact)  # overlap, ground truth, predicted
        scores = []
        for rows, channels, part in target.alike():
            log_probability = logits[rows].index_select(1, channels).to(exact).log_softmax(dim=1)
            true = true_log_probability(log_probability, part)
            if self.class_weights is None:
                cross_entropy, weight = cross_entropy - true.sum(), weight + true.numel()
            else:
                weights = self.class_weights[channels][part.label]
                cross_entropy, weight = cross_entropy - (weights * true).sum(), weight + weights.sum()
            sums = dice_sums(log_probability.exp(), part)  # (3, rows, channels)
            alone = part.standalone if self.dice_per_image else None
            if alone is not None and bool(alone.any()):
                scores.append(dice_of_sums(sums[:, alone]))
                sums = sums[:, ~alone]
            slices = slices.index_add(1, channels, sums.sum(dim=1))
        scores.append(dice_of_sums(slices))
        shown = torch.cat(scores)
        dice = 1.0 - shown.mean() if len(shown) else logits.sum() * 0.0
        return self.dice_weight * dice + self.ce_weight * cross_entropy / weight


def dice_sums(probability: Tensor, target: MaskTarget) -> Tensor:
    """What Dice is made of, image by image.

    Images in which a class is not labelled say nothing of it: their sums are 0.

    Args:
        probability: (B, K, H, W).

    Returns:
        (3, B, K): overlap, ground truth, predicted.
    """
    labels = target.label.flatten(1)  # (B, pixels)
    at_truth = probability.flatten(2).gather(1, labels[:, None])[:, 0]
    zeros = torch.zeros_like(probability[:, :, 0, 0])  # (B, K)
    overlap = zeros.scatter_add(1, labels, at_truth)
    truth = zeros.scatter_add(1, labels, torch.ones_like(at_truth))
    return torch.stack([overlap, truth, probability.sum((2, 3))]) * target.labelled.to(probability)


def dice_of_sums(sums: Tensor) -> Tensor:
    """(3, ..., K) of `dice_sums` -> soft Dice of each foreground class that is shown, empty where there is none."""
    overlap, truth, predicted = sums[..., 1:]
    shown = truth > 0
    return 2.0 * overlap[shown] / (truth + predicted)[shown].clamp_min(1e-6)


def batch_dice(probability: Tensor, target: MaskTarget) -> Tensor:
    """Soft Dice over the batch for each foreground class that it shows.

    Args:
        probability: (B, K, H, W).

    Returns:
        (classes shown,), empty where there are none.
    """
    return dice_of_sums(dice_sums(probability, target).sum(dim=1))


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
