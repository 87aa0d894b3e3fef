"""Training images: the slices of volumes and whole pictures, drawn by weight and varied, the same way every time.

What an epoch shows depends on (seed, epoch, position) alone, not on worker processes or on what ran before:
that is what makes a resumed training equal an uninterrupted one bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from bundle.cases import CaseError, CaseReference, collect_cases
from bundle.cases.case import Modality
from bundle.cases.structures import Structures
from bundle.learning.losses import MaskTarget, log_inverse_frequency
from bundle.transforms import RandByModalityd, neighbouring_slices, reference_item


def training_references(
    datalist: str | Path | Sequence[str | Path],
    split: str,
    modality: Modality | None = None,
    text_key: str = "text",
) -> list[list[CaseReference]]:
    """The labelled cases of one or several datalists, a list each.

    Args:
        datalist: one JSON file or several.
        split: the list to take; one of strings names entries of the other lists.
        modality: of all cases; None to take the datalist's or tell it from the file.
        text_key: field of an entry that is its text.

    Raises:
        CaseError: a file is missing, or a case has no label: training does not begin on part of its data.
    """
    if datalist is None:
        raise CaseError("--datalist", "was not given", "name a datalist JSON with labelled cases")
    sources = [datalist] if isinstance(datalist, str | Path) else list(datalist)
    groups = []
    for source in sources:
        found, failures = collect_cases(source, modality=modality, split=split, text_key=text_key)
        if failures:
            raise CaseError(source, f"{failures[0].error} ({len(failures)} such cases)", "mend the datalist")
        for reference in found:
            if reference.label is None:
                raise CaseError(
                    reference.image, f"has no label in {source}", "give every training case a label"
                )
            if not reference.labels:
                raise CaseError(
                    source, "does not say what its label values mean", "add 'labels': {'1': name, ...}"
                )
        groups.append(found)
    return groups


class TrainingImages(Dataset):
    """2-D training images out of volumes and pictures.

    Args:
        groups: labelled cases, a list for each datalist.
        preprocessing: see `bundle.transforms.preprocessing`; its result is kept in memory.
        augmentation: ends in images of one size, see `bundle.transforms.augmentation`.
        structures: of the network.
        images_per_epoch: how many are drawn, with replacement.
        shares: share of the draws each group gets, in their order; None for equal shares.
        rare_class_share: see `draw_weights`.
        text_dropout: probability that an image is shown without its text, so that the network learns to do
            without.
        noise: draw the noise that denoising networks learn from.
        seed: of draws and augmentation.
        workers: threads that read the cases.
        progress: show a bar while reading.

    Raises:
        CaseError: a case that cannot be used, before training begins.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[CaseReference]],
        preprocessing: Compose,
        augmentation: RandByModalityd,
        structures: Structures,
        images_per_epoch: int,
        shares: Sequence[float] | None = None,
        rare_class_share: float = 0.5,
        text_dropout: float = 0.0,
        noise: bool = True,
        seed: int = 0,
        workers: int = 2,
        progress: bool = True,
    ) -> None:
        if not groups or not all(groups):
            raise ValueError("there is no training case; check --datalist and the split's name")
        if shares is not None and (len(shares) != len(groups) or min(shares) < 0 or sum(shares) <= 0):
            raise ValueError(f"datalist_shares: {list(shares)} do not fit {len(groups)} datalists")
        if not 0.0 <= text_dropout <= 1.0:
            raise ValueError(f"text_dropout must lie in [0, 1], not {text_dropout}")
        self.structures = structures
        self.augmentation = augmentation
        self.text_dropout = text_dropout
        self.noise = noise
        self.images_per_epoch = images_per_epoch
        self.seed = seed
        self.references = [reference for group in groups for reference in group]
        group_of_case = [number for number, group in enumerate(groups) for _ in group]
        with ThreadPoolExecutor(workers) as pool:
            reading = pool.map(lambda reference: _read(reference, preprocessing), self.references)
            self.items = list(
                tqdm(
                    reading,
                    total=len(self.references),
                    desc="reading",
                    unit="case",
                    disable=not progress,
                    leave=False,
                )
            )
        self.units: list[tuple[int, int | None]] = []
        shown = []
        self.pixels = torch.zeros(structures.channels, dtype=torch.float64)
        for index, item in enumerate(self.items):
            label = item["label"]
            self.pixels += torch.bincount(label.flatten().long(), minlength=structures.channels)
            for position in range(label.shape[-1]) if label.ndim == 4 else (None,):
                self.units.append((index, position))
                pixels = label if position is None else label[..., position]
                shown.append(torch.bincount(pixels.flatten().long(), minlength=structures.channels) > 0)
        group_of_unit = torch.tensor([group_of_case[index] for index, _ in self.units])
        self.weights = draw_weights(
            torch.stack(shown), group_of_unit, shares or [1.0] * len(groups), rare_class_share
        )
        self.set_epoch(1)

    def class_weights(self) -> Tensor:
        """Weights of the cross-entropy, see `log_inverse_frequency`."""
        return log_inverse_frequency(self.pixels)

    def set_epoch(self, epoch: int) -> None:
        """Draw what epoch number `epoch`, counted from 1, shows."""
        self.epoch = epoch
        generator = torch.Generator().manual_seed(stable_seed(self.seed, epoch, "draws"))
        self.plan = torch.multinomial(
            self.weights, self.images_per_epoch, replacement=True, generator=generator
        )

    def __len__(self) -> int:
        return self.images_per_epoch

    def __getitem__(self, position: int) -> dict[str, Any]:
        """What one position of the epoch shows.

        Returns:
            image (3, H, W) float32 in [0, 1]; label (H, W) int64; labelled and possible (K,) bool; prompt, the
            case's text as written or ''; with `noise`, noise (K, H, W) float32.
        """
        index, slice_index = self.units[int(self.plan[position])]
        item = self.items[index]
        image, label = item["image"], item["label"]
        if slice_index is not None:
            image, label = neighbouring_slices(image, slice_index), label[..., slice_index]
        elif image.shape[0] == 1:
            image = image.expand(3, -1, -1)
        meta = {"modality": item["modality"]}
        drawn: dict[str, Any] = {
            "image": MetaTensor(image, meta=dict(meta)),
            "label": MetaTensor(label, meta=dict(meta)),
        }
        seed = stable_seed(self.seed, self.epoch, position)
        self.augmentation.set_random_state(seed=seed % 2**32)
        drawn = self.augmentation(drawn)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(seed)
        label = drawn["label"].as_tensor()[0].round().long()
        shown = {
            "image": drawn["image"].as_tensor().float().clamp(0.0, 1.0).contiguous(),
            "label": label,
            "labelled": item["labelled"],
            "possible": possible_channels(self.structures, item["modality"]),
            "prompt": self.references[index].prompt,
        }
        if self.noise:
            # drawn here because drawing takes one thread as long as the network takes two
            shown["noise"] = torch.randn((self.structures.channels, *label.shape), generator=generator)
        if float(torch.rand(1, generator=generator)) < self.text_dropout:
            shown["prompt"] = ""
        return shown


def draw_weights(
    shown: Tensor, group: Tensor, shares: Sequence[float], rare_class_share: float = 1.0
) -> Tensor:
    """Rare classes first: within its group an image weighs the inverse frequency of the rarest class it shows.

    Args:
        shown: (images, K) bool, the classes an image shows.
        group: (images,) number of its group.
        shares: of each group in the draws.
        rare_class_share: of the draws that go by rare classes; the rest are even over the images, so that
            those without any structure are seen as often as they will be met.

    Returns:
        (images,) float64; the weights of a group add up to its share.
    """
    weights = torch.zeros(len(shown), dtype=torch.float64)
    for number, share in enumerate(shares):
        members = group == number
        inside = shown[members]
        frequency = inside.double().mean(dim=0).clamp_min(1e-12)
        rarest = torch.where(inside, 1.0 / frequency, 0.0).amax(dim=1)
        # one rare class may not crowd out the rest
        rarest = rarest.clamp(max=10.0 * float(rarest.median()))
        by_class, even = rarest / rarest.sum(), 1.0 / len(rarest)
        weights[members] = share * (rare_class_share * by_class + (1.0 - rare_class_share) * even)
    return weights


def possible_channels(structures: Structures, modality: Modality) -> Tensor:
    """(K,) bool: background and what an image of this modality can show."""
    channels = torch.zeros(structures.channels, dtype=torch.bool)
    channels[[0, *structures.of_modality(modality)]] = True
    return channels


def prepare_batch(
    batch: Mapping[str, Any], device: torch.device | str | None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, MaskTarget, tuple[()], dict[str, Any]]:
    """For MONAI's SupervisedTrainer: image, target, and what the training step needs besides."""
    moved = {
        key: value.to(device, non_blocking=non_blocking)
        for key, value in batch.items()
        if isinstance(value, Tensor)
    }
    image = moved["image"].contiguous(memory_format=torch.channels_last)
    target = MaskTarget(moved["label"], moved["labelled"], moved["possible"])
    named: dict[str, Any] = {"target": target, "prompts": list(batch["prompt"])}
    return image, target, (), named | ({"noise": moved["noise"]} if "noise" in moved else {})


def _read(reference: CaseReference, preprocessing: Compose) -> dict[str, Any]:
    structures: Structures = preprocessing.transforms[0].structures
    unknown = [name for name in reference.labels.values() if not structures.knows(name)]
    if unknown and reference.label is not None:
        problem = f"labels {unknown[0]!r}, which the network does not know"
        raise CaseError(
            reference.label, problem, "add it to 'structures' in the configuration or leave it out"
        )
    item = preprocessing(reference_item(reference, with_label=True))
    labelled = torch.zeros(structures.channels, dtype=torch.bool)
    labelled[[0, *(structures.value(name) for name in reference.labels.values())]] = True
    image = item["image"].as_tensor()
    return {
        # a grey picture is kept once, not once a channel
        "image": image[:1] if image.ndim == 3 and bool((image == image[:1]).all()) else image,
        "label": item["label"].as_tensor().to(torch.uint8),
        "modality": item["case"].modality,
        "labelled": labelled,
    }


def stable_seed(*parts: object) -> int:
    """A seed that is the same in every process, of any printable parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") & (2**63 - 1)


def worker_threads(_: int) -> None:
    """For DataLoader workers: one thread each leaves the cores to training."""
    torch.set_num_threads(1)
