"""The training steps: noise the true mask and predict it clean, or classify pixels directly."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from bundle.diffusion.schedule import noised
from bundle.learning.losses import MaskTarget
from bundle.networks.segmenter import MaskAndNaming


class SizeBySize(Inferer):
    """A training step that takes images of several sizes in a batch for each, see `bundle.learning.by_size`."""

    def __call__(
        self,
        inputs: Tensor | Sequence[Tensor],
        network: nn.Module,
        *args: Any,
        parts: Sequence[Mapping[str, Any]] | None = None,
        **needed: Any,
    ) -> Any:
        """What `step` gives; of several batches a list.

        Args:
            inputs: (B, 3, H, W) images, or several batches of them.
            network: see `bundle.networks.protocol.Segmenter`.
            parts: what `step` needs for each of several batches.
            needed: what it needs for one.
        """
        if parts is None:
            return self.step(inputs, network, **needed)
        return [self.step(images, network, **part) for images, part in zip(inputs, parts, strict=True)]

    @abstractmethod
    def step(self, images: Any, network: nn.Module, **needed: Any) -> Any:
        """Predict for images of one size."""


class NoisedMaskInferer(SizeBySize):
    """Predict x_0 from a mask noised to a random time; MONAI's SupervisedTrainer calls it as its inferer.

    x_0 prediction on one-hot masks scaled to [-1, 1] (MedCondDiff, sec. 2). Times are spread evenly over a
    batch from one random offset, which lowers the variance of the loss (Kingma et al. 2021, sec. I.1).

    Args:
        bfloat16: run the network in bfloat16 where that is faster; loss and weights stay float32.
        pure_noise_share: of the times that are 1, where sampling starts and nothing of the mask is left to copy;
            the rest are spread as ever.
    """

    def __init__(self, bfloat16: bool = False, pure_noise_share: float = 0.0) -> None:
        if not 0.0 <= pure_noise_share < 1.0:
            raise ValueError(f"pure_noise_share must lie in [0, 1), not {pure_noise_share}")
        self.bfloat16 = bfloat16
        self.pure_noise_share = pure_noise_share

    def step(  # type: ignore[override]
        self,
        images: Tensor,
        network: nn.Module,
        *,
        target: MaskTarget,
        noise: Tensor | None = None,
        prompts: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
    ) -> Tensor | MaskAndNaming:
        """Predict the clean mask.

        Args:
            images: (B, 3, H, W).
            network: see `bundle.networks.protocol.Segmenter`; it has a `schedule` besides.
            target: the ground truth.
            noise: (B, K, H / mask_stride, W / mask_stride) standard normal.
            prompts: a text an image.
            texts: further texts that the network shall tell the names in.

        Returns:
            (B, K, H, W) logits, or `MaskAndNaming` of networks that name structures.

        Raises:
            ValueError: no noise.
        """
        if noise is None:
            raise ValueError(
                "draw_noise: the training images hold no noise, which this network needs; set it to true"
            )
        segmenter: Any = getattr(network, "module", network)  # DistributedDataParallel wraps it
        batch = len(images)
        offset = torch.rand(1, device=images.device)
        times = (offset + torch.arange(batch, device=images.device) / batch) % 1.0
        times = times / (1.0 - self.pure_noise_share)
        # where sampling starts, and not the end of the schedule, which no sampler may reach
        start = segmenter.sampling.log_snrs(segmenter.schedule)[0].to(times)
        log_snr = torch.where(times > 1.0, start, segmenter.schedule(times.clamp_max(1.0)))
        x_0 = target.scaled_one_hot(segmenter.mask_stride)
        x_t = noised(x_0, noise, log_snr)
        further = {"texts": texts} if texts and segmenter.learns_names else {}
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            return network(images, prompts=prompts, noisy=(x_t, log_snr), possible=target.possible, **further)


class LogitsInferer(SizeBySize):
    """The training step of networks that classify pixels directly, without denoising a mask.

    Args:
        bfloat16: run the network in bfloat16 where that is faster; loss and weights stay float32.
    """

    def __init__(self, bfloat16: bool = False) -> None:
        self.bfloat16 = bfloat16

    def step(  # type: ignore[override]
        self,
        images: Tensor,
        network: nn.Module,
        *,
        target: MaskTarget,
        prompts: Sequence[str] | None = None,
        **_: Any,
    ) -> Tensor:
        """(B, 3, H, W) images with a text each -> (B, K, H, W) float32 logits."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            logits: Tensor = network(images, prompts=prompts, possible=target.possible, logits=True)
        return logits.float()
