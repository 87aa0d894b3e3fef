"""Pretraining of the image DDPM: images without their labels, and the step that predicts their noise.

Ho et al., 'Denoising Diffusion Probabilistic Models' (2020), algorithm 1, with the linear schedule that published
image DDPMs were trained with, so that features are read at the same timesteps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from bundle.cases import CaseError, CaseReference, collect_cases
from bundle.cases.case import Modality
from bundle.diffusion.schedule import DDPM_STEPS, linear_beta_log_snr, noised
from bundle.learning.dataset import stable_seed
from bundle.transforms import RandByModalityd, neighbouring_slices, reference_item


def image_references(
    datalist: str | Path | Sequence[str | Path], split: str, modality: Modality | None = None
) -> list[list[CaseReference]]:
    """The images of one or several datalists, a list each, whether they have labels or not.

    Raises:
        CaseError: a file is missing.
    """
    if datalist is None:
        raise CaseError("--datalist", "was not given", "name a datalist JSON with images")
    groups = []
    for source in [datalist] if isinstance(datalist, str | Path) else list(datalist):
        found, failures = collect_cases(source, modality=modality, split=split)
        if failures:
            raise CaseError(source, f"{failures[0].error} ({len(failures)} such cases)", "mend the datalist")
        groups.append(found)
    return groups


class UnlabelledImages(Dataset):
    """2-D images out of pictures and volumes; labels are never read.

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
        if not groups or not all(groups):
            raise ValueError("there is no image; check --datalist and the split's name")
        if shares is not None and (len(shares) != len(groups) or min(shares) < 0 or sum(shares) <= 0):
            raise ValueError(f"datalist_shares: {list(shares)} do not fit {len(groups)} datalists")
        self.augmentation = augmentation
        self.images_per_epoch = images_per_epoch
        self.seed = seed
        self.names = ("image", "other")[:views]
        references = [reference for group in groups for reference in group]

        def read(reference: CaseReference) -> tuple[Tensor, Modality]:
            item = preprocessing(reference_item(reference))
            return (item["image"].as_tensor() * 255.0).round().to(torch.uint8), item["case"].modality

        with ThreadPoolExecutor(workers) as pool:
            bar = tqdm(
                pool.map(read, references),
                total=len(references),
                desc="reading",
                unit="case",
                disable=not progress,
                leave=False,
            )
            self.items = list(bar)
        self.units: list[tuple[int, int | None]] = []
        weights = []
        index = 0
        for group, share in zip(groups, shares or [1.0] * len(groups), strict=True):
            units: list[tuple[int, int | None]] = []
            for _ in group:
                image = self.items[index][0]
                places = range(image.shape[-1]) if image.ndim == 4 else (None,)
                units.extend((index, place) for place in places)
                index += 1
            self.units.extend(units)
            weights.extend([share / len(units)] * len(units))
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.set_epoch(1)

    def set_epoch(self, epoch: int) -> None:
        """Draw what epoch number `epoch`, counted from 1, shows."""
        self.epoch = epoch
        generator = torch.Generator().manual_seed(stable_seed(self.seed, epoch, "draws"))
        self.plan = torch.multinomial(
            self.weights, self.images_per_epoch, replacement=True, generator=generator
        )

    def __len__(self) -> int:
        return self.images_per_epoch

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """image, and with two views other: (3, H, W) float32 in [0, 1]."""
        index, place = self.units[int(self.plan[position])]
        image, modality = self.items[index]
        image = image.float() / 255.0 if place is None else neighbouring_slices(image.float() / 255.0, place)
        self.augmentation.set_random_state(seed=stable_seed(self.seed, self.epoch, position) % 2**32)
        views = {}
        for name in self.names:
            drawn: Any = self.augmentation({"image": MetaTensor(image, meta={"modality": modality})})  # type: ignore[arg-type]
            views[name] = drawn["image"].as_tensor().float().clamp(0.0, 1.0).contiguous()
        return views


def prepare_image_batch(
    batch: Mapping[str, Tensor], device: torch.device | str | None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
    """For MONAI's SupervisedTrainer: images in [-1, 1], and as their target the noise that they are given."""
    image = batch["image"].to(device, non_blocking=non_blocking)
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
