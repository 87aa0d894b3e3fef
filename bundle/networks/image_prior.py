"""Image prior: the pyramid features of the image alone, by a Pyramid Vision Transformer v2.

Wang et al., 'PVT v2: Improved Baselines with Pyramid Vision Transformer' (2022). The layers are those of
`transformers.PvtV2Backbone` (Apache-2.0), so the weights published as OpenGVLab/pvt_v2_b0 to _b5 fit as they
are. The prior sees neither noise nor time: it runs once an image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PvtV2Backbone, PvtV2Config

from bundle.networks.pretrained import load_pretrained

_B2_ON: dict[str, list[int]] = {
    "hidden_sizes": [64, 128, 320, 512],
    "num_attention_heads": [1, 2, 5, 8],
    "sr_ratios": [8, 4, 2, 1],
}
#: Table 1 of the paper.
PVT_V2_VARIANTS: dict[str, dict[str, list[int]]] = {
    "b0": {**_B2_ON, "hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2], "mlp_ratios": [8, 8, 4, 4]},
    "b1": {**_B2_ON, "depths": [2, 2, 2, 2], "mlp_ratios": [8, 8, 4, 4]},
    "b2": {**_B2_ON, "depths": [3, 4, 6, 3], "mlp_ratios": [8, 8, 4, 4]},
    "b3": {**_B2_ON, "depths": [3, 4, 18, 3], "mlp_ratios": [8, 8, 4, 4]},
    "b4": {**_B2_ON, "depths": [3, 8, 27, 3], "mlp_ratios": [8, 8, 4, 4]},
    "b5": {**_B2_ON, "depths": [3, 6, 40, 3], "mlp_ratios": [4, 4, 4, 4]},
}
#: Of the images, scaled to [0, 1], that the published weights were trained on.
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_STAGES = ["stage1", "stage2", "stage3", "stage4"]


class PvtV2Prior(nn.Module):
    """Pyramid features at strides 4, 8, 16 and 32.

    Args:
        variant: 'b0' to 'b5'.
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
        self.backbone = (
            PvtV2Backbone(PvtV2Config(**settings))
            if pretrained is None
            else load_pretrained(PvtV2Backbone, pretrained, "PVT v2", **settings)
        )
        mean, deviation = ((0.0,), (1.0,)) if pretrained is None else (_IMAGENET_MEAN, _IMAGENET_DEVIATION)
        # buffers, so that weights keep what they were trained with
        self.register_buffer("mean", torch.tensor(mean).expand(in_channels).clone().view(-1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).expand(in_channels).clone().view(-1, 1, 1))
        self.channels: tuple[int, ...] = tuple(PVT_V2_VARIANTS[variant]["hidden_sizes"])

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, H, W) in [0, 1] -> four maps (B, channels[i], H / 2^(i+2), W / 2^(i+2)), finest first."""
        return list(self.backbone((image - self.mean) / self.deviation).feature_maps)
