"""How the image prior meets the noisy mask in the denoiser: MedCondDiff's PVT-Ac, PVT-Cc and neither."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

FusionName = Literal["additive", "concatenation", "none"]


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
