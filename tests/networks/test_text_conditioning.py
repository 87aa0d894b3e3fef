"""A text enters the chosen maps of the image prior, at first without a trace; places are alike at every size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from bundle.networks import PyramidTextConditioning
from bundle.networks.fusion import TextFusionName, attend, places
from bundle.networks.text_prior import TextFeatures

CHANNELS = (6, 8, 10, 12)
FUSIONS: list[TextFusionName] = ["cross_attention", "ltfr"]


def maps(batch: int = 2) -> list[Tensor]:
    """As of images of 64x64."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(batch, width, 16 >> scale, 16 >> scale, generator=generator)
        for scale, width in enumerate(CHANNELS)
    ]


def text(*lengths: int, seed: int = 0) -> TextFeatures:
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    tokens = torch.randn(*mask.shape, 5, generator=torch.Generator().manual_seed(seed)) * mask[..., None]
    return TextFeatures(tokens, mask, tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True))


def make(
    fusion: TextFusionName, scales: Sequence[int] = (1, 2, 3), trained: bool = True
) -> PyramidTextConditioning:
    torch.manual_seed(0)
    conditioning = PyramidTextConditioning(CHANNELS, 5, scales, fusion, width=8)
    if trained:
        for parameter in conditioning.leave.parameters():
            nn.init.normal_(parameter)
    return conditioning.eval()


@pytest.mark.parametrize("keys", [1, 7, 300])
def test_attention_written_out_is_that_of_pytorch(keys: int) -> None:
    generator = torch.Generator().manual_seed(keys)
    q, k, v = (
        torch.randn(2, 4, count, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for count in (16, keys, keys)
    )
    mask = torch.arange(keys)[None] < torch.tensor([[keys], [max(1, keys - 2)]])
    ours = attend(q, k, v, mask[:, None, None])
    theirs = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(
        torch.autograd.grad(ours.square().sum(), (q, k, v)),
        torch.autograd.grad(theirs.square().sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_untrained_conditioning_leaves_every_map_as_it_was(fusion: TextFusionName) -> None:
    guided = make(fusion, trained=False)(maps(), text(3, 5))
    assert all(torch.equal(one, other) for one, other in zip(guided, maps(), strict=True))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("scales", [(0,), (3, 1), (1, 2, 3), (0, 1, 2, 3)])
def test_a_text_changes_the_chosen_scales_and_no_other(
    fusion: TextFusionName, scales: tuple[int, ...]
) -> None:
    conditioning = make(fusion, scales)
    one, other = (conditioning(maps(), text(3, 5, seed=seed)) for seed in (0, 1))
    for scale, given in enumerate(maps()):
        if scale in scales:
            assert one[scale].shape == given.shape
            assert not torch.allclose(one[scale], given) and not torch.allclose(one[scale], other[scale])
        else:
            assert torch.equal(one[scale], given) and torch.equal(other[scale], given)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_longer_prompt_in_the_batch_changes_no_other_image(fusion: TextFusionName) -> None:
    conditioning, both = make(fusion), text(3, 9)
    guided = conditioning(maps(), both)
    alone = conditioning([features[:1] for features in maps()], both.first(1))
    for one, other in zip(guided, alone, strict=True):
        torch.testing.assert_close(one[:1], other, atol=1e-5, rtol=1e-4)


def test_equal_pixels_in_other_places_are_told_apart() -> None:
    alike = [torch.ones_like(features) for features in maps()]
    guided = make("cross_attention")(alike, text(3, 5))
    for features in guided[1:]:
        distances = torch.cdist(*[features[0].flatten(1).T] * 2)
        assert (distances + torch.eye(len(distances)) > 1e-4).all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_reach_what_is_silent_first_and_then_every_parameter(fusion: TextFusionName) -> None:
    for trained in (False, True):
        conditioning = make(fusion, trained=trained)
        guided = conditioning(maps(), text(3, 5))
        sum(features.square().sum() for features in guided).backward()
        for name, parameter in conditioning.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert bool(parameter.grad.any()) == (trained or name.startswith("leave")), name


@pytest.mark.parametrize("scales", [(), (4,), (-1, 2), (0, 1, 2, 3, 4)])
def test_scales_that_the_prior_does_not_have_are_refused(scales: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="text_scales must be some of 0 to 3, not"):
        PyramidTextConditioning(CHANNELS, 5, scales)


# --- places ----------------------------------------------------------------------------------------------


def test_places_are_waves_of_the_distances_from_the_middle() -> None:
    found = places(5, 8)
    assert found.shape == (5, 8, 16)
    for row in range(5):
        for column in range(8):
            down, across = (2 * row + 1) / 5 - 1, (2 * column + 1) / 8 - 1
            expected = [
                wave(math.pi / 2 * 2**octave * distance)
                for distance in (down, across)
                for wave in (math.sin, math.cos)
                for octave in range(4)
            ]
            torch.testing.assert_close(found[row, column], torch.tensor(expected), atol=1e-5, rtol=0.0)


def test_places_say_the_same_at_every_size() -> None:
    fine, coarse = (places(side, side).permute(2, 0, 1) for side in (16, 8))
    lowest = [0, 4, 8, 12]  # of sines and cosines, down and across
    averaged = nn.functional.avg_pool2d(fine, 2)
    torch.testing.assert_close(averaged[lowest], coarse[lowest], atol=0.01, rtol=0.0)
    for side in (5, 9, 33):
        middle = places(side, side)[side // 2, side // 2]
        torch.testing.assert_close(middle, torch.tensor([0.0, 1.0] * 2).repeat_interleave(4))


def test_no_two_pixels_share_a_place_and_mirrored_ones_differ_in_their_sines() -> None:
    found = places(12, 20)
    pixels = found.flatten(0, 1)
    assert (torch.cdist(pixels, pixels) + torch.eye(len(pixels)) > 0.05).all()
    upside_down, mirrored = torch.ones(2, 16)
    upside_down[:4], mirrored[8:12] = -1.0, -1.0
    torch.testing.assert_close(found.flip(0), found * upside_down, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(found.flip(1), found * mirrored, atol=1e-5, rtol=0.0)
