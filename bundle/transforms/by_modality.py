"""One pipeline for several modalities: the branch is chosen by what the image says it is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import Compose, InvertibleTransform, Randomizable, Transform


class ByModalityd(InvertibleTransform):
    """Apply the transforms of the image's modality, and invert those.

    Args:
        branches: modality -> transforms. They get whatever keys the item has, so those that name keys
            which may be missing must allow it.
        key: the item whose meta holds 'modality', where the data do not say it themselves.
    """

    def __init__(self, branches: Mapping[str, Sequence[Transform]], key: str = "image") -> None:
        super().__init__()
        self.branches = {modality: Compose(transforms) for modality, transforms in branches.items()}
        self.key = key

    def _modality(self, data: Mapping[Hashable, Any]) -> str:
        return data["modality"] if "modality" in data else data[self.key].meta["modality"]

    def _branch(self, data: Mapping[Hashable, Any]) -> Compose:
        modality = self._modality(data)
        if modality not in self.branches:
            raise ValueError(f"no transforms for modality {modality!r}, only for {', '.join(self.branches)}")
        return self.branches[modality]

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        return self._branch(data)(data)

    def inverse(self, data: Mapping[Hashable, Any]) -> Any:
        return self._branch(data).inverse(data)


class RandByModalityd(ByModalityd, Randomizable):
    """`ByModalityd` over transforms that draw at random.

    After `set_random_state` what is drawn for the next item depends on the seed alone. All transforms of its branch
    draw from one state: a state for each of them takes as long to make as the transforms themselves.
    """

    def __init__(self, branches: Mapping[str, Sequence[Transform]], key: str = "image") -> None:
        super().__init__(branches, key)
        self._fresh: set[str] = set()

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandByModalityd:
        super().set_random_state(seed=seed, state=state)
        self._fresh = set(self.branches)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        branch = self._branch(data)
        modality = self._modality(data)
        if modality in self._fresh:
            self._fresh.remove(modality)
            for transform in branch.transforms:
                if isinstance(transform, Randomizable):
                    transform.set_random_state(state=self.R)
        return branch(data)

    def randomize(self, data: Any = None) -> None:
        """Each transform of the branch draws for itself."""
