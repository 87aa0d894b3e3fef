"""Vision prior: tokens of the image, global one first, by the image half of CLIP.

Radford et al., 'Learning Transferable Visual Models From Natural Language Supervision' (2021), with the layers of
transformers (Apache-2.0), so that published weights fit as they are. It is frozen and sees neither noise nor text.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from bundle.networks.frozen import Frozen
from bundle.networks.weights import WeightsError

#: The encoder that comes with the bundle.
EMBEDDED = Path(__file__).parents[2] / "models" / "vision_prior"
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

    mean: Tensor
    deviation: Tensor

    def __init__(self, source: str | Path | None = None, layout: str | None = None) -> None:
        super().__init__()
        if layout is not None:
            if source is not None:
                raise ValueError("the vision prior takes a source or a layout, not both")
            model = CLIPVisionModel(vision_config(layout))
        else:
            model = _load(EMBEDDED if source is None else source)
        config = model.config
        self.encoder = Frozen(model, "image encoder")
        self.width = int(config.hidden_size)
        self.image_size = int(config.image_size)
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(-1, 1, 1))
        self.register_buffer("deviation", torch.tensor(CLIP_DEVIATION).view(-1, 1, 1))

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 1 + patches, width), the global token first."""
        return self.encoder(pixel_values=self.prepare(image)).last_hidden_state

    def prepare(self, image: Tensor) -> Tensor:
        """Resized to the encoder's square and normalised as CLIP's training images were."""
        size = (self.image_size, self.image_size)
        if image.shape[-2:] != size:
            image = nn.functional.interpolate(
                image, size=size, mode="bilinear", align_corners=False, antialias=True
            )
        return (image - self.mean) / self.deviation


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


def _load(source: str | Path) -> CLIPVisionModel:
    path = Path(source).expanduser()
    # transformers calls a missing folder a malformed hub name
    if not path.is_dir() and (isinstance(source, Path) or source.startswith((".", "/", "~"))):
        raise FileNotFoundError(
            f"{source}: no such folder with a CLIP image encoder; give one or a hub name."
        )
    try:
        model, found = CLIPVisionModel.from_pretrained(
            str(path) if path.is_dir() else source,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=path.is_dir(),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # of a dozen kinds
        raise WeightsError(
            f"{source}: is no CLIP image encoder that can be read; it needs config.json and model.safetensors."
        ) from error
    # transformers only warns of tensors that are missing or of another shape, and leaves them random
    unfit = sorted([*found["missing_keys"], *(mismatch[0] for mismatch in found["mismatched_keys"])])
    if unfit:
        raise WeightsError(
            f"{source}: {len(unfit)} tensors are missing or of another shape, first {unfit[0]}; "
            "give the weights of a CLIP image encoder."
        )
    return model
