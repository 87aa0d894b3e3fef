"""Pretraining of the image DDPM: images without their labels, and the step that predicts their noise.

Ho et al., 'Denoising Diffusion Probabilistic Models' (2020), algorithm 1, with the linear schedule that published
image DDPMs were trained with, so that features are read at the same timesteps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import Tensor, nn

from bundle.cases import CaseReference
from bundle.diffusion.schedule import DDPM_STEPS, linear_beta_log_snr, noised
from bundle.learning.drawing import DrawnImages, once_if_grey, vary
from bundle.transforms import RandByModalityd, reference_item
from bundle.worker_items import unpacked


class UnlabelledImages(DrawnImages):
    """Slices of volumes and 2-D images; labels are never read.

    What an epoch shows depends on (seed, epoch, position) alone.

    Args:
        groups: cases, a list for each datalist.
        preprocessing: see `bundle.transforms.preprocessing`; its result is kept in memory, in 8 bits.
        augmentation: ends in images of one size, see `bundle.transforms.cropping`.
        images_per_epoch: how many are drawn, with replacement.
        shares: share of the draws each group gets, in their order; None for equal shares.
        seed: of draws and augmentation.
        views: 2 to give each image twice, augmented anew.
        workers: threads that read the cases.
        progress: show a bar while reading.

    Raises:
        CaseError: a case that cannot be used.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[CaseReference]],
        preprocessing: Compose,
        augmentation: RandByModalityd,
        images_per_epoch: int,
        shares: Sequence[float] | None = None,
        seed: int = 0,
        views: int = 1,
        workers: int = 2,
        progress: bool = True,
    ) -> None:
        self.augmentation = augmentation
        self.names = ("image", "other")[:views]

        def read(reference: CaseReference) -> dict[str, Any]:
            item = preprocessing(reference_item(reference))
            image = (item["image"].as_tensor() * 255.0).round().to(torch.uint8)
            return {"image": once_if_grey(image), "modality": item["case"].modality}

        super().__init__(groups, read, images_per_epoch, shares, seed, workers, progress)
        units = torch.bincount(self.group_of_unit).double()
        self.weights = (torch.tensor(self.shares, dtype=torch.float64) / units)[self.group_of_unit]
        self.set_epoch(1)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """image, and with two views other: (3, H, W) float32 in [0, 1]."""
        item, _, kept, seed = self.drawn(position)
        images = {"image": kept.float() / 255.0}
        views = {}
        for number, name in enumerate(self.names):
            drawn = vary(self.augmentation, images, item["modality"], seed + number)
            views[name] = drawn["image"].float().clamp(0.0, 1.0).contiguous()
        return views


def prepare_image_batch(
    batch: Mapping[str, Tensor] | bytes,
    device: torch.device | str | None,
    non_blocking: bool = False,
    **_: Any,
) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
    """For MONAI's SupervisedTrainer: images in [-1, 1], and as their target the noise that they are given."""
    image = unpacked(batch)["image"].to(device, non_blocking=non_blocking)
    image = image * 2.0 - 1.0
    noise = torch.randn_like(image)
    return image, noise, (), {"noise": noise}


class NoisedImageInferer(Inferer):
    """Predict the noise in an image at a random timestep; MONAI's SupervisedTrainer calls it as its inferer.

    Args:
        bfloat16: run the network in bfloat16 where that is faster; loss and weights stay float32.
        timesteps: how many of the schedule's 1000 are trained, from the cleanest; all of them for a model that
            is to generate images, fewer for one whose features are read at small ones.
    """

    def __init__(self, bfloat16: bool = False, timesteps: int = DDPM_STEPS) -> None:
        if not 1 <= timesteps <= DDPM_STEPS:
            raise ValueError(f"timesteps must be from 1 to {DDPM_STEPS}, not {timesteps}")
        self.bfloat16 = bfloat16
        self.timesteps = timesteps

    def __call__(
        self, inputs: Tensor, network: nn.Module, *args: Any, noise: Tensor, **kwargs: Any
    ) -> Tensor:
        """(B, C, H, W) images in [-1, 1] and standard normal noise -> (B, C, H, W) its prediction."""
        batch = len(inputs)
        # spread evenly over a batch from one random offset, which lowers the variance of the loss
        times = (
            torch.rand(1, device=inputs.device) + torch.arange(batch, device=inputs.device) / batch
        ) % 1.0
        timesteps = (times * self.timesteps).long()
        x_t = noised(inputs, noise, linear_beta_log_snr(timesteps / (DDPM_STEPS - 1)))
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            return network(x_t, timesteps)[:, : inputs.shape[1]].float()
