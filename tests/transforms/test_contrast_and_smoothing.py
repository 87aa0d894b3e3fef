"""Contrast phases vary what is enhanced alone; smoothing before thinning out keeps borders and the case."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from bundle.transforms.intensity import RandContrastPhased
from bundle.transforms.smoothing import SmoothForSized, SmoothForSpacingd


def test_a_contrast_phase_scales_the_excess_over_soft_tissue_and_leaves_the_rest() -> None:
    image = torch.linspace(0, 1, 50).view(1, 5, 10)
    transform = RandContrastPhased("image", prob=1.0, soft_tissue=0.4, share=(0.25, 0.25))
    result = transform({"image": MetaTensor(image)})["image"].as_tensor()
    naive = torch.where(image > 0.4, 0.4 + (image - 0.4) * 0.25, image)
    assert torch.allclose(result, naive, atol=1e-6)


def test_contrast_phases_repeat_with_the_seed_and_differ_without() -> None:
    image = torch.linspace(0, 1, 50).view(1, 5, 10)
    transform = RandContrastPhased("image", prob=1.0)

    def drawn(seed: int) -> torch.Tensor:
        transform.set_random_state(seed=seed)
        return torch.as_tensor(transform({"image": MetaTensor(image)})["image"])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_axes_that_become_coarser_are_smoothed_and_others_are_not() -> None:
    noise = np.random.default_rng(0).standard_normal((1, 20, 24, 28)).astype(np.float32)
    volume = MetaTensor(
        torch.from_numpy(noise.copy()), affine=torch.diag(torch.tensor([-0.8, -0.8, 3.0, 1.0]))
    )
    result = SmoothForSpacingd("image", pixdim=(2.4, 1.6, 3.0))({"image": volume})["image"]
    naive = gaussian_filter(noise, (0, 1.0, 0.5, 0), mode="nearest")
    assert np.allclose(np.asarray(result), naive, atol=1e-5)
    assert np.array_equal(np.asarray(volume), noise), "the case keeps what it was read as"
    assert np.allclose(np.asarray(result.affine), np.asarray(volume.affine))


def test_finer_grids_leave_the_image_alone() -> None:
    volume = MetaTensor(torch.rand(1, 6, 6, 6), affine=torch.diag(torch.tensor([3.0, 3.0, 5.0, 1.0])))
    assert SmoothForSpacingd("image", pixdim=(2.4, 2.4, 3.0))({"image": volume})["image"] is volume


@pytest.mark.parametrize(("size", "sigma"), [(40, 1.0), (60, 0.5), (200, 0.0)])
def test_films_are_smoothed_by_how_much_smaller_they_become_and_keep_their_borders(
    size: int, sigma: float
) -> None:
    film = torch.full((1, 120, 90), 0.7)
    film[0, 40:50] = 0.2
    result = SmoothForSized("image", size)({"image": MetaTensor(film)})["image"].as_tensor()
    naive = gaussian_filter(film.numpy(), (0, sigma, sigma), mode="nearest") if sigma else film.numpy()
    assert np.allclose(result.numpy(), naive, atol=1e-5)
    assert torch.allclose(result[0, 0], film[0, 0], atol=1e-6)


def test_noise_of_a_large_film_is_averaged_and_not_aliased() -> None:
    film = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 800, 800)).astype(np.float32))
    smooth = SmoothForSized("image", 100)({"image": MetaTensor(film)})["image"].as_tensor()
    assert smooth[..., ::8, ::8].std() < 0.15 < film[..., ::8, ::8].std()
