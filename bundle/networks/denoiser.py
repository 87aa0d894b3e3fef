"""Mask denoiser at stride 4: predicts the clean mask x_0 from a noisy one and the image prior.

MedCondDiff (arXiv 2512.00350), its UNet decoder: projections of the four prior maps, joined from coarse to
fine; a strided 7x7 branch for the noisy mask; fusion; two pixel-shuffle upsamplings; 1x1 head. Everything
that depends on the image alone is worked out by `prepare`, once; `forward` is what a step costs.

Beyond the paper, each one value away: the noisy mask at stride 4 (`mask_stride`), where the denoiser works anyway, and
the image's own edges in the upsamplings (`detail`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bundle.networks.blocks import (
    ImageDetail,
    LogSnrEmbedding,
    PixelShuffleUpsample,
    PyramidNeck,
    ResidualBlock,
)
from bundle.networks.fusion import FusionName, build_fusion

TimeConditioning = Literal["pyramid", "mask"]
_STRIDE = 4  # of the prior's finest map, where the denoiser works


class MaskDenoiser(nn.Module):
    """Predicts logits of the clean mask.

    Args:
        classes: channels of the mask, background included.
        prior_channels: widths of the prior's maps, finest (stride 4) first.
        image_channels: of the image, which enters beside the noisy mask where there is no prior.
        width: of the maps at stride 4.
        upsample_widths: of the maps at strides 2 and 1; of the first alone, the head brings its logits to stride 1.
        fusion: 'additive', 'concatenation' or 'none'.
        time_conditioning: where the noise level enters. 'pyramid': every map of the prior and the mask's
            branch, as published; the joining of the pyramid then runs at every step. 'mask': the mask's
            branch alone; all that the prior needs is then done once an image.
        mask_stride: of the noisy mask. 1 as published; at 4 noise and steps cost a sixteenth, and the predicted mask
            is as fine as ever.
        detail: bring the image into the map at stride 2, see `ImageDetail`.

    Raises:
        ValueError: an unknown name, a mask stride other than 1 and 4, no or more than two upsamplings, or detail or
            stride 4 without a prior.
    """

    def __init__(
        self,
        classes: int,
        prior_channels: Sequence[int],
        image_channels: int = 3,
        width: int = 256,
        upsample_widths: Sequence[int] = (256, 256),
        fusion: FusionName = "additive",
        time_conditioning: TimeConditioning = "pyramid",
        mask_stride: int = 1,
        detail: bool = False,
    ) -> None:
        super().__init__()
        if time_conditioning not in get_args(TimeConditioning):
            raise ValueError(f"time_conditioning must be 'pyramid' or 'mask', not {time_conditioning!r}")
        if len(upsample_widths) not in (1, 2):
            raise ValueError(f"upsample_widths must be one or two numbers, not {list(upsample_widths)}")
        if mask_stride not in (1, _STRIDE):
            raise ValueError(f"mask_stride must be 1 or {_STRIDE}, not {mask_stride!r}")
        self.classes = classes
        self.mask_stride = mask_stride
        self.fusion = build_fusion(fusion, width)
        if self.fusion is None and (detail or mask_stride != 1):
            raise ValueError(
                "fusion 'none' takes the image beside the noisy mask: mask_stride 1 and no detail"
            )
        embedding = 4 * width
        self.time = LogSnrEmbedding(width, embedding, embedding)
        inputs = classes if self.fusion is not None else classes + image_channels
        self.mask_stem = (
            nn.Conv2d(inputs, width, 7, stride=_STRIDE, padding=3)
            if mask_stride == 1
            else nn.Conv2d(inputs, width, 3, padding=1)
        )
        self.mask_block = ResidualBlock(width, embedding)
        self.neck: PyramidNeck | None = None
        self.pyramid_time: nn.ModuleList | None = None
        if self.fusion is not None:
            self.neck = PyramidNeck(prior_channels, width)
            if time_conditioning == "pyramid":
                self.pyramid_time = nn.ModuleList(LogSnrEmbedding(c, 4 * c, c) for c in prior_channels)
        self.joint_block = ResidualBlock(width, embedding)
        self.upsample = nn.Sequential(
            *(
                PixelShuffleUpsample(*pair)
                for pair in zip([width, *upsample_widths], upsample_widths, strict=False)
            )
        )
        self.detail = ImageDetail(image_channels, upsample_widths[0]) if detail else None
        left = _STRIDE // 2 ** len(upsample_widths)
        head = nn.Conv2d(upsample_widths[-1], left**2 * classes, 1)
        self.head = head if left == 1 else nn.Sequential(head, nn.PixelShuffle(left))

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
        prior = [self.neck(pyramid)] if self.pyramid_time is None else list(pyramid)
        return prior if self.detail is None else [*prior, self.detail.read(image)]

    def forward(self, x_t: Tensor, log_snr: Tensor, condition: Sequence[Tensor]) -> Tensor:
        """(B, classes, H / mask_stride, W / mask_stride), (B,) log-SNR, `prepare`'s -> (B, classes, H, W) logits."""
        embedding = self.time(log_snr)
        if self.fusion is None:
            joint = self.mask_block(self.mask_stem(torch.cat([x_t, condition[0]], dim=1)), embedding)
        else:
            mask_features = self.mask_block(self.mask_stem(x_t), embedding)
            joint = self.fusion(mask_features, self._joined_prior(log_snr, condition))
        features = self.joint_block(joint, embedding)
        if self.detail is not None:
            features = self.upsample[1:](self.detail(self.upsample[0](features), condition[-1]))
        else:
            features = self.upsample(features)
        return self.head(features)

    def _joined_prior(self, log_snr: Tensor, condition: Sequence[Tensor]) -> Tensor:
        if self.pyramid_time is None or self.neck is None:
            return condition[0]
        timed = [
            features + time(log_snr)[:, :, None, None]
            for features, time in zip(condition, self.pyramid_time, strict=False)  # detail may follow
        ]
        return self.neck(timed)
