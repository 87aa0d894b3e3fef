"""Small blocks that several networks are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LogSnrEmbedding(nn.Module):
    """Sinusoidal embedding of the log-SNR (Vaswani et al. 2017, sec. 3.5) and a two-layer perceptron.

    Args:
        width: of the sinusoidal features, even.
        hidden: of the perceptron.
        out: of the result.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.width = width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, out))

    def forward(self, log_snr: Tensor) -> Tensor:
        """(B,) -> (B, out)."""
        half = self.width // 2
        rates = torch.exp(
            torch.arange(half, device=log_snr.device, dtype=torch.float32)
            * (-math.log(1e4) / max(half - 1, 1))
        )
        # log-SNR spans about 30 where discrete steps span 1000; the scale brings the fast waves into play
        angles = log_snr.float()[:, None] * 30.0 * rates
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=1))


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice; the embedding scales and shifts between (FiLM)."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        groups = math.gcd(width, 16)
        self.norm1 = nn.GroupNorm(groups, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * width))
        self.norm2 = nn.GroupNorm(groups, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, width, H, W), (B, embedding) -> (B, width, H, W)."""
        h = self.conv1(nn.functional.silu(_normalised(self.norm1, x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = _normalised(self.norm2, h) * (1 + scale) + shift
        return x + self.conv2(nn.functional.silu(h))


def _normalised(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """In float32, which on a CPU takes half the time of group normalisation in bfloat16."""
    return norm(x.float()).to(x.dtype)


class PixelShuffleUpsample(nn.Sequential):
    """Twice the resolution by a 1x1 convolution and sub-pixel rearrangement (Shi et al. 2016)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(nn.Conv2d(width, 4 * out, 1), nn.SiLU(), nn.PixelShuffle(2))


class PyramidNeck(nn.Module):
    """Brings a feature pyramid to one map at its finest stride, from coarse to fine.

    3x3 projections to one width, then 1x1 convolutions that join each map with the coarser result.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(c, width, 3, padding=1) for c in channels)
        self.join = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in channels[1:])

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Maps (B, channels[i], H_i, W_i), finest first -> (B, width, H_0, W_0)."""
        maps = [project(features) for project, features in zip(self.project, pyramid, strict=True)]
        joined = maps[-1]
        for finer, join in zip(reversed(maps[:-1]), reversed(self.join), strict=True):
            coarse = nn.functional.interpolate(
                joined, size=finer.shape[-2:], mode="bilinear", align_corners=False
            )
            joined = join(torch.cat([finer, coarse], dim=1))
        return joined


class ImageDetail(nn.Module):
    """The edges that a pyramid at stride 4 and more has lost: the image at stride 2, joined with maps of that size."""

    def __init__(self, image_channels: int, width: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(image_channels, width, 3, stride=2, padding=1)
        self.join = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """(B, width, H / 2, W / 2) features and what `read` made of the image -> the same shape."""
        return nn.functional.silu(self.join(features + edges))
