"""How parts of the graph meet.

The image prior and the noisy mask in the denoiser: MedCondDiff's PVT-Ac, PVT-Cc and neither. Maps of the image and
tokens of the text: LCPDN's LTFR (equations 7 to 10) and TextDiff's cross-modal attention.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bundle.networks.alignment import replicated
from bundle.networks.text_prior import TextFeatures

FusionName = Literal["additive", "concatenation", "none"]
TextFusionName = Literal["ltfr", "cross_attention"]


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
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=text.mask[:, None, None])
        return self.out(attended.transpose(1, 2).flatten(2))


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
