"""Intensities: greyscale polarity, channels, and the stains of H&E."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor, nn

#: Optical density of haematoxylin and eosin, Macenko et al. (2009), normalised; rows are stains.
HE_REFERENCE = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])


class Monochrome2d(MapTransform):
    """Turn MONOCHROME1 images (DICOM PS3.3 C.7.6.3.1.2: low is bright) into MONOCHROME2.

    The polarity stands in the tensor's meta as 'photometric'; without it nothing is done.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            if image.meta.get("photometric") == "MONOCHROME1":
                # reflected within its own range, so that percentiles stay percentiles
                item[key] = image.max() + image.min() - image
                item[key].meta["photometric"] = "MONOCHROME2"
        return item


class WindowHounsfieldd(MapTransform):
    """A CT window to [0, 1], below which air and lung stay apart from fat.

    Values above the window become 1. Below it they fall evenly to `air` at -1000 HU, and stay there.

    Args:
        keys: CT tensors in HU.
        window: HU that become 0 and 1.
        air: what -1000 HU becomes, at most 0; 0 clips at the window.
    """

    def __init__(self, keys: KeysCollection, window: tuple[float, float], air: float = 0.0) -> None:
        super().__init__(keys)
        self.low, self.high = window
        self.air = air

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            inside = ((item[key] - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
            below = ((self.low - item[key]) / (self.low + 1000.0)).clamp(0.0, 1.0)
            item[key] = inside + self.air * below
        return item


class ScaleToUnitd(MapTransform):
    """RGB images to [0, 1] by the value of white, 'full_scale' in the tensor's meta; grey becomes RGB.

    Without it, 255 is white where no value is larger, and 65535 otherwise.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            white = image.meta.get("full_scale") or (255.0 if float(image.max()) <= 255.0 else 65535.0)
            image = image / white
            item[key] = image.expand(3, *image.shape[1:]).clone() if image.shape[0] == 1 else image
        return item


def optical_density(rgb: np.ndarray) -> np.ndarray:
    """Beer-Lambert optical density of transmitted light in [0, 1]; white is 0."""
    return -np.log(np.clip(rgb, 1 / 255, 1.0))


class RandStaind(RandomizableTransform, MapTransform):
    """Vary the amounts of haematoxylin and eosin, as between laboratories.

    Tellez et al., 'Whole-slide mitosis detection in H&E breast histology' (2018): colour deconvolution with
    fixed stain directions, each amount scaled and shifted at random, and composed again.

    Args:
        keys: RGB tensors (3, H, W) in [0, 1].
        strength: amounts are scaled by 1 +- strength and shifted by +- strength / 4.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.5, strength: float = 0.2) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.strength = strength
        stains = HE_REFERENCE / np.linalg.norm(HE_REFERENCE, axis=1, keepdims=True)
        basis = np.vstack([stains, np.cross(stains[0], stains[1])])
        self._from_stains = torch.from_numpy(basis.T).float()  # (RGB, stains)
        self._to_stains = torch.linalg.inv(self._from_stains)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return item
        scale = torch.from_numpy(self.R.uniform(1 - self.strength, 1 + self.strength, 2)).float()
        shift = torch.from_numpy(self.R.uniform(-self.strength / 4, self.strength / 4, 2)).float()
        for key in self.key_iterator(item):
            item[key] = self._restained(item[key], scale, shift)
        return item

    def _restained(self, image: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        density = -torch.log(image.clamp(1 / 255, 1.0))
        amounts = torch.einsum("sc,chw->shw", self._to_stains, density)
        tissue = (density.mean(dim=0, keepdim=True) > 0.1).float()  # glass stays glass
        amounts[:2] = amounts[:2] * scale[:, None, None] + shift[:, None, None] * tissue
        return torch.exp(-torch.einsum("cs,shw->chw", self._from_stains, amounts)).clamp(0.0, 1.0)


class RandContrastPhased(RandomizableTransform, MapTransform):
    """Vary how much contrast agent organs and vessels have taken up, as between phases of a CT.

    What is denser than unenhanced soft tissue keeps a random share of its excess.

    Args:
        keys: CT tensors, windowed to [0, 1].
        soft_tissue: of unenhanced organs on that scale; 45 HU in a window of -125..275 HU is 0.425.
        share: range of the share that is kept; above 1 enhances.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        soft_tissue: float = 0.425,
        share: tuple[float, float] = (0.2, 1.3),
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.soft_tissue = soft_tissue
        self.share = share

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return item
        kept = float(self.R.uniform(*self.share))
        for key in self.key_iterator(item):
            excess = (item[key] - self.soft_tissue).clamp_min(0.0)
            item[key] = item[key] - excess * (1.0 - kept)
        return item


class RandAird(RandomizableTransform, MapTransform):
    """Show air and lung as far below a window as they are, or clipped at it, whatever the source has kept.

    Some data sets are stored clipped. A network that meets values below the window in the other sets alone would tell
    the sets apart by them, and would not know a whole CT that shows what the clipped ones do.

    Args:
        keys: CT tensors (C, H, W) of `WindowHounsfieldd`.
        air: of `WindowHounsfieldd`; 0 changes nothing.
        clip: probability of clipping what lies below the window.
        fill: probability of filling wide areas at exactly the window's lower end, which fat hardly has, with one
            value drawn between half of `air` and all of it.
    """

    def __init__(self, keys: KeysCollection, air: float, clip: float = 0.25, fill: float = 0.5) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        self.air, self.clip, self.fill = air, clip, fill

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        way, depth = float(self.R.uniform()), float(self.R.uniform(0.5, 1.0))
        if self.air == 0.0 or way >= self.clip + self.fill:
            return item
        for key in self.key_iterator(item):
            image = item[key]
            if way < self.clip:
                item[key] = image.clamp_min(0.0)
            else:
                seen = nn.functional.max_pool2d(image.abs(), 5, stride=1, padding=2)
                item[key] = torch.where(seen < 1e-3, depth * self.air, image)
        return item
