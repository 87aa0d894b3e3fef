"""Image prior: a whole Pyramid Vision Transformer v2 with EfficientNet-Lite beside it, joined by addition a scale.

Both see the image; what EfficientNet-Lite0 (see `bundle.networks.efficientnet_lite`) makes of it is brought to the
PVT's widths by projections that begin at zero. A PVT that was trained alone thus goes on from where it stood.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from bundle.networks.efficientnet_lite import EfficientNetLitePrior
from bundle.networks.image_prior import PvtV2Prior
from bundle.networks.pvt_on_lite import LITE_SPREADS


class PvtBesideLitePrior(PvtV2Prior):
    """Pyramid features at strides 4, 8, 16 and 32: the sum of a PVT's and of EfficientNet-Lite's, projected.

    Args:
        variant: of the PVT, see `PvtV2Prior`.
        pretrained: weights of EfficientNet-Lite0, see `EfficientNetLitePrior`; None starts from random ones.
        drop_path_rate: stochastic depth of the PVT while training.

    Attributes:
        channels: widths of the four maps.
    """

    def __init__(
        self, variant: str = "b0_slim", pretrained: str | Path | None = None, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__(variant, drop_path_rate=drop_path_rate)
        self.lite = EfficientNetLitePrior(pretrained)
        self.join = nn.ModuleList(
            nn.Conv2d(*widths, 1) for widths in zip(self.lite.channels, self.channels, strict=True)
        )
        for projection in self.join:
            for parameter in projection.parameters():
                nn.init.zeros_(parameter)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> four maps (B, channels[i], H / 2^(i+2), W / 2^(i+2)), finest first."""
        beside = self.lite(image)
        return [
            features + project(other / spread)
            for features, project, other, spread in zip(
                super().forward(image), self.join, beside, LITE_SPREADS, strict=True
            )
        ]
