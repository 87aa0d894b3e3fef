"""How parts of the graph meet.

The image prior and the noisy mask in the denoiser: MedCondDiff's PVT-Ac, PVT-Cc and neither. Maps of the image and
tokens of the text: LCPDN's LTFR (equations 7 to 10) and TextDiff's cross-modal attention, on single maps or on the
pyramid of the image prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bundle.networks.alignment import replicated
from bundle.networks.text_prior import TextFeatures

FusionName = Literal["additive", "concatenation", "none"]
TextFusionName = Literal["ltfr", "cross_attention"]
_FEW_KEYS = 256
_PLACE_WAVES = 4  # an axis, from half a wave over the picture to four waves


class AdditiveFusion(nn.Module):
    """Element-wise addition (PVT-Ac): ``z_t + c``."""

    def forward(self, mask_features: Tensor, prior: Tensor) -> Tensor:
        """(B, width, H, W) both -> (B, width, H, W)."""
        return mask_features + prior


class ConcatenationFusion(nn.Module):
    """Concatenation and a 1x1 convolution back to the width (PVT-Cc)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(2 * width, width, 1)

    def forward(self, mask_features: Tensor, prior: Tensor) -> Tensor:
        """(B, width, H, W) both -> (B, width, H, W)."""
        return self.project(torch.cat([mask_features, prior], dim=1))


def build_fusion(name: FusionName, width: int) -> nn.Module | None:
    """The fusion of that name; None for 'none', the diffusion model without a prior.

    Without a prior the image itself enters beside the noisy mask, or there would be nothing to segment.
    """
    if name == "additive":
        return AdditiveFusion()
    if name == "concatenation":
        return ConcatenationFusion(width)
    if name == "none":
        return None
    raise ValueError(f"fusion must be one of {', '.join(get_args(FusionName))}, not {name!r}")


class LightweightFusion(nn.Module):
    """Lightweight text-vision fusion representation, LTFR (LCPDN, equations 7 to 10).

    Args:
        width: of the map's pixels and of the text's tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width))
        self.gate = nn.Linear(width, 1)

    def forward(self, features: Tensor, text: TextFeatures) -> Tensor:
        """(B, width, H, W) and tokens of the same width -> (B, width, H, W)."""
        image = features.flatten(2).transpose(1, 2)
        joint = torch.cat([image, replicated(text, image.shape[1])], dim=-1)  # eq. 7
        fused = self.mlp(joint)  # eq. 8
        share = self.gate(fused).sigmoid()
        mixed = share * fused + (1.0 - share) * image  # eq. 9
        return (mixed * image).transpose(1, 2).unflatten(2, features.shape[-2:])  # eq. 10


class CrossAttention(nn.Module):
    """Pixels ask, text tokens answer; a linear layer and its normalisation follow, as TextDiff has them."""

    def __init__(self, width: int, text_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(text_width, inner, bias=False)
        self.value = nn.Linear(text_width, inner, bias=False)
        self.out = nn.Sequential(nn.Linear(inner, width), nn.LayerNorm(width))

    def forward(self, pixels: Tensor, text: TextFeatures) -> Tensor:
        """(B, M, width) and text -> (B, M, width)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, pixels), (self.key, text.tokens), (self.value, text.tokens))
        )
        attended = attend(q, k, v, text.mask[:, None, None])
        return self.out(attended.transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Scaled-dot-product attention of (B, heads, M, dim) queries to (B, heads, N, dim) keys under a bool mask.

    On a CPU, PyTorch's fused kernel is made for many keys: to the few words of a sentence its backward pass takes
    several times as long as the products written out. An exported graph takes any number of keys, and one way.
    """
    if torch.compiler.is_exporting() or q.device.type != "cpu" or k.shape[2] > _FEW_KEYS:
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, heads, M, N)
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1).to(v.dtype) @ v


class CrossModalBlock(nn.Module):
    """TextDiff's transformer block: two cross-attentions to the text and a feed-forward layer, all residual.

    Args:
        width: of the map's pixels.
        text_width: of the text's tokens.
        heads, head_width: of the attention.
    """

    def __init__(self, width: int, text_width: int, heads: int = 8, head_width: int = 64) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attentions = nn.ModuleList(
            CrossAttention(width, text_width, heads, head_width) for _ in range(2)
        )
        self.feed = nn.Sequential(nn.GELU(), nn.Linear(width, width))

    def forward(self, features: Tensor, text: TextFeatures) -> Tensor:
        """(B, width, H, W) -> (B, width, H, W)."""
        pixels = features.flatten(2).transpose(1, 2)
        for norm, attention in zip(self.norms, self.attentions, strict=False):  # the last norm is the feed's
            pixels = pixels + attention(norm(pixels), text)
        pixels = pixels + self.feed(self.norms[-1](pixels))
        return pixels.transpose(1, 2).unflatten(2, features.shape[-2:])


def build_text_fusion(name: TextFusionName, width: int) -> nn.Module:
    """The fusion of that name, of maps and tokens of one width."""
    if name == "ltfr":
        return LightweightFusion(width)
    if name == "cross_attention":
        head_width = 32
        return CrossModalBlock(width, width, max(1, width // head_width), head_width)
    raise ValueError(f"text fusion must be one of {', '.join(get_args(TextFusionName))}, not {name!r}")


class PyramidTextConditioning(nn.Module):
    """The text in the maps of an image prior, scale by scale; neither noise nor time is in it, so it runs once.

    Reports say where in the picture something is, which a map of features need not tell: each pixel brings its
    place along, as sines of its distance from the middle (Vaswani et al. 2017, sec. 3.5), in shares of what the
    network is shown, so that 'upper left' is the same at every size. Of a picture in tiles that is the tile. What the
    text brings is added by a gain that starts at zero: without a text that helps, the prior stays what it was.

    Args:
        channels: widths of the prior's maps, finest first.
        text_width: of the text's tokens.
        scales: which of the maps; the finest ones cost most and see least.
        fusion: of text and map, see `build_text_fusion`.
        width: in which they meet.
    """

    def __init__(
        self,
        channels: Sequence[int],
        text_width: int,
        scales: Sequence[int] = (1, 2, 3),
        fusion: TextFusionName = "cross_attention",
        width: int = 128,
    ) -> None:
        super().__init__()
        if not scales or not set(scales) <= set(range(len(channels))):
            raise ValueError(f"text_scales must be some of 0 to {len(channels) - 1}, not {list(scales)}")
        self.scales = sorted(set(scales))
        self.text_projection = nn.Linear(text_width, width)
        self.place_projection = nn.Linear(4 * _PLACE_WAVES, width)
        self.enter = nn.ModuleList(nn.Conv2d(channels[scale], width, 1) for scale in self.scales)
        self.fusions = nn.ModuleList(build_text_fusion(fusion, width) for _ in self.scales)
        self.leave = nn.ModuleList(_silent(nn.Conv2d(width, channels[scale], 1)) for scale in self.scales)

    def forward(self, pyramid: Sequence[Tensor], text: TextFeatures) -> list[Tensor]:
        """Maps (B, channels[i], H_i, W_i) and text -> maps of the same shapes."""
        narrow = replace(text, tokens=self.text_projection(text.tokens))
        conditioned = list(pyramid)
        for scale, enter, fusion, leave in zip(
            self.scales, self.enter, self.fusions, self.leave, strict=True
        ):
            features = pyramid[scale]
            height, across = features.shape[-2:]
            place = self.place_projection(places(height, across, features.device).to(features.dtype))
            met = fusion(enter(features) + place.permute(2, 0, 1), narrow)
            conditioned[scale] = features + leave(met)
        return conditioned


def _silent(layer: nn.Conv2d) -> nn.Conv2d:
    """Says nothing until it has learnt to."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def places(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(H, W, 16): where each pixel is, as sines and cosines of its distances from the picture's middle."""
    # not by linspace, whose decomposition ties exported graphs to the size that they were traced with
    axes = [(2.0 * torch.arange(size, device=device) + 1.0) / size - 1.0 for size in (height, width)]
    rates = torch.pi / 2 * 2.0 ** torch.arange(_PLACE_WAVES, device=device)
    waves = [axis[:, None] * rates for axis in axes]
    down, across = (torch.cat([wave.sin(), wave.cos()], dim=1) for wave in waves)
    return torch.cat([down[:, None].expand(-1, width, -1), across[None].expand(height, -1, -1)], dim=2)
