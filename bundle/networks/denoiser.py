"""Mask denoiser at stride 4: predicts the clean mask x_0 from a noisy one and the image prior.

MedCondDiff (arXiv 2512.00350), its UNet decoder: projections of the four prior maps, joined from coarse to
fine; a strided 7x7 branch for the noisy mask; fusion; two pixel-shuffle upsamplings; 1x1 head. Everything
that depends on the image alone is worked out by `prepare`, once; `forward` is what a step costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bundle.networks.blocks import LogSnrEmbedding, PixelShuffleUpsample, PyramidNeck, ResidualBlock
from bundle.networks.fusion import FusionName, build_fusion

TimeConditioning = Literal["pyramid", "mask"]


class MaskDenoiser(nn.Module):
    """Predicts logits of the clean mask.

    Args:
        classes: channels of the mask, background included.
        prior_channels: widths of the prior's maps, finest (stride 4) first.
        image_channels: of the image, which enters beside the noisy mask where there is no prior.
        width: of the maps at stride 4.
        upsample_widths: of the maps at strides 2 and 1.
        fusion: 'additive', 'concatenation' or 'none'.
        time_conditioning: where the noise level enters. 'pyramid': every map of the prior and the mask's
            branch, as published; the joining of the pyramid then runs at every step. 'mask': the mask's
            branch alone; all that the prior needs is then done once an image.
    """

    def __init__(
        self,
        classes: int,
        prior_channels: Sequence[int],
        image_channels: int = 3,
        width: int = 256,
        upsample_widths: tuple[int, int] = (256, 256),
        fusion: FusionName = "additive",
        time_conditioning: TimeConditioning = "pyramid",
    ) -> None:
        super().__init__()
        if time_conditioning not in get_args(TimeConditioning):
            raise ValueError(f"time_conditioning must be 'pyramid' or 'mask', not {time_conditioning!r}")
        self.classes = classes
        self.fusion = build_fusion(fusion, width)
        embedding = 4 * width
        self.time = LogSnrEmbedding(width, embedding, embedding)
        inputs = classes if self.fusion is not None else classes + image_channels
        self.mask_stem = nn.Conv2d(inputs, width, 7, stride=4, padding=3)
        self.mask_block = ResidualBlock(width, embedding)
        self.neck: PyramidNeck | None = None
        self.pyramid_time: nn.ModuleList | None = None
        if self.fusion is not None:
            self.neck = PyramidNeck(prior_channels, width)
            if time_conditioning == "pyramid":
                self.pyramid_time = nn.ModuleList(LogSnrEmbedding(c, 4 * c, c) for c in prior_channels)
        self.joint_block = ResidualBlock(width, embedding)
        self.upsample = nn.Sequential(
            PixelShuffleUpsample(width, upsample_widths[0]),
            PixelShuffleUpsample(upsample_widths[0], upsample_widths[1]),
        )
        self.head = nn.Conv2d(upsample_widths[1], classes, 1)

    @property
    def needs_prior(self) -> bool:
        return self.fusion is not None

    def prepare(self, image: Tensor, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Do once what no step changes.

        Args:
            image: (B, C, H, W).
            pyramid: the prior's maps; unused without fusion.

        Returns:
            what `forward` takes as its condition, batch first.
        """
        if self.neck is None:
            return [image]
        return [self.neck(pyramid)] if self.pyramid_time is None else list(pyramid)

    def forward(self, x_t: Tensor, log_snr: Tensor, condition: Sequence[Tensor]) -> Tensor:
        """(B, classes, H, W) noisy mask, (B,) log-SNR, `prepare`'s result -> (B, classes, H, W) logits."""
        embedding = self.time(log_snr)
        if self.fusion is None:
            joint = self.mask_block(self.mask_stem(torch.cat([x_t, condition[0]], dim=1)), embedding)
        else:
            mask_features = self.mask_block(self.mask_stem(x_t), embedding)
            joint = self.fusion(mask_features, self._joined_prior(log_snr, condition))
        return self.head(self.upsample(self.joint_block(joint, embedding)))

    def _joined_prior(self, log_snr: Tensor, condition: Sequence[Tensor]) -> Tensor:
        if self.pyramid_time is None or self.neck is None:
            return condition[0]
        timed = [
            features + time(log_snr)[:, :, None, None]
            for features, time in zip(condition, self.pyramid_time, strict=True)
        ]
        return self.neck(timed)
