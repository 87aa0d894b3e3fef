"""Image prior: a Pyramid Vision Transformer v2 that inherits the sight of EfficientNet-Lite.

The convolutional stages of EfficientNet-Lite0 (see `bundle.networks.efficientnet_lite`), which know ImageNet, stand for
the two finest stages of the PVT, where a transformer is expensive and sees edges and textures, as a convolution does.
The two coarser stages are those of PVT v2 (Wang et al. 2022), where attention relates distant parts of the image. There
the convolutions' own maps at strides 16 and 32 are added to what each stage begins with. A transformer behind
convolutions learns faster and from less data: Xiao et al., 'Early Convolutions Help Transformers See Better' (2021).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from transformers import PvtV2Backbone, PvtV2Config

from bundle.networks.efficientnet_lite import EfficientNetLitePrior
from bundle.networks.image_prior import PVT_V2_VARIANTS

#: What the values of Lite's maps of photographs deviate by: projections begin with inputs of one size.
LITE_SPREADS = (14.0, 8.0, 4.0, 1.7)


class PvtOnLitePrior(nn.Module):
    """Pyramid features at strides 4, 8, 16 and 32: EfficientNet-Lite's, brought to the PVT's widths, then PVT stages.

    Args:
        variant: of the PVT, 'b0' to 'b5', of which stages 3 and 4 are used.
        pretrained: weights of EfficientNet-Lite0, see `EfficientNetLitePrior`; None starts from random ones.
        drop_path_rate: stochastic depth of the PVT's stages while training.

    Attributes:
        channels: widths of the four maps.
    """

    def __init__(
        self, variant: str = "b0", pretrained: str | Path | None = None, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        settings: dict[str, Any] = PVT_V2_VARIANTS[variant]
        layers = PvtV2Backbone(PvtV2Config(**settings, drop_path_rate=drop_path_rate)).encoder.layers
        # named as in `PvtV2Prior`, whose weights of these stages fit
        self.backbone = nn.ModuleDict(
            {"encoder": nn.ModuleDict({"layers": nn.ModuleDict({"2": layers[2], "3": layers[3]})})}
        )
        self.channels: tuple[int, ...] = tuple(settings["hidden_sizes"])
        self.lite = EfficientNetLitePrior(pretrained)
        self.join = nn.ModuleList(
            nn.Conv2d(*widths, 1) for widths in zip(self.lite.channels, self.channels, strict=True)
        )
        for projection, spread in zip(self.join, LITE_SPREADS, strict=True):
            nn.init.kaiming_uniform_(cast(nn.Conv2d, projection).weight, a=5**0.5 * spread)

    @property
    def layers(self) -> list[Any]:
        """The PVT's stages 3 and 4."""
        encoder = cast(nn.ModuleDict, self.backbone["encoder"])
        return list(cast(nn.ModuleDict, encoder["layers"]).values())

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> four maps (B, channels[i], H / 2^(i+2), W / 2^(i+2)), finest first."""
        maps = [project(features) for project, features in zip(self.join, self.lite(image), strict=True)]
        for scale, layer in enumerate(self.layers, start=2):
            maps[scale] = _stage(layer, maps[scale - 1], maps[scale])
        return maps


def _stage(layer: Any, finer: Tensor, beside: Tensor) -> Tensor:
    """A stage of the PVT on the map before it, with (B, C, H, W) of its own size added to its embedded patches."""
    tokens, height, width = layer.patch_embedding(finer)
    tokens = tokens + beside.flatten(2).transpose(1, 2)
    for block in layer.blocks:
        tokens = block(tokens, height, width)[0]
    return layer.layer_norm(tokens).transpose(1, 2).unflatten(2, (height, width)).contiguous()
