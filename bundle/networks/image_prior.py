"""Image prior: the pyramid features of the image alone, by a Pyramid Vision Transformer v2.

Wang et al., 'PVT v2: Improved Baselines with Pyramid Vision Transformer' (2022). The layers are those of
`transformers.PvtV2Backbone` (Apache-2.0), so the weights published as OpenGVLab/pvt_v2_b0 to _b5 fit as they
are. The prior sees neither noise nor time: it runs once an image.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PvtV2Backbone, PvtV2Config

from bundle.networks.pretrained import load_pretrained, quiet_transformers, unreadable

_B2_ON: dict[str, list[int]] = {
    "hidden_sizes": [64, 128, 320, 512],
    "num_attention_heads": [1, 2, 5, 8],
    "sr_ratios": [8, 4, 2, 1],
}
#: Table 1 of the paper, and before it B0 with half the width in the feed-forward layers of its two finest stages,
#: which cost most and for which there are no published weights to fit.
PVT_V2_VARIANTS: dict[str, dict[str, list[int]]] = {
    "b0_slim": {
        **_B2_ON,
        "hidden_sizes": [32, 64, 160, 256],
        "depths": [2, 2, 2, 2],
        "mlp_ratios": [4, 4, 4, 4],
    },
    "b0": {**_B2_ON, "hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2], "mlp_ratios": [8, 8, 4, 4]},
    "b1": {**_B2_ON, "depths": [2, 2, 2, 2], "mlp_ratios": [8, 8, 4, 4]},
    "b2": {**_B2_ON, "depths": [3, 4, 6, 3], "mlp_ratios": [8, 8, 4, 4]},
    "b3": {**_B2_ON, "depths": [3, 4, 18, 3], "mlp_ratios": [8, 8, 4, 4]},
    "b4": {**_B2_ON, "depths": [3, 8, 27, 3], "mlp_ratios": [8, 8, 4, 4]},
    "b5": {**_B2_ON, "depths": [3, 6, 40, 3], "mlp_ratios": [4, 4, 4, 4]},
}
#: Of the images, scaled to [0, 1], that the published weights were trained on.
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PREPROCESSOR = "preprocessor_config.json"
_STAGES = ["stage1", "stage2", "stage3", "stage4"]


class PvtV2Prior(nn.Module):
    """Pyramid features at strides 4, 8, 16 and 32.

    Args:
        variant: 'b0' to 'b5', or 'b0_slim'.
        in_channels: 3 for published weights.
        pretrained: folder or hub name of published weights, e.g. 'OpenGVLab/pvt_v2_b1'; None starts from
            random weights.
        drop_path_rate: stochastic depth while training.

    Attributes:
        channels: widths of the four maps.
        mean, deviation: what the image is normalised with; ImageNet's for published weights.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        variant: str = "b1",
        in_channels: int = 3,
        pretrained: str | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if variant not in PVT_V2_VARIANTS:
            raise ValueError(f"PVT v2 variant must be one of {', '.join(PVT_V2_VARIANTS)}, not {variant!r}")
        settings: dict[str, Any] = {
            **PVT_V2_VARIANTS[variant],
            "num_channels": in_channels,
            "drop_path_rate": drop_path_rate,
            "out_features": _STAGES,
        }
        self.backbone: PvtV2Backbone
        mean: Sequence[float] = (0.0,)
        deviation: Sequence[float] = (1.0,)
        if pretrained is None:
            self.backbone = PvtV2Backbone(PvtV2Config(**settings))
        else:
            self.backbone = load_pretrained(PvtV2Backbone, pretrained, "PVT v2", **settings)  # type: ignore[assignment]
            mean, deviation = _normalisation(pretrained)
        # buffers, so that weights keep what they were trained with
        self.register_buffer("mean", torch.tensor(mean).expand(in_channels).clone().view(-1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).expand(in_channels).clone().view(-1, 1, 1))
        self.channels: tuple[int, ...] = tuple(PVT_V2_VARIANTS[variant]["hidden_sizes"])

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, H, W) in [0, 1] -> four maps (B, channels[i], H / 2^(i+2), W / 2^(i+2)), finest first."""
        return list(self.backbone((image - self.mean) / self.deviation).feature_maps)

    def save(self, folder: str | Path) -> None:
        """Write a folder that `pretrained` takes, in half precision."""
        whole = deepcopy(self.backbone).half()
        with quiet_transformers():
            whole.save_pretrained(folder)
        values = {"image_mean": self.mean.flatten().tolist(), "image_std": self.deviation.flatten().tolist()}
        (Path(folder) / _PREPROCESSOR).write_text(json.dumps(values) + "\n", encoding="utf-8")


def _normalisation(source: str) -> tuple[list[float], list[float]]:
    """What a folder says that its weights were trained with; ImageNet's where it says nothing."""
    path = Path(source).expanduser() / _PREPROCESSOR
    if not path.is_file():
        return list(_IMAGENET_MEAN), list(_IMAGENET_DEVIATION)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        mean, deviation = ([float(value) for value in values[key]] for key in ("image_mean", "image_std"))
        if not min(deviation) > 0.0:
            raise ValueError("image_std must be above 0")
        if not len(mean) == len(deviation) == 3:
            raise ValueError("image_mean and image_std need three values")
    except (ValueError, TypeError, KeyError) as error:
        raise unreadable(source, "PVT v2", _PREPROCESSOR, error) from error
    return mean, deviation
