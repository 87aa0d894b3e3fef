"""Pretraining of the small CLIP image encoder on images alone: two views of one image lie together.

CLIP's contrast is between images and their texts (Radford et al. 2021); texts of the training cases are kept out
here, because they describe the masks. The contrast is between views, as in Chen et al., 'A Simple Framework for
Contrastive Learning of Visual Representations' (2020), with their loss NT-Xent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel

from bundle.networks.vision_prior import clip_normalised, vision_config
from bundle.worker_items import unpacked


class ViewEncoder(nn.Module):
    """CLIP's image encoder with a projection that is thrown away after pretraining.

    Args:
        layout: of the encoder, see `bundle.networks.VISION_LAYOUTS`.
        width: of the projection.
    """

    def __init__(self, layout: str = "compact", width: int = 64) -> None:
        super().__init__()
        self.layout = layout
        self.encoder = CLIPVisionModel(vision_config(layout))
        hidden = int(self.encoder.config.hidden_size)
        self.projection = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], of the layout's size -> (B, width) of length 1."""
        tokens = self.encoder(pixel_values=clip_normalised(image)).last_hidden_state
        # patches too, not the global token alone: LCPDN's prompt attends to all of them
        return nn.functional.normalize(self.projection(tokens.mean(dim=1)), dim=1)

    def save_encoder(self, folder: Path | str) -> None:
        """Write the encoder as `VisionPrior` reads it, in half precision."""
        encoder = CLIPVisionModel(vision_config(self.layout))
        encoder.load_state_dict(self.encoder.state_dict())
        encoder.half().save_pretrained(folder)


def prepare_views(
    batch: Mapping[str, Tensor] | bytes,
    device: torch.device | str | None,
    non_blocking: bool = False,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """For MONAI's SupervisedTrainer: both views of every image, and where the other view of each is."""
    both = unpacked(batch)
    views = torch.cat([both["image"], both["other"]]).to(device, non_blocking=non_blocking)
    return views, torch.arange(len(views), device=views.device).roll(len(views) // 2)


class ViewContrast(nn.Module):
    """NT-Xent (Chen et al. 2020, eq. 1): cross-entropy of finding the other view among all others in the batch.

    Args:
        temperature: of the softmax.
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, embedding: Tensor, other: Tensor) -> Tensor:
        """(2B, width) of length 1, (2B,) index of each one's other view -> scalar."""
        similarity = embedding @ embedding.T / self.temperature
        itself = torch.eye(len(embedding), dtype=torch.bool, device=embedding.device)
        return nn.functional.cross_entropy(similarity.masked_fill(itself, float("-inf")), other)
