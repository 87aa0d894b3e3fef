"""Fusion equals its formula, and the noise level enters where the configuration says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bundle.diffusion.sampling import Sampling
from bundle.networks import DiffusionSegmenter, MaskDenoiser
from bundle.networks.blocks import LogSnrEmbedding, PixelShuffleUpsample, PyramidNeck, ResidualBlock
from bundle.networks.fusion import build_fusion

Make = Callable[..., DiffusionSegmenter]


def count_calls(module: nn.Module | None) -> list[int]:
    calls: list[int] = []
    assert module is not None
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, 6, 5, 4), generator=generator), torch.randn((2, 6, 5, 4), generator=generator)


def test_additive_fusion_is_the_sum_and_has_no_weights(pair: tuple[Tensor, Tensor]) -> None:
    mask, prior = pair
    fusion = build_fusion("additive", 6)
    assert fusion is not None and list(fusion.parameters()) == []
    assert torch.equal(fusion(mask, prior), mask + prior)


def test_concatenation_is_a_linear_map_of_both_at_every_pixel(pair: tuple[Tensor, Tensor]) -> None:
    mask, prior = pair
    fusion = build_fusion("concatenation", 6)
    assert fusion is not None
    convolution: Any = fusion.project
    weight, bias = convolution.weight[:, :, 0, 0], convolution.bias
    naive = torch.einsum("oc,bchw->bohw", weight[:, :6], mask) + torch.einsum(
        "oc,bchw->bohw", weight[:, 6:], prior
    )
    assert torch.allclose(fusion(mask, prior), naive + bias[:, None, None], atol=1e-5)


@pytest.mark.parametrize("fusion", ["additive", "concatenation"])
def test_the_fusion_that_is_configured_is_the_one_that_runs(
    make_segmenter: Make, images: Tensor, fusion: str
) -> None:
    network = make_segmenter(fusion=fusion)
    seen: list[tuple[Any, Any]] = []
    assert network.denoiser.fusion is not None and network.denoiser.neck is not None
    necks: list[Tensor] = []
    network.denoiser.fusion.register_forward_hook(lambda _, inputs, output: seen.append((inputs, output)))
    network.denoiser.neck.register_forward_hook(lambda _, inputs, output: necks.append(output))
    network(images[:1], noisy=(torch.zeros(1, 4, 64, 64), torch.zeros(1)))
    (mask, prior), fused = seen[0]
    assert torch.equal(prior, necks[0]) and mask.shape == prior.shape == fused.shape == (1, 16, 16, 16)
    assert torch.equal(fused, mask + prior) == (fusion == "additive")


def test_without_fusion_the_prior_is_gone_and_the_image_enters_itself(
    make_segmenter: Make, images: Tensor
) -> None:
    network = make_segmenter(fusion="none")
    assert network.image_prior is None and not network.denoiser.needs_prior
    assert not any("prior" in name or "neck" in name for name, _ in network.named_parameters())
    noisy = (torch.randn(1, 4, 64, 64), torch.zeros(1))
    first, second = network(images[:1], noisy=noisy), network(images[1:2], noisy=noisy)
    assert (first - second).abs().max().item() > 1e-3


@pytest.mark.parametrize("fusion", ["additive", "concatenation", "none"])
@pytest.mark.parametrize("changed", ["image", "mask", "log_snr"])
def test_every_input_changes_the_answer(
    make_segmenter: Make, images: Tensor, fusion: str, changed: str
) -> None:
    network = make_segmenter(fusion=fusion)
    mask, level = torch.randn(1, 4, 64, 64), torch.zeros(1)
    before = network(images[:1], noisy=(mask, level))
    after = network(
        images[1:2] if changed == "image" else images[:1],
        noisy=(-mask if changed == "mask" else mask, level + 2 if changed == "log_snr" else level),
    )
    assert before.shape == (1, 4, 64, 64)
    assert (before - after).abs().max().item() > 1e-4


@pytest.mark.parametrize(("conditioning", "calls"), [("mask", 1), ("pyramid", 6)])
def test_the_neck_runs_once_or_at_every_step(
    make_segmenter: Make, images: Tensor, conditioning: str, calls: int
) -> None:
    network = make_segmenter(time_conditioning=conditioning)
    counted = count_calls(network.denoiser.neck)
    with torch.no_grad():
        network.predict(images[:2], ["a", "b"], Sampling(steps=3, members=2))
    assert len(counted) == calls


def test_pyramid_conditioning_adds_the_noise_level_to_every_map(make_segmenter: Make, images: Tensor) -> None:
    denoiser = make_segmenter(time_conditioning="pyramid").denoiser
    assert denoiser.pyramid_time is not None and denoiser.neck is not None
    maps = [torch.randn(1, c, 16 // 2**i, 16 // 2**i) for i, c in enumerate((8, 8, 16, 16))]
    given: list[Any] = []
    denoiser.neck.register_forward_hook(lambda _, inputs, output: given.extend(inputs[0]))
    level = torch.tensor([-2.0])
    condition = denoiser.prepare(images[:1], maps)
    denoiser(torch.randn(1, 4, 64, 64), level, condition)
    for plain, timed, time in zip(maps, given, denoiser.pyramid_time, strict=True):
        assert torch.allclose(timed - plain, time(level)[:, :, None, None].expand_as(plain), atol=1e-5)


def test_unknown_names_are_refused_in_one_sentence() -> None:
    unknown: Any = "bogus"
    with pytest.raises(
        ValueError, match="^fusion must be one of additive, concatenation, none, not 'bogus'$"
    ):
        MaskDenoiser(3, [8, 8], width=16, fusion=unknown)
    with pytest.raises(ValueError, match="^time_conditioning must be 'pyramid' or 'mask', not 'bogus'$"):
        MaskDenoiser(3, [8, 8], width=16, time_conditioning=unknown)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mask_stride": 2}, "mask_stride must be 1 or 4"),
        ({"mask_stride": 4, "fusion": "none"}, "takes the image beside the noisy mask"),
        ({"detail": True, "fusion": "none"}, "takes the image beside the noisy mask"),
        ({"upsample_widths": (8, 8, 8)}, "upsample_widths must be one or two numbers"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MaskDenoiser(3, [8, 8], **{"width": 16, "upsample_widths": (8, 8), **settings})


@torch.no_grad()
@pytest.mark.parametrize("widths", [(8,), (8, 8)])
def test_one_or_two_upsamplings_end_at_the_resolution_of_the_image(widths: tuple[int, ...]) -> None:
    denoiser = MaskDenoiser(
        3, [8, 8], width=16, upsample_widths=widths, mask_stride=4, time_conditioning="mask"
    )
    pyramid = [torch.rand(2, 8, 16, 8), torch.rand(2, 8, 8, 4)]
    condition = denoiser.prepare(torch.rand(2, 3, 64, 32), pyramid)
    assert denoiser(torch.rand(2, 3, 16, 8), torch.zeros(2), condition).shape == (2, 3, 64, 32)


# --- blocks ----------------------------------------------------------------------------------------------


def test_log_snr_embedding_tells_noise_levels_apart_over_the_whole_range() -> None:
    torch.manual_seed(0)
    embedding = LogSnrEmbedding(16, 32, 8)
    embedded = embedding(torch.linspace(-15, 15, 61))
    assert embedded.shape == (61, 8)
    distances = torch.cdist(embedded, embedded) + torch.eye(61) * 1e3
    assert distances.min().item() > 1e-3


def test_residual_block_without_its_last_convolution_is_the_identity() -> None:
    block = ResidualBlock(16, 8)
    nn.init.zeros_(block.conv2.weight)
    assert block.conv2.bias is not None
    nn.init.zeros_(block.conv2.bias)
    x = torch.randn(2, 16, 6, 6)
    assert torch.equal(block(x, torch.randn(2, 8)), x)


def test_residual_block_is_scaled_and_shifted_by_the_embedding() -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(16, 8), torch.randn(2, 16, 6, 6)
    embedding = torch.randn(2, 8)
    h = block.norm2(block.conv1(nn.functional.silu(block.norm1(x))))
    scale, shift = block.modulation(embedding).chunk(2, dim=1)
    h = torch.stack([h[b] * (1 + scale[b].view(-1, 1, 1)) + shift[b].view(-1, 1, 1) for b in range(2)])
    assert torch.allclose(block(x, embedding), x + block.conv2(nn.functional.silu(h)), atol=1e-6)


def test_pixel_shuffle_doubles_the_resolution_locally() -> None:
    torch.manual_seed(0)
    upsample, x = PixelShuffleUpsample(4, 3), torch.randn(1, 4, 5, 5)
    changed = x.clone()
    changed[..., 2, 3] += 1.0
    difference = (upsample(x) - upsample(changed)).abs().amax(dim=(0, 1))
    assert difference.shape == (10, 10)
    assert (difference[4:6, 6:8] > 0).all() and torch.count_nonzero(difference) == 4


def test_neck_lets_every_map_of_the_pyramid_through() -> None:
    torch.manual_seed(0)
    neck = PyramidNeck([4, 6, 8], 5)
    maps = [torch.randn(1, c, 16 // 2**i, 16 // 2**i) for i, c in enumerate((4, 6, 8))]
    before = neck(maps)
    assert before.shape == (1, 5, 16, 16)
    for index in range(3):
        silenced = [torch.zeros_like(m) if i == index else m for i, m in enumerate(maps)]
        assert (neck(silenced) - before).abs().max().item() > 1e-2
    with pytest.raises(ValueError):
        neck(maps[:2])
