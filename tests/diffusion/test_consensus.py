"""Consensus equals naive implementations; uncertainty has the range that is documented."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bundle.diffusion import consensus, disagreement, predictive_entropy, uncertainty
from bundle.diffusion.consensus import ConsensusName

METHODS: list[ConsensusName] = ["mean", "majority", "staple", "last"]


def one_hot(labels: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, -3).float()


@pytest.fixture
def predictions() -> Tensor:
    """3 members of 4 steps, 2 images, 3 classes, 6 x 5 pixels."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn((12, 2, 3, 6, 5), generator=generator).mul(2).softmax(dim=2)


def test_mean_and_last_equal_naive_loops(predictions: Tensor) -> None:
    mean = torch.zeros(2, 3, 6, 5)
    for prediction in predictions:
        mean += prediction / 12
    assert torch.allclose(consensus(predictions, 4, "mean"), mean, atol=1e-6)
    last = (predictions[3] + predictions[7] + predictions[11]) / 3
    assert torch.allclose(consensus(predictions, 4, "last"), last, atol=1e-6)


def test_majority_is_the_share_of_votes(predictions: Tensor) -> None:
    shares = np.zeros((2, 3, 6, 5))
    for prediction in predictions.numpy():
        for b, y, x in np.ndindex(2, 6, 5):
            shares[b, prediction[b, :, y, x].argmax(), y, x] += 1 / 12
    assert np.allclose(consensus(predictions, 4, "majority"), shares, atol=1e-6)


def naive_staple(rated: np.ndarray, iterations: int = 50) -> np.ndarray:
    """Warfield et al. 2004, eq. 14-18, for (raters, pixels) of 0 and 1, with the mean vote as the prior."""
    raters = len(rated)
    prior = rated.mean()
    sensitivity, specificity = np.full(raters, 0.99999), np.full(raters, 0.99999)
    weight = np.zeros(rated.shape[1])
    for _ in range(iterations):
        for pixel in range(rated.shape[1]):
            true, false = prior, 1 - prior
            for rater in range(raters):
                p, q = sensitivity[rater], specificity[rater]
                true *= p if rated[rater, pixel] else 1 - p
                false *= 1 - q if rated[rater, pixel] else q
            weight[pixel] = true / (true + false)
        sensitivity = (rated * weight).sum(axis=1) / weight.sum()
        specificity = ((1 - rated) * (1 - weight)).sum(axis=1) / (1 - weight).sum()
    return weight


def raters_of_different_skill(classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    truth = torch.zeros(12, 12, dtype=torch.long)
    truth[2:7, 3:9] = 1
    if classes > 2:
        truth[8:11, 2:6] = 2
    labels = truth.expand(5, 1, 12, 12).clone()
    for rater, wrong in enumerate([0.02, 0.05, 0.1, 0.2, 0.45]):
        flipped = torch.rand((1, 12, 12), generator=generator) < wrong
        other = torch.randint(1, classes, (1, 12, 12), generator=generator)
        labels[rater] = torch.where(flipped, (labels[rater] + other) % classes, labels[rater])
    return labels, truth


@pytest.mark.parametrize("classes", [2, 3])
def test_staple_equals_naive_expectation_maximisation(classes: int) -> None:
    labels, _ = raters_of_different_skill(classes)
    naive = np.zeros((classes, 144))
    for label in range(1, classes):
        naive[label] = naive_staple((labels == label).flatten(1).numpy().astype(float))
    naive[0] = np.clip(1 - naive.sum(axis=0), 0, 1)
    naive /= naive.sum(axis=0)
    fused = consensus(one_hot(labels, classes), 5, "staple")[0].flatten(1)
    assert np.abs(fused.numpy() - naive).max() < 1e-3


def test_staple_follows_two_good_raters_where_three_poor_ones_outvote_them() -> None:
    generator = torch.Generator().manual_seed(4)
    truth = torch.zeros(24, 24, dtype=torch.long)
    truth[4:16, 6:20] = 1
    labels = truth.expand(5, 1, 24, 24).clone()
    labels[2:] = torch.where(
        torch.rand((3, 1, 24, 24), generator=generator) < 0.4, 1 - labels[2:], labels[2:]
    )
    votes = one_hot(labels, 2)
    assert not torch.equal(consensus(votes, 5, "majority").argmax(dim=1)[0], truth)
    assert torch.equal(consensus(votes, 5, "staple").argmax(dim=1)[0], truth)


def test_staple_keeps_what_all_raters_agree_on() -> None:
    votes = one_hot(torch.randint(0, 3, (1, 2, 8, 8)), 3).expand(4, 2, 3, 8, 8)
    assert torch.equal(consensus(votes, 4, "staple"), votes[0])
    assert torch.equal(consensus(votes[:1], 1, "staple"), votes[0])
    background = one_hot(torch.zeros(4, 1, 8, 8, dtype=torch.long), 3)
    assert torch.equal(consensus(background, 4, "staple"), background[0])


@pytest.mark.parametrize("raters", [2, 100])
def test_staple_stays_finite_where_one_of_many_raters_sees_something(raters: int) -> None:
    labels = torch.zeros(raters, 1, 8, 8, dtype=torch.long)
    labels[0, 0, :2, :2] = 1
    fused = consensus(one_hot(labels, 2), raters, "staple")
    assert torch.isfinite(fused).all()
    assert (fused[0, 1, 2:] == 0).all()
    assert fused[0, 1].max().item() <= 0.5


@pytest.mark.parametrize("method", METHODS)
def test_fused_probabilities_sum_to_one_and_keep_their_type(
    predictions: Tensor, method: ConsensusName
) -> None:
    fused = consensus(predictions, 4, method)
    assert fused.shape == (2, 3, 6, 5) and fused.dtype == torch.float32
    assert torch.allclose(fused.sum(dim=1), torch.ones(2, 6, 5), atol=1e-5)
    assert (fused >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_fusing_one_image_does_not_depend_on_the_others(predictions: Tensor, method: ConsensusName) -> None:
    together = consensus(predictions, 4, method)
    assert torch.allclose(together[1:], consensus(predictions[:, 1:], 4, method), atol=1e-6)


def test_unknown_consensus_is_refused_in_one_sentence(predictions: Tensor) -> None:
    unknown: Any = "median"
    with pytest.raises(
        ValueError, match="^consensus must be one of mean, majority, staple, last, not 'median'$"
    ):
        consensus(predictions, 4, unknown)


# --- uncertainty -----------------------------------------------------------------------------------------


def test_certain_answers_have_no_entropy() -> None:
    certain = one_hot(torch.randint(0, 4, (2, 5, 5)), 4)
    assert (predictive_entropy(certain, 4) == 0).all()


def test_entropy_is_one_for_a_uniform_answer_over_the_possible_classes() -> None:
    uniform = torch.zeros(1, 5, 2, 2)
    uniform[:, [0, 2, 4]] = 1 / 3
    assert torch.allclose(predictive_entropy(uniform, 3), torch.ones(1, 2, 2), atol=1e-6)
    assert torch.allclose(predictive_entropy(uniform, 5), torch.full((1, 2, 2), np.log(3) / np.log(5)))


def test_entropy_equals_the_naive_sum(predictions: Tensor) -> None:
    fused = predictions[0].double().numpy()
    naive = -(fused * np.log(fused)).sum(axis=1) / np.log(3)
    assert np.allclose(uncertainty(predictions, predictions[0], 3, "entropy"), naive, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_variance_is_one_where_every_class_is_the_certain_answer_equally_often(classes: int) -> None:
    votes = one_hot(
        torch.arange(2 * classes).remainder(classes).view(-1, 1, 1, 1).expand(-1, 1, 3, 3), classes
    )
    assert torch.allclose(disagreement(votes, classes), torch.ones(1, 3, 3), atol=1e-6)


def test_variance_is_zero_where_all_predictions_agree_however_unsure() -> None:
    agreed = torch.full((6, 1, 2, 3, 3), 0.5)
    assert (uncertainty(agreed, agreed[0], 2, "variance") == 0).all()
    assert torch.allclose(uncertainty(agreed, agreed[0], 2, "entropy"), torch.ones(1, 3, 3))


def test_variance_equals_the_naive_sum(predictions: Tensor) -> None:
    values = predictions.double().numpy()
    mean = sum(values) / len(values)
    naive = sum((value - mean) ** 2 for value in values).sum(axis=1) / len(values) / (1 - 1 / 3)
    assert np.allclose(uncertainty(predictions, predictions[0], 3, "variance"), naive, atol=1e-5)


def test_uncertainty_of_a_single_possible_class_is_zero() -> None:
    only = one_hot(torch.zeros(3, 1, 4, 4, dtype=torch.long), 1)
    assert (predictive_entropy(only[0], 1) == 0).all() and (disagreement(only, 1) == 0).all()


def test_unknown_uncertainty_is_refused_in_one_sentence(predictions: Tensor) -> None:
    unknown: Any = "std"
    with pytest.raises(ValueError, match="^uncertainty must be one of entropy, variance, not 'std'$"):
        uncertainty(predictions, predictions[0], 3, unknown)
