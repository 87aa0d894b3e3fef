"""Pretraining of the image prior on images alone: it learns to tell what is hidden behind random squares.

Xie et al., 'SimMIM: A Simple Framework for Masked Image Modeling' (2022): hidden squares become one learned colour
before the encoder, their pixels are predicted by a light head, and the L1 loss is taken over them alone. The head here
reads the whole pyramid, so that every stage learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from bundle.networks.blocks import PyramidNeck
from bundle.networks.image_prior import PvtV2Prior
from bundle.worker_items import unpacked


class Restored(NamedTuple):
    """Attributes: image (B, 3, H, W) as predicted; hidden (B, 1, H, W) bool, where it was."""

    image: Tensor
    hidden: Tensor


class MaskedImageModel(nn.Module):
    """The image prior with a head that is thrown away after pretraining.

    Args:
        image_prior: to be trained.
        width: of the head's map at stride 4.
    """

    def __init__(self, image_prior: PvtV2Prior, width: int = 64) -> None:
        super().__init__()
        self.image_prior = image_prior
        self.colour = nn.Parameter(torch.full((3, 1, 1), 0.5))
        self.neck = PyramidNeck(image_prior.channels, width)
        self.head = nn.Sequential(nn.SiLU(), nn.Conv2d(width, 4 * 4 * 3, 1), nn.PixelShuffle(4))

    def forward(self, image: Tensor, hidden: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] and (B, 1, H, W) bool -> (B, 3, H, W)."""
        seen = torch.where(hidden, self.colour.to(image), image)
        restored: Tensor = self.head(self.neck(self.image_prior(seen)))
        return restored


class MaskedImageInferer(Inferer):
    """Hides squares and restores them; MONAI's SupervisedTrainer calls it as its inferer.

    Args:
        bfloat16: run the network in bfloat16 where that is faster; loss and weights stay float32.
        side: of the squares in pixels.
        share: of the squares that are hidden.
    """

    def __init__(self, bfloat16: bool = False, side: int = 16, share: float = 0.6) -> None:
        if not 0.0 < share < 1.0:
            raise ValueError(f"hidden_share must lie between 0 and 1, not {share}")
        if side < 1:
            raise ValueError(f"hidden_side must be at least 1, not {side}")
        self.bfloat16 = bfloat16
        self.side = side
        self.share = share

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Restored:
        """(B, 3, H, W) images in [0, 1] -> what they were restored to."""
        hidden = hidden_squares(inputs.shape, self.side, self.share).to(inputs.device)
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            image = network(inputs, hidden)
        return Restored(image.float(), hidden)


def hidden_squares(shape: torch.Size, side: int, share: float) -> Tensor:
    """Exactly `share`, rounded, of the squares of each image, at least one, drawn anew: (B, 1, H, W) bool."""
    rows, columns = -(-shape[-2] // side), -(-shape[-1] // side)
    order = torch.rand(shape[0], rows * columns).argsort(dim=1)
    chosen = (order < max(1, round(share * rows * columns))).view(-1, 1, rows, columns)
    pixels = chosen.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
    return pixels[..., : shape[-2], : shape[-1]]


class MaskedImageLoss(nn.Module):
    """Mean absolute difference where the image was hidden."""

    def forward(self, restored: Restored, image: Tensor) -> Tensor:
        """Restored and true (B, 3, H, W) -> scalar."""
        hidden = restored.hidden.expand_as(image)
        return (restored.image - image)[hidden].abs().mean()


def prepare_masked_batch(
    batch: Mapping[str, Tensor] | bytes,
    device: torch.device | str | None,
    non_blocking: bool = False,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """For MONAI's SupervisedTrainer: images, which are their own target."""
    image = unpacked(batch)["image"].to(device, non_blocking=non_blocking)
    image = image.contiguous(memory_format=torch.channels_last)
    return image, image
