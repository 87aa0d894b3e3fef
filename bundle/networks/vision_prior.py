"""Vision prior: tokens of the image, global one first, by the image half of CLIP.

Radford et al., 'Learning Transferable Visual Models From Natural Language Supervision' (2021), with the layers of
transformers (Apache-2.0), so that published weights fit as they are. It is frozen and sees neither noise nor text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from bundle.networks.frozen import Frozen
from bundle.networks.pretrained import load_pretrained
from bundle.root import MODELS

#: The encoder that comes with the bundle.
EMBEDDED = MODELS / "vision_prior"
#: Radford et al., table 20; 'compact' is the embedded encoder's.
VISION_LAYOUTS: dict[str, dict[str, int]] = {
    "clip_vit_b32": {"patch_size": 32},
    "clip_vit_b16": {"patch_size": 16},
    "compact": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 128,
        "patch_size": 16,
    },
}
#: Of the images, scaled to [0, 1], that CLIP was trained on.
CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class VisionPrior(nn.Module):
    """Image tokens by a frozen CLIP encoder.

    Args:
        source: folder or hub name, e.g. 'openai/clip-vit-base-patch32'; None takes the encoder that comes with
            the bundle.
        layout: a key of `VISION_LAYOUTS`, in place of `source`: random weights.

    Attributes:
        width: of a token.

    Raises:
        FileNotFoundError: `source` looks like a path and there is no such folder.
        WeightsError: the folder's weights are incomplete or of another architecture.
    """

    def __init__(self, source: str | Path | None = None, layout: str | None = None) -> None:
        super().__init__()
        if layout is not None:
            if source is not None:
                raise ValueError("the vision prior takes a source or a layout, not both")
            model: nn.Module = CLIPVisionModel(vision_config(layout))
        else:
            model = load_pretrained(
                CLIPVisionModel, EMBEDDED if source is None else source, "CLIP image encoder"
            )
        config: Any = model.config
        self.encoder = Frozen(model, "image encoder")
        self.width = int(config.hidden_size)
        self.image_size = int(config.image_size)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 1 + patches, width), the global token first."""
        size = (self.image_size, self.image_size)
        if image.shape[-2:] != size:
            image = nn.functional.interpolate(
                image, size=size, mode="bilinear", align_corners=False, antialias=True
            )
        # the same in a training in reduced precision as at inference
        with torch.autocast(image.device.type, enabled=False):
            return self.encoder(pixel_values=clip_normalised(image.float())).last_hidden_state


def clip_normalised(image: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> as CLIP's training images were."""
    mean, deviation = (image.new_tensor(values).view(-1, 1, 1) for values in (CLIP_MEAN, CLIP_DEVIATION))
    return (image - mean) / deviation


def vision_config(layout: str) -> CLIPVisionConfig:
    """The configuration of a layout.

    Raises:
        ValueError: no such layout.
    """
    if layout not in VISION_LAYOUTS:
        raise ValueError(
            f"layout of the vision prior must be one of {', '.join(VISION_LAYOUTS)}, not {layout!r}"
        )
    return CLIPVisionConfig(**VISION_LAYOUTS[layout])
