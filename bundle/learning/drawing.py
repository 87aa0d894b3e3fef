"""Images that are drawn by weight and varied, the same way every time.

What an epoch shows depends on (seed, epoch, position) alone, not on worker processes or on what ran before: that is
what makes a resumed training equal an uninterrupted one bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.data import get_track_meta, set_track_meta
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from bundle.cases import CaseError, CaseReference, collect_cases
from bundle.cases.modality import Modality
from bundle.cases.modality_settings import View
from bundle.transforms import RandByModalityd, neighbouring_slices, seen_from

_LEAST_SIDE = 16  # of a slice in another plane than the axial one


class Unit(NamedTuple):
    """A whole 2-D image, or a slice of a volume.

    Attributes:
        case: its number.
        place: the slice; None for a 2-D image.
        view: across which plane of a volume.
    """

    case: int
    place: int | None = None
    view: View = "axial"

    def of(self, volume: Tensor) -> Tensor:
        """(C, H, W) of a 2-D image as it is, or (C, A, B), the unit's slice of (C, X, Y, Z)."""
        return volume if self.place is None else seen_from(volume, self.view)[..., self.place]


def case_references(
    datalist: str | Path | Sequence[str | Path],
    split: str,
    modality: Modality | None = None,
    text_key: str = "text",
) -> list[list[CaseReference]]:
    """The cases of one or several datalists, a list each, whether they have labels or not.

    Args:
        datalist: one JSON file or several.
        split: the list to take; one of strings names entries of the other lists.
        modality: of all cases; None to take the datalist's or tell it from the file.
        text_key: field of an entry that is its text.

    Raises:
        CaseError: a file is missing: training does not begin on part of its data.
    """
    if datalist is None:
        raise CaseError("--datalist", "was not given", "name a datalist JSON")
    groups = []
    for source in [datalist] if isinstance(datalist, str | Path) else list(datalist):
        found, failures = collect_cases(source, modality=modality, split=split, text_key=text_key)
        if failures:
            raise CaseError(source, f"{failures[0].error} ({len(failures)} such cases)", "mend the datalist")
        groups.append(found)
    return groups


class DrawnImages(Dataset):
    """Cases in memory, of which units are drawn with replacement.

    Args:
        groups: cases, a list for each datalist.
        read: a case as it is kept.
        images_per_epoch: how many are drawn.
        shares: share of the draws each group gets, in their order; None for equal shares.
        seed: of the draws.
        workers: threads that read the cases.
        progress: show a bar while reading.
        slice_distance: from a slice of a volume to its neighbours, in slices.
        views: planes that volumes are cut in, those of few slices axially alone; each has an equal part of a list's
            share.

    Raises:
        CaseError: a case that cannot be used, before training begins.
        ValueError: no case, or shares that do not fit.
    """

    #: Chances of the units; subclasses set them and call `set_epoch`.
    weights: Tensor

    def __init__(
        self,
        groups: Sequence[Sequence[CaseReference]],
        read: Callable[[CaseReference], dict[str, Any]],
        images_per_epoch: int,
        shares: Sequence[float] | None,
        seed: int,
        workers: int,
        progress: bool,
        slice_distance: int = 1,
        views: Sequence[View] = ("axial",),
    ) -> None:
        if not groups or not all(groups):
            raise ValueError("there is no training case; check --datalist and the split's name")
        if shares is not None and (len(shares) != len(groups) or min(shares) < 0 or sum(shares) <= 0):
            raise ValueError(f"datalist_shares: {list(shares)} do not fit {len(groups)} datalists")
        self.images_per_epoch = images_per_epoch
        self.slice_distance = slice_distance
        self.views = tuple(views)
        self.seed = seed
        self.references = [reference for group in groups for reference in group]
        self.shares = list(shares or [1.0] * len(groups))
        with ThreadPoolExecutor(workers) as pool:
            reading = pool.map(read, self.references)
            bar = tqdm(
                reading,
                total=len(self.references),
                desc="reading",
                unit="case",
                disable=not progress,
                leave=False,
            )
            self.items = list(bar)
        group_of_case = [number for number, group in enumerate(groups) for _ in group]
        self.units: list[Unit] = []
        for index, item in enumerate(self.items):
            image = item["image"]
            if image.ndim == 3:
                self.units.append(Unit(index))
                continue
            for view in self.views:
                *sides, depth = seen_from(image, view).shape[1:]
                if view != "axial" and min(sides) < _LEAST_SIDE:
                    continue  # of a few slices alone, no other plane shows anything
                self.units.extend(Unit(index, place, view) for place in range(depth))
        self.group_of_unit = torch.tensor([group_of_case[unit.case] for unit in self.units])

    def set_epoch(self, epoch: int) -> None:
        """Draw what epoch number `epoch`, counted from 1, shows."""
        self.epoch = epoch
        generator = torch.Generator().manual_seed(stable_seed(self.seed, epoch, "draws"))
        self.plan = torch.multinomial(
            self.weights, self.images_per_epoch, replacement=True, generator=generator
        )

    def __len__(self) -> int:
        return self.images_per_epoch

    def drawn(self, position: int) -> tuple[dict[str, Any], Unit, Tensor, int]:
        """What a position of the epoch shows: item, unit, image (3, H, W) as kept, and the seed to vary it by."""
        unit = self.units[int(self.plan[position])]
        item = self.items[unit.case]
        image = item["image"]
        if unit.place is not None:
            image = neighbouring_slices(seen_from(image, unit.view), unit.place, distance=self.slice_distance)
        elif image.shape[0] == 1:
            image = image.expand(3, -1, -1)
        return item, unit, image, stable_seed(self.seed, self.epoch, position)


def vary(
    augmentation: RandByModalityd, images: dict[str, Tensor], modality: Modality, seed: int
) -> dict[str, Tensor]:
    """Images and labels (C, H, W) of one case, varied together; the same seed varies them the same way.

    Nothing of it is ever undone, so MONAI keeps no record of it, which would take longer than the work itself.
    """
    augmentation.set_random_state(seed=seed % 2**32)
    item: dict[Any, Any] = {**images, "modality": modality}
    with _untracked():
        varied = augmentation(item)
    return {key: varied[key] for key in images}


@contextmanager
def _untracked() -> Iterator[None]:
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def once_if_grey(image: Tensor) -> Tensor:
    """A grey 2-D image as one channel instead of three equal ones; everything else as it is."""
    return image[:1] if image.ndim == 3 and bool((image == image[:1]).all()) else image


def stable_seed(*parts: object) -> int:
    """A seed that is the same in every process, of any printable parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") & (2**63 - 1)
