"""Ranges, channels, polarity and stains of pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter
from torch import Tensor

from bundle.transforms import Monochrome2d, RandStaind, ScaleToUnitd
from bundle.transforms.intensity import HE_REFERENCE, optical_density


def tensor(values: Any, **meta: Any) -> MetaTensor:
    return MetaTensor(torch.as_tensor(np.asarray(values, dtype=np.float32)), meta=meta)


# --- polarity and range ----------------------------------------------------------------------------------


def test_monochrome1_is_reflected_within_its_own_range() -> None:
    item = Monochrome2d("image")({"image": tensor([[[5.0, 7.0], [20.0, 6.0]]], photometric="MONOCHROME1")})
    assert item["image"].tolist() == [[[20.0, 18.0], [5.0, 19.0]]]
    again = Monochrome2d("image")(item)
    assert again["image"].tolist() == item["image"].tolist()


@pytest.mark.parametrize("meta", [{}, {"photometric": "MONOCHROME2"}])
def test_other_polarities_are_left_alone(meta: dict[str, str]) -> None:
    image = tensor([[[5.0, 7.0]]], **meta)
    assert Monochrome2d("image")({"image": image})["image"] is image


@pytest.mark.parametrize(("top", "divisor"), [(255, 255.0), (200, 255.0), (256, 65535.0), (65535, 65535.0)])
def test_colour_is_divided_by_the_largest_value_of_its_depth(top: int, divisor: float) -> None:
    values = np.linspace(0, top, 48).reshape(3, 4, 4)
    item = ScaleToUnitd("image")({"image": tensor(values, case_id="a")})
    assert np.allclose(np.asarray(item["image"]), values / divisor, atol=1e-6)
    assert item["image"].meta["case_id"] == "a"


def test_grey_becomes_three_channels_that_do_not_share_memory() -> None:
    image = ScaleToUnitd("image")({"image": tensor(np.full((1, 4, 4), 51.0))})["image"]
    assert image.shape == (3, 4, 4) and np.allclose(np.asarray(image), 0.2)
    image[0] = 0.0
    assert image[1].min().item() == pytest.approx(0.2)


# --- stains ----------------------------------------------------------------------------------------------


def tile(
    haematoxylin: list[float], eosin: list[float], strength: tuple[float, float], size: int = 64
) -> Tensor:
    """(3, H, W): the same tissue, nuclei and stroma and glass, in stains of the given optical densities."""
    rng = np.random.default_rng(0)
    fields = [gaussian_filter(rng.standard_normal((size, size)), sigma) for sigma in (2.0, 5.0)]
    nuclei = np.clip(fields[0] / fields[0].std() - 0.5, 0, None)
    stroma = np.clip(fields[1] / fields[1].std() + 0.3, 0, None)
    stains = np.array([haematoxylin, eosin]) / np.linalg.norm([haematoxylin, eosin], axis=1, keepdims=True)
    density = np.einsum("sc,shw->chw", stains, np.stack([nuclei * strength[0], stroma * strength[1]]))
    return torch.from_numpy(np.exp(-density)).float()


STAINS = [([0.65, 0.70, 0.29], [0.22, 0.90, 0.30]), ([0.50, 0.75, 0.45], [0.25, 0.80, 0.50])]
LABORATORIES = [tile(*STAINS[0], (0.8, 0.4)), tile(*STAINS[1], (0.5, 0.7))]


def test_optical_density_is_zero_for_white_and_finite_for_black() -> None:
    density = optical_density(np.array([1.0, np.exp(-1.0), 0.0]))
    assert density == pytest.approx([0.0, 1.0, np.log(255)])


def restained(image: Tensor, seed: int, **settings: Any) -> Tensor:
    transform = RandStaind("image", prob=1.0, **settings)
    transform.set_random_state(seed)
    result = transform({"image": MetaTensor(image.clone())})["image"]
    assert isinstance(result, MetaTensor)
    return result.as_tensor()


@pytest.mark.parametrize("seed", range(10))
def test_random_stains_keep_glass_white_and_the_range(seed: int) -> None:
    image = LABORATORIES[0].clone()
    image[:, :10] = 1.0
    image[:, 10:14] = 0.0
    changed = restained(image, seed, strength=0.5)
    assert torch.allclose(changed[:, :10], torch.ones(3, 10, 64), atol=1e-6)
    assert changed.min().item() >= 0.0 and changed.max().item() <= 1.0
    assert (changed - image).abs().max().item() > 0.01


def test_random_stains_repeat_with_the_seed_and_change_with_it() -> None:
    image = LABORATORIES[0]
    assert torch.equal(restained(image, 3), restained(image, 3))
    assert (restained(image, 3) - restained(image, 4)).abs().max().item() > 0.005


def test_random_stains_scale_the_amount_of_each_stain_alone() -> None:
    stains = torch.from_numpy(HE_REFERENCE / np.linalg.norm(HE_REFERENCE, axis=1, keepdims=True)).float()
    pure = torch.exp(-0.8 * stains).T[:, None]  # (3, 1, 2): a pixel of haematoxylin and one of eosin
    density = -restained(pure, 0, strength=0.2).log()
    amounts = torch.linalg.lstsq(stains.T, density[:, 0]).solution
    assert torch.allclose(stains.T @ amounts, density[:, 0], atol=1e-4)
    # 0.8 scaled by 1 +- 0.2, and both stains of tissue shifted by up to 0.05
    assert ((amounts.diagonal() - 0.8).abs() <= 0.8 * 0.2 + 0.05 + 1e-4).all()
    assert (amounts - amounts.diagonal().diag()).abs().max().item() <= 0.05 + 1e-4
    assert (amounts.diagonal() - 0.8).abs().min().item() > 1e-3


def test_random_stains_of_probability_zero_change_nothing() -> None:
    transform = RandStaind("image", prob=0.0)
    image = LABORATORIES[0]
    assert torch.equal(transform({"image": image})["image"], image)
