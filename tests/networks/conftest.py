"""Networks that are small enough for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bundle.diffusion.sampling import Sampling
from bundle.networks import DiffusionSegmenter, MaskDenoiser


class SmallPrior(nn.Module):
    """Four strided convolutions with PVT's strides."""

    channels = (8, 8, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *self.channels)
        self.stages = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, stride=4 if i == 0 else 2, padding=1) for i in range(4)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            image = stage(image).tanh()
            maps.append(image)
        return maps


def _make(sampling: Sampling | None = None, classes: int = 4, **settings: Any) -> DiffusionSegmenter:
    """A segmenter of width 16 with weights that are the same every time."""
    torch.manual_seed(0)
    prior = settings.pop("image_prior", None) or SmallPrior()
    denoiser = MaskDenoiser(classes, prior.channels, width=16, upsample_widths=(16, 8), **settings)
    return DiffusionSegmenter(prior, denoiser, sampling=sampling).eval()


@pytest.fixture
def make_segmenter() -> Callable[..., DiffusionSegmenter]:
    return _make


@pytest.fixture(scope="session")
def small_prior() -> type[nn.Module]:
    return SmallPrior


@pytest.fixture
def images() -> Tensor:
    return torch.rand((4, 3, 64, 64), generator=torch.Generator().manual_seed(1))
