"""Noise schedules equal the published formulas, and steps lie on them where they should."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from bundle.diffusion import (
    alpha_sigma,
    cosine_log_snr,
    linear_beta_log_snr,
    noised,
    resolution_shift,
    steps_by_log_snr,
    steps_by_time,
)

SHIFTED = partial(cosine_log_snr, shift=resolution_shift(352))


@pytest.mark.parametrize("shift", [0.0, -3.41, 1.5])
def test_cosine_is_the_ratio_of_squared_cosine_and_sine(shift: float) -> None:
    times = [0.01, 0.1, 0.37, 0.5, 0.81, 0.99]
    naive = [math.log(math.cos(math.pi * t / 2) ** 2 / math.sin(math.pi * t / 2) ** 2) + shift for t in times]
    assert cosine_log_snr(torch.tensor(times), shift).tolist() == pytest.approx(naive, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cosine_is_finite_and_bounded_at_the_ends(dtype: torch.dtype) -> None:
    assert cosine_log_snr(torch.tensor([0.0, 1.0], dtype=dtype)).tolist() == [15.0, -15.0]
    assert SHIFTED(torch.tensor([0.0, 1.0], dtype=dtype)).tolist() == [15.0, -15.0]


@pytest.mark.parametrize("schedule", [cosine_log_snr, SHIFTED, linear_beta_log_snr])
def test_log_snr_never_rises_with_time(schedule: partial[torch.Tensor]) -> None:
    log_snr = schedule(torch.linspace(0.0, 1.0, 2001, dtype=torch.float64))
    assert (log_snr.diff() <= 0).all() and (log_snr[100:1900].diff() < 0).all()


def test_resolution_shift_for_352_pixels() -> None:
    assert resolution_shift(352) == pytest.approx(2 * math.log(64 / 352))
    assert resolution_shift(352) == pytest.approx(-3.41, abs=0.005)
    assert resolution_shift(64) == 0.0
    assert resolution_shift(128, reference_size=128) == 0.0


def ddpm_alphas_bar() -> list[float]:
    """Ho et al. 2020: T = 1000, beta from 1e-4 to 0.02 in equal steps."""
    product, products = 1.0, []
    for step in range(1000):
        product *= 1.0 - (1e-4 + (0.02 - 1e-4) * step / 999)
        products.append(product)
    return products


def test_linear_beta_equals_ddpm_at_every_discrete_step() -> None:
    times = torch.tensor([step / 999 for step in range(1000)], dtype=torch.float64)
    alphas_bar = torch.sigmoid(linear_beta_log_snr(times))
    assert alphas_bar.tolist() == pytest.approx(ddpm_alphas_bar(), rel=1e-8)
    alpha, sigma = alpha_sigma(linear_beta_log_snr(times.float()))
    assert alpha.square().tolist() == pytest.approx(ddpm_alphas_bar(), rel=1e-3)
    assert sigma.square().tolist() == pytest.approx([1 - value for value in ddpm_alphas_bar()], rel=1e-3)


def test_linear_beta_keeps_shape_and_type() -> None:
    log_snr = linear_beta_log_snr(torch.rand(3, 2))
    assert log_snr.shape == (3, 2) and log_snr.dtype == torch.float32


def test_linear_beta_is_linear_in_log_snr_between_two_steps() -> None:
    ends = linear_beta_log_snr(torch.tensor([500 / 999, 501 / 999], dtype=torch.float64))
    between = linear_beta_log_snr(torch.tensor([500.25 / 999], dtype=torch.float64))
    assert between.item() == pytest.approx(0.75 * ends[0].item() + 0.25 * ends[1].item(), abs=1e-9)


def test_alpha_and_sigma_are_on_the_unit_circle_and_give_the_snr() -> None:
    log_snr = torch.linspace(-15, 15, 301, dtype=torch.float64)
    alpha, sigma = alpha_sigma(log_snr)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(301, dtype=torch.float64), atol=1e-12)
    assert torch.allclose((alpha**2 / sigma**2).log(), log_snr, atol=1e-9)


def test_noised_has_the_mean_and_variance_of_the_forward_process() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.tensor([1.0, -1.0, 0.3]).view(3, 1, 1, 1).expand(3, 2, 200, 200)
    log_snr = torch.tensor([-2.0, 0.0, 3.0])
    noisy = noised(clean, torch.randn(clean.shape, generator=generator), log_snr)
    for image in range(3):
        share = 1 / (1 + math.exp(-log_snr[image].item()))
        standard_error = math.sqrt((1 - share) / 80_000)
        mean = math.sqrt(share) * clean[image].mean().item()
        assert noisy[image].mean().item() == pytest.approx(mean, abs=5 * standard_error)
        assert noisy[image].var().item() == pytest.approx(1 - share, rel=5 * math.sqrt(2 / 80_000))


@pytest.mark.parametrize("place", [steps_by_time, steps_by_log_snr])
@pytest.mark.parametrize("steps", [1, 2, 10, 250])
def test_steps_have_their_number_and_rise_from_noise(place: object, steps: int) -> None:
    assert callable(place)
    log_snrs = place(SHIFTED, steps)
    assert log_snrs.shape == (steps,)
    assert (log_snrs.diff() > 0).all()
    assert log_snrs[0].item() <= -10.0


def test_steps_by_time_start_at_one_and_end_before_zero() -> None:
    log_snrs = steps_by_time(linear_beta_log_snr, 4)
    assert log_snrs.tolist() == pytest.approx(
        linear_beta_log_snr(torch.tensor([1.0, 0.75, 0.5, 0.25])).tolist()
    )


def test_steps_by_log_snr_are_equally_far_apart_and_within_what_the_schedule_reaches() -> None:
    assert steps_by_log_snr(SHIFTED, 8).tolist() == pytest.approx([-10 + 2 * i for i in range(8)], abs=1e-5)
    ends = linear_beta_log_snr(torch.tensor([1.0, 0.0]))
    reached = steps_by_log_snr(linear_beta_log_snr, 5, lowest=-100.0, highest=100.0)
    assert reached[[0, -1]].tolist() == pytest.approx(ends.tolist(), abs=1e-5)


def test_ten_steps_by_time_put_nine_below_a_third_and_by_log_snr_do_not() -> None:
    third = math.log(1 / 3)
    assert int((steps_by_time(SHIFTED, 10) < third).sum()) == 9
    assert int((steps_by_log_snr(SHIFTED, 10) < third).sum()) < 8


@pytest.mark.parametrize("place", [steps_by_time, steps_by_log_snr])
def test_no_step_at_all_is_refused(place: object) -> None:
    assert callable(place)
    with pytest.raises(ValueError, match="at least 1 step, not 0"):
        place(cosine_log_snr, 0)
