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
        key: the item whose meta holds 'modality'.
    """

    def __init__(self, branches: Mapping[str, Sequence[Transform]], key: str = "image") -> None:
        super().__init__()
        self.branches = {modality: Compose(transforms) for modality, transforms in branches.items()}
        self.key = key

    def _branch(self, data: Mapping[Hashable, Any]) -> Compose:
        modality = data[self.key].meta["modality"]
        if modality not in self.branches:
            raise ValueError(f"no transforms for modality {modality!r}, only for {', '.join(self.branches)}")
        return self.branches[modality]

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        return self._branch(data)(data)

    def inverse(self, data: Mapping[Hashable, Any]) -> Any:
        return self._branch(data).inverse(data)


class RandByModalityd(ByModalityd, Randomizable):
    """`ByModalityd` over transforms that draw at random."""

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandByModalityd:
        for branch in self.branches.values():
            branch.set_random_state(seed=seed, state=state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Each transform of the branch draws for itself."""
