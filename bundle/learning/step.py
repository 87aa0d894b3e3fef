"""The training steps: noise the true mask and predict it clean, or classify pixels directly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from bundle.diffusion.schedule import noised
from bundle.learning.losses import MaskTarget


class NoisedMaskInferer(Inferer):
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

    def __call__(
        self,
        inputs: Tensor | Sequence[Tensor],
        network: nn.Module,
        *args: Any,
        target: MaskTarget | None = None,
        noise: Tensor | None = None,
        prompts: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        parts: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Predict the clean mask.

        Args:
            inputs: (B, 3, H, W) images, or several batches of them, one a size.
            network: see `bundle.networks.protocol.Segmenter`; it has a `schedule` besides.
            target: the truth.
            noise: (B, K, H / mask_stride, W / mask_stride) standard normal.
            prompts: a text an image.
            texts: further texts that the network shall tell the names in.
            parts: target, noise, prompts and texts of each of several batches.

        Returns:
            (B, K, H, W) logits, or `MaskAndNaming` of networks that name structures; of several batches a list.

        Raises:
            ValueError: no noise.
        """
        if parts is not None:
            return [self(images, network, **needed) for images, needed in zip(inputs, parts, strict=True)]
        assert isinstance(inputs, Tensor) and target is not None
        if noise is None:
            raise ValueError(
                "draw_noise: the training images hold no noise, which this network needs; set it to true"
            )
        segmenter: Any = getattr(network, "module", network)  # DistributedDataParallel wraps it
        batch = len(inputs)
        offset = torch.rand(1, device=inputs.device)
        times = (offset + torch.arange(batch, device=inputs.device) / batch) % 1.0
        times = times / (1.0 - self.pure_noise_share)
        # where sampling starts, and not the end of the schedule, which no sampler may reach
        start = segmenter.sampling.log_snrs(segmenter.schedule)[0].to(times)
        log_snr = torch.where(times > 1.0, start, segmenter.schedule(times.clamp_max(1.0)))
        x_0 = target.scaled_one_hot(segmenter.mask_stride)
        x_t = noised(x_0, noise, log_snr)
        further = {"texts": texts} if texts and segmenter.learns_names else {}
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            return network(inputs, prompts=prompts, noisy=(x_t, log_snr), possible=target.possible, **further)


class LogitsInferer(Inferer):
    """The training step of networks that classify pixels directly, without denoising a mask.

    Args:
        bfloat16: run the network in bfloat16 where that is faster; loss and weights stay float32.
    """

    def __init__(self, bfloat16: bool = False) -> None:
        self.bfloat16 = bfloat16

    def __call__(
        self,
        inputs: Tensor | Sequence[Tensor],
        network: nn.Module,
        *args: Any,
        target: MaskTarget | None = None,
        prompts: Sequence[str] | None = None,
        parts: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """(B, 3, H, W) images with a text each -> (B, K, H, W) float32 logits; of several batches a list."""
        if parts is not None:
            return [self(images, network, **needed) for images, needed in zip(inputs, parts, strict=True)]
        assert isinstance(inputs, Tensor) and target is not None
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            logits: Tensor = network(inputs, prompts=prompts, possible=target.possible, logits=True)
        return logits.float()
