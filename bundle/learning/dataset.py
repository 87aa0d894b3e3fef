"""Training images: slices of volumes and whole 2-D images, drawn by weight and augmented, with their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import default_collate

from bundle.cases import CaseError, CaseReference
from bundle.cases.modality import Modality
from bundle.cases.modality_settings import View
from bundle.cases.structures import Structures
from bundle.learning.drawing import DrawnImages, case_references, once_if_grey, vary
from bundle.learning.losses import MaskTarget, log_inverse_frequency
from bundle.learning.prompting import PromptDrawer
from bundle.transforms import RandByModalityd, reference_item
from bundle.wording import exchange_sides
from bundle.worker_items import packed, unpacked


def training_references(
    datalist: str | Path | Sequence[str | Path],
    split: str,
    modality: Modality | None = None,
    text_key: str = "text",
) -> list[list[CaseReference]]:
    """The labelled cases of one or several datalists, a list each, see `case_references`.

    Raises:
        CaseError: a file is missing, or a case has no label: training does not begin on part of its data.
    """
    groups = case_references(datalist, split, modality, text_key)
    sources = [datalist] if isinstance(datalist, str | Path) else datalist
    for source, group in zip(sources, groups, strict=True):
        for reference in group:
            if reference.label is None:
                raise CaseError(
                    reference.image, f"has no label in {source}", "give every training case a label"
                )
    return groups


class TrainingImages(DrawnImages):
    """2-D training images: slices of volumes, and images that are 2-D by themselves.

    Args:
        groups: labelled cases, a list for each datalist.
        preprocessing: see `bundle.transforms.preprocessing`; its result is kept in memory.
        augmentation: ends in squares, one size a modality, see `bundle.transforms.augmentation`.
        structures: of the network.
        images_per_epoch: how many are drawn, with replacement.
        shares: share of the draws each group gets, in their order; None for equal shares.
        rare_class_share: see `draw_weights`.
        text_dropout: probability that an image is shown without its text, so that the network learns to do
            without.
        prompts: draws what images are prompted with, and besides a text for each that is about no image; None for
            their own texts alone.
        mirrored: share of the X-rays that are mirrored, their texts with them.
        slice_distance: from a slice of a volume to its neighbours, in slices.
        views: planes that volumes are cut in.
        noise: draw the noise that denoising networks learn from.
        noise_stride: of the noisy mask.
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
        prompts: PromptDrawer | None = None,
        mirrored: float = 0.0,
        slice_distance: int = 1,
        views: Sequence[View] = ("axial",),
        noise: bool = True,
        noise_stride: int = 1,
        seed: int = 0,
        workers: int = 2,
        progress: bool = True,
    ) -> None:
        if not 0.0 <= text_dropout <= 1.0:
            raise ValueError(f"text_dropout must lie in [0, 1], not {text_dropout}")
        if prompts is not None and text_dropout:
            raise ValueError(
                "text_dropout and prompt_shares do not go together; set 'silent' in prompt_shares"
            )
        if not 0.0 <= mirrored <= 1.0:
            raise ValueError(f"mirrored_xrays must lie in [0, 1], not {mirrored}")
        for group in groups:
            structures.check_labels(group)
        self.structures = structures
        self.augmentation = augmentation
        self.text_dropout = text_dropout
        self.prompts = prompts
        self.mirrored = mirrored
        self.noise = noise
        self.noise_stride = noise_stride
        super().__init__(
            groups,
            lambda reference: _read(reference, preprocessing),
            images_per_epoch,
            shares,
            seed,
            workers,
            progress,
            slice_distance,
            views,
        )
        self.pixels = torch.zeros(structures.channels, dtype=torch.float64)
        for item in self.items:
            self.pixels += torch.bincount(item["label"].flatten().long(), minlength=structures.channels)
        shown = []
        for unit in self.units:
            pixels = unit.of(self.items[unit.case]["label"])
            shown.append(torch.bincount(pixels.flatten().long(), minlength=structures.channels) > 0)
        cells, by_cell = self._by_view()
        self.weights = draw_weights(torch.stack(shown), cells, by_cell, rare_class_share)
        self.set_epoch(1)

    def _by_view(self) -> tuple[Tensor, list[float]]:
        """Groups and their shares, in which the views of one list's volumes are apart: there are more slices from
        front to back than from head to foot, and no view should crowd out another."""
        view = torch.tensor(
            [self.views.index(unit.view) if unit.place is not None else 0 for unit in self.units]
        )
        cells = len(self.views) * self.group_of_unit + view
        shares = []
        for number, share in enumerate(self.shares):
            sizes = [int((cells == len(self.views) * number + one).sum()) for one in range(len(self.views))]
            used = sum(size > 0 for size in sizes)
            shares += [share / used if size else 0.0 for size in sizes]
        return cells, shares

    def class_weights(self) -> Tensor:
        """Weights of the cross-entropy, see `log_inverse_frequency`."""
        return log_inverse_frequency(self.pixels)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """What one position of the epoch shows.

        Returns:
            image (3, H, W) float32 in [0, 1], of CT in [-1, 1]; label (H, W) int64; labelled and possible (K,) bool;
            prompt, the case's text as written or '', or what was drawn for it; with `prompts`, text, and named
            (2, K - 1) bool, what prompt and text name; standalone, whether it is a case by itself; with `noise`, noise
            (K, H / noise_stride, W / noise_stride) float32.
        """
        item, unit, image, seed = self.drawn(position)
        label = unit.of(item["label"])
        random = Random(seed)
        own = item["prompt"]
        if item["modality"] == "X-ray" and random.random() < self.mirrored:
            image, label, own = image.flip(-1), label.flip(-1), exchange_sides(own)
        drawn = vary(self.augmentation, {"image": image, "label": label}, item["modality"], seed)
        generator = torch.Generator().manual_seed(seed)
        label = drawn["label"][0].round().long()
        shown = {
            # below 0 lies what a CT window hides, see ct_air
            "image": drawn["image"]
            .float()
            .clamp(-1.0 if item["modality"] == "CT" else 0.0, 1.0)
            .contiguous(),
            "label": label,
            "standalone": unit.place is None,
            "labelled": item["labelled"],
            "possible": possible_channels(self.structures, item["modality"]),
            "prompt": own,
        }
        if self.prompts is not None:  # which leaves out texts itself
            prompt = self.prompts.for_image(item["modality"], own, random)
            text = self.prompts.for_words_alone(random)
            named = torch.zeros((2, self.structures.channels), dtype=torch.bool)
            for row, drawn_prompt in enumerate((prompt, text)):
                named[row, list(drawn_prompt.channels)] = True
            shown |= {"prompt": prompt.text, "text": text.text, "named": named[:, 1:]}
        if self.noise:
            # drawn here because drawing takes one thread as long as the network takes two
            sides = (side // self.noise_stride for side in label.shape)
            shown["noise"] = torch.randn((self.structures.channels, *sides), generator=generator)
        if self.prompts is None and float(torch.rand(1, generator=generator)) < self.text_dropout:
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
        if not bool(members.any()):
            continue
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


def by_size(items: Sequence[Mapping[str, Any]]) -> Any:
    """Collate square images of one size to a batch, and of several to a list of batches, the smallest first.

    Returns:
        It, for `prepare_batch`; packed where this is another process.
    """
    sides = sorted({item["image"].shape[-1] for item in items})
    parts = [default_collate([item for item in items if item["image"].shape[-1] == side]) for side in sides]
    return packed(parts[0] if len(parts) == 1 else parts)


def prepare_batch(
    batch: Mapping[str, Any] | Sequence[Mapping[str, Any]] | bytes,
    device: torch.device | str | None,
    non_blocking: bool = False,
    **_: Any,
) -> tuple[Tensor | list[Tensor], MaskTarget | list[MaskTarget], tuple[()], dict[str, Any]]:
    """For MONAI's SupervisedTrainer: image, target, and what the training step needs besides.

    Of a list of batches: lists of images and targets, and `parts`, what the step needs for each.
    """
    content: Any = unpacked(batch)
    if isinstance(content, Sequence):
        images, targets, _, needs = zip(
            *(prepare_batch(part, device, non_blocking) for part in content), strict=True
        )
        return list(images), list(targets), (), {"parts": list(needs)}
    moved = {
        key: value.to(device, non_blocking=non_blocking)
        for key, value in content.items()
        if isinstance(value, Tensor)
    }
    image = moved["image"].contiguous(memory_format=torch.channels_last)
    # as the texts of a step: the prompts of all images first
    named = moved["named"].transpose(0, 1).flatten(0, 1) if "named" in moved else None
    target = MaskTarget(moved["label"], moved["labelled"], moved["possible"], named, moved["standalone"])
    needed: dict[str, Any] = {"target": target, "prompts": list(content["prompt"])}
    if "text" in content:
        needed["texts"] = list(content["text"])
    return image, target, (), needed | ({"noise": moved["noise"]} if "noise" in moved else {})


def _read(reference: CaseReference, preprocessing: Compose) -> dict[str, Any]:
    structures: Structures = preprocessing.transforms[0].structures
    item = preprocessing(reference_item(reference, with_label=True))
    labelled = torch.zeros(structures.channels, dtype=torch.bool)
    labelled[[0, *(structures.value(name) for name in reference.labels.values())]] = True
    image = item["image"].as_tensor()
    return {
        "image": once_if_grey(image),
        "label": item["label"].as_tensor().to(torch.uint8),
        "modality": item["case"].modality,
        "labelled": labelled,
        "prompt": reference.prompt,
    }


def worker_threads(_: int) -> None:
    """For DataLoader workers: one thread each leaves the cores to training."""
    torch.set_num_threads(1)
