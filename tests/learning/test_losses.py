"""The loss equals a pixel-by-pixel computation and MONAI's own parts, and leaves alone what is not labelled."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor

from bundle.learning import HybridLoss, MaskTarget, log_inverse_frequency
from bundle.learning.losses import batch_dice, true_log_probability
from bundle.networks.segmenter import MaskAndNaming

CLASSES = [2, 3, 4, 5, 6]


def draw(classes: int, fully: bool, seed: int = 0, batch: int = 3) -> tuple[Tensor, MaskTarget]:
    """Logits and a target; without `fully` each image lacks the truth of some classes, some impossible."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn(batch, classes, 5, 7, generator=generator, dtype=torch.float64)
    label = torch.randint(0, classes, (batch, 5, 7), generator=generator)
    labelled = torch.ones(batch, classes, dtype=torch.bool)
    possible = labelled.clone()
    if not fully:
        labelled[:, 1:] = torch.rand(batch, classes - 1, generator=generator) < 0.5
        possible = labelled | (torch.rand(batch, classes, generator=generator) < 0.7)
        label = torch.where(labelled.gather(1, label.flatten(1)).view_as(label), label, 0)
    return logits.requires_grad_(), MaskTarget(label, labelled, possible)


def naive_loss(
    logits: Tensor, target: MaskTarget, dice_weight: float, ce_weight: float, weights: Tensor | None
) -> float:
    """Both terms by loops over images, pixels and classes."""
    batch, classes, height, width = logits.shape
    cross_entropy = norm = 0.0
    overlap, predicted, truth = ([0.0] * classes for _ in range(3))
    for image in range(batch):
        for row in range(height):
            for column in range(width):
                exponentials = [math.exp(value) for value in logits[image, :, row, column].tolist()]
                probability = [value / sum(exponentials) for value in exponentials]
                label = int(target.label[image, row, column])
                true = probability[label]
                if label == 0:
                    for other in range(1, classes):
                        if target.possible[image, other] and not target.labelled[image, other]:
                            true += probability[other]
                weight = 1.0 if weights is None else float(weights[label])
                cross_entropy -= weight * math.log(true)
                norm += weight
                for one in range(1, classes):
                    if target.labelled[image, one]:
                        overlap[one] += probability[one] * (label == one)
                        predicted[one] += probability[one]
                        truth[one] += label == one
    dices = [2 * o / (p + t) for o, p, t in zip(overlap[1:], predicted[1:], truth[1:], strict=True) if t > 0]
    dice = 1.0 - sum(dices) / len(dices) if dices else 0.0
    return dice_weight * dice + ce_weight * cross_entropy / norm


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("fully", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_loss_equals_a_naive_loop(classes: int, fully: bool, weighted: bool) -> None:
    weights = torch.linspace(0.5, 2.0, classes) if weighted else None
    for seed in range(3):
        logits, target = draw(classes, fully, seed)
        loss = HybridLoss(0.3, 0.7, weights)(logits, target)
        among_possible = logits.masked_fill(~target.possible[:, :, None, None], -1e4)
        expected = naive_loss(among_possible, target, 0.3, 0.7, weights)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("weighted", [True, False])
def test_fully_labelled_the_cross_entropy_is_that_of_torch(classes: int, weighted: bool) -> None:
    weights = torch.linspace(0.5, 2.0, classes) if weighted else None
    logits, target = draw(classes, fully=True)
    expected = torch.nn.functional.cross_entropy(
        logits, target.label, weight=None if weights is None else weights.double()
    )
    torch.testing.assert_close(HybridLoss(0.0, 1.0, weights)(logits, target), expected)


@pytest.mark.parametrize("classes", CLASSES)
def test_fully_labelled_the_dice_is_that_of_monai_over_the_classes_shown(classes: int) -> None:
    logits, target = draw(classes, fully=True)
    monai_dice = DiceLoss(
        include_background=False, softmax=True, to_onehot_y=True, batch=True, smooth_nr=0.0, smooth_dr=1e-12
    )
    expected = monai_dice(logits, target.label[:, None])
    torch.testing.assert_close(HybridLoss(1.0, 0.0)(logits, target), expected)

    absent = classes - 1
    if absent > 1:
        without = MaskTarget(target.label.where(target.label != absent, 0), target.labelled, target.possible)
        monai_dice.reduction = "none"
        per_class = monai_dice(logits, without.label[:, None]).flatten()
        torch.testing.assert_close(HybridLoss(1.0, 0.0)(logits, without), per_class[: absent - 1].mean())


def test_the_probability_of_background_is_that_of_all_classes_that_are_not_labelled() -> None:
    logits, target = draw(5, fully=True)
    labelled = torch.tensor([[1, 1, 0, 0, 1]] * 3, dtype=torch.bool)
    possible = torch.tensor([[1, 1, 1, 0, 1]] * 3, dtype=torch.bool)
    label = target.label.where((target.label != 2) & (target.label != 3), 0)
    found = true_log_probability(logits.log_softmax(1), MaskTarget(label, labelled, possible))
    probability = logits.softmax(1)
    merged = (probability[:, 0] + probability[:, 2]).log()  # 3 is impossible, not just unlabelled
    own = probability.log().gather(1, label[:, None])[:, 0]
    torch.testing.assert_close(found, torch.where(label == 0, merged, own))


def test_background_that_is_predicted_as_an_unlabelled_class_costs_nothing() -> None:
    label = torch.zeros(1, 4, 4, dtype=torch.long)
    labelled = torch.tensor([[True, True, False]])
    target = MaskTarget(label, labelled, torch.ones(1, 3, dtype=torch.bool))
    spleen = torch.zeros(1, 3, 4, 4)
    spleen[:, 2] = 40.0
    assert float(HybridLoss(0.5, 0.5)(spleen, target)) == pytest.approx(0.0, abs=1e-6)
    known = MaskTarget(label, torch.ones(1, 3, dtype=torch.bool), target.possible)
    assert float(HybridLoss(0.5, 0.5)(spleen, known)) > 10.0


def test_a_class_that_is_not_labelled_gets_no_gradient_against_it() -> None:
    logits, _ = draw(4, fully=True)
    label = torch.zeros(3, 5, 7, dtype=torch.long)
    label[:, :2] = 1
    labelled = torch.tensor([[True, True, True, False]] * 3)
    target = MaskTarget(label, labelled, torch.ones(3, 4, dtype=torch.bool))
    HybridLoss(0.5, 0.5)(logits, target).backward()
    assert logits.grad is not None
    unlabelled = logits.grad[:, 3][label == 0]
    # descent lowers a logit with a positive gradient
    assert (unlabelled < 0).all()
    relative = logits.grad[:, 3] * logits.softmax(1)[:, 0] - logits.grad[:, 0] * logits.softmax(1)[:, 3]
    # the share of background within 'background or unlabelled' is left as it is
    assert relative[label == 0].abs().max() < 1e-12


def test_images_in_which_a_class_is_not_labelled_say_nothing_of_its_dice() -> None:
    logits, target = draw(3, fully=True, batch=2)
    labelled = torch.tensor([[True, True, True], [True, True, False]])
    label = target.label.clone()
    label[1][label[1] == 2] = 0
    both = batch_dice(logits.softmax(1), MaskTarget(label, labelled, target.possible))
    first = batch_dice(logits[:1].softmax(1), MaskTarget(label[:1], labelled[:1], target.possible[:1]))
    torch.testing.assert_close(both[1], first[1])
    assert not torch.isclose(both[0], first[0])


@pytest.mark.parametrize("classes", CLASSES)
def test_dice_lies_between_0_and_1_and_is_1_for_the_truth(classes: int) -> None:
    for seed in range(5):
        logits, target = draw(classes, fully=False, seed=seed)
        dice = batch_dice(logits.softmax(1), target)
        assert ((dice > 0) & (dice < 1)).all()
        perfect = batch_dice((target.scaled_one_hot().double() + 1) / 2, target)
        assert torch.equal(perfect, torch.ones_like(perfect))
        assert len(perfect) == len(set(target.label.flatten().tolist()) - {0})


def test_a_batch_without_foreground_has_a_finite_loss_and_gradient() -> None:
    logits, target = draw(3, fully=True)
    empty = MaskTarget(torch.zeros_like(target.label), target.labelled, target.possible)
    assert len(batch_dice(logits.softmax(1), empty)) == 0
    HybridLoss(1.0, 0.0)(logits, empty).backward()
    assert logits.grad is not None and torch.equal(logits.grad, torch.zeros_like(logits))


def test_impossible_classes_do_not_spoil_the_loss() -> None:
    logits, target = draw(4, fully=True)
    label = target.label.clamp(max=1)
    known = torch.tensor([[True, True, False, False]] * 3)
    masked = logits.float().masked_fill(~known[:, :, None, None], -1e4)
    loss = HybridLoss(0.3, 0.7, [1.0, 2.0, 1.0, 1.0])(masked, MaskTarget(label, known, known))
    alone = MaskTarget(label, known[:, :2], known[:, :2])
    torch.testing.assert_close(loss, HybridLoss(0.3, 0.7, [1.0, 2.0])(logits.float()[:, :2], alone))


def test_parts_hold_every_image_once_with_the_channels_it_can_show() -> None:
    _, target = draw(4, fully=False, batch=6)
    seen = []
    for rows, channels, part in target.alike():
        seen += rows.tolist()
        for place, row in enumerate(rows.tolist()):
            assert channels.tolist() == target.possible[row].nonzero()[:, 0].tolist()
            assert torch.equal(channels[part.label[place]], target.label[row])
            assert torch.equal(part.labelled[place], target.labelled[row, channels])
    assert sorted(seen) == list(range(6))


def test_single_images_are_scored_one_by_one_and_slices_over_the_batch() -> None:
    logits, target = draw(3, fully=True, batch=5)
    standalone = torch.tensor([True, False, True, False, False])
    probability = logits.softmax(1)

    def of(rows: list[int]) -> Tensor:
        part = MaskTarget(target.label[rows], target.labelled[rows], target.possible[rows])
        return batch_dice(probability[rows], part)

    mixed = MaskTarget(target.label, target.labelled, target.possible, standalone=standalone)
    expected = 1.0 - torch.cat([of([0]), of([2]), of([1, 3, 4])]).mean()
    torch.testing.assert_close(HybridLoss(1.0, 0.0, dice_per_image=True)(logits, mixed), expected)
    over_the_batch = 1.0 - batch_dice(probability, target).mean()
    torch.testing.assert_close(HybridLoss(1.0, 0.0)(logits, mixed), over_the_batch)


@pytest.mark.parametrize("naming", [False, True])
def test_several_batches_count_by_their_images(naming: bool) -> None:
    outputs: list[Any] = []
    targets = []
    for batch in (4, 2):
        logits, target = draw(3, fully=True, seed=batch, batch=batch)
        if naming:
            named = torch.rand(batch, 2) < 0.5
            target = replace(target, named=named)
        outputs.append(MaskAndNaming(logits, torch.randn(batch, 2)) if naming else logits)
        targets.append(target)
    loss = HybridLoss(0.3, 0.7)
    four, two = (loss(output, target) for output, target in zip(outputs, targets, strict=True))
    torch.testing.assert_close(loss(outputs, targets), (4 * four + 2 * two) / 6)


def test_class_weights_are_the_log_of_the_inverse_frequency_with_a_mean_of_one() -> None:
    weights = log_inverse_frequency(torch.tensor([900.0, 90.0, 10.0, 0.0]))
    raw = [math.log(1 + 1 / share) for share in (0.9, 0.09, 0.01)]
    expected = [value / (sum(raw) / 3) for value in raw]
    assert weights.tolist() == pytest.approx([*expected, 1.0], rel=1e-6)
    assert weights[0] < weights[1] < weights[2]
    assert log_inverse_frequency(torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]
    equal = HybridLoss(0.0, 1.0, log_inverse_frequency(torch.tensor([5.0, 5.0])))
    assert equal.class_weights is not None and equal.class_weights.tolist() == [1.0, 1.0]


def test_the_scaled_one_hot_mask_is_one_at_the_label_and_minus_one_elsewhere() -> None:
    _, target = draw(4, fully=True)
    one_hot = torch.nn.functional.one_hot(target.label, 4).movedim(-1, 1)
    assert torch.equal(target.scaled_one_hot(), 2.0 * one_hot - 1.0)


@pytest.mark.parametrize("stride", [2, 4])
def test_a_coarser_mask_is_the_average_of_the_fine_one(stride: int) -> None:
    label = torch.randint(0, 5, (3, 16, 8), generator=torch.Generator().manual_seed(0))
    known = torch.ones(3, 5, dtype=torch.bool)
    target = MaskTarget(label, known, known)
    expected = torch.nn.functional.avg_pool2d(target.scaled_one_hot(), stride)
    torch.testing.assert_close(target.scaled_one_hot(stride), expected)
