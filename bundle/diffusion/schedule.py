"""Noise schedules over continuous time, and where on them a sampler steps.

A schedule is a function of time alone: ``log_snr(t)`` with t in [0, 1], 0 clean and 1 pure noise, as in
Kingma et al., 'Variational Diffusion Models' (2021). Everything else follows from the log signal-to-noise
ratio: ``alpha^2 = sigmoid(log_snr)``, ``sigma^2 = sigmoid(-log_snr)``, ``x_t = alpha x_0 + sigma noise``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

LogSnrSchedule = Callable[[Tensor], Tensor]

#: Beyond these bounds alpha or sigma is indistinguishable from 0 in float32.
LOG_SNR_MIN, LOG_SNR_MAX = -15.0, 15.0
#: Timesteps of the discrete schedule that image DDPMs were trained with (Ho et al. 2020).
DDPM_STEPS = 1000


def resolution_shift(image_size: int, reference_size: int = 64) -> float:
    """Shift in log-SNR that keeps the noise on a larger mask as destructive as at the reference size.

    Neighbouring pixels of a larger mask carry the same information, so they average noise away:
    2 ln(64 / size), Hoogeboom et al., 'simple diffusion' (2023), eq. 4. 352 pixels give -3.41.
    """
    return 2.0 * math.log(reference_size / image_size)


def cosine_log_snr(t: Tensor, shift: float = 0.0) -> Tensor:
    """Cosine schedule in continuous time, ``-2 ln tan(pi t / 2) + shift``.

    Nichol & Dhariwal (2021) in the form of Hoogeboom et al. (2023), eq. 3 and 4.

    Args:
        t: any shape, in [0, 1].
        shift: added log-SNR, see `resolution_shift`.

    Returns:
        log-SNR of the shape of t, clamped to [-15, 15].
    """
    log_snr = -2.0 * torch.log(torch.tan(t.clamp(1e-7, 1.0 - 1e-7) * (math.pi / 2.0)))
    return (log_snr + shift).clamp(LOG_SNR_MIN, LOG_SNR_MAX)


def linear_beta_log_snr(
    t: Tensor, beta_start: float = 1e-4, beta_end: float = 0.02, train_steps: int = DDPM_STEPS
) -> Tensor:
    """The linear-beta schedule of DDPM (Ho et al., 2020) in continuous time.

    Exact at t = i / (train_steps - 1), where it equals the discrete step i; linear in log-SNR between.

    Args:
        t: any shape, in [0, 1].

    Returns:
        log-SNR of the shape of t.
    """
    betas = torch.linspace(beta_start, beta_end, train_steps, dtype=torch.float64, device=t.device)
    alphas_bar = torch.cumprod(1.0 - betas, dim=0)
    discrete = torch.log(alphas_bar) - torch.log1p(-alphas_bar)
    position = t.to(torch.float64).clamp(0.0, 1.0) * (train_steps - 1)
    lower = position.floor().long().clamp(max=train_steps - 2)
    log_snr = torch.lerp(discrete[lower], discrete[lower + 1], position - lower)
    return log_snr.clamp(LOG_SNR_MIN, LOG_SNR_MAX).to(t.dtype)


def alpha_sigma(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise amplitudes (alpha, sigma) of a log-SNR; alpha^2 + sigma^2 = 1."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


def noised(x_0: Tensor, noise: Tensor, log_snr: Tensor) -> Tensor:
    """Forward process q(x_t | x_0): ``alpha x_0 + sigma noise``.

    Args:
        x_0: (B, K, ...) clean masks in [-1, 1].
        noise: standard normal, the shape of x_0.
        log_snr: (B,).
    """
    alpha, sigma = alpha_sigma(log_snr.view(-1, *[1] * (x_0.ndim - 1)))
    return alpha * x_0 + sigma * noise


def steps_by_time(schedule: LogSnrSchedule, steps: int) -> Tensor:
    """log-SNR of `steps` evaluations at equal distances in time, as published samplers place them.

    Returns:
        (steps,) rising from the noisy end, t = 1, 1 - 1/steps, ..., 1/steps.
    """
    return schedule(torch.linspace(1.0, 0.0, _checked(steps) + 1)[:-1])


def steps_by_log_snr(
    schedule: LogSnrSchedule, steps: int, lowest: float = -10.0, highest: float = 4.0
) -> Tensor:
    """log-SNR of `steps` evaluations at equal distances in log-SNR.

    Equal steps in time waste nearly all evaluations where the mask is still noise (nine of ten below
    SNR 1/3 for 352 pixels); equal steps in log-SNR spend them evenly from noise to a clear mask.

    Args:
        lowest, highest: the range covered, clipped to what the schedule reaches.

    Returns:
        (steps,) rising; a single step starts from noise.
    """
    ends = schedule(torch.tensor([1.0, 0.0]))
    first, last = max(lowest, float(ends[0])), min(highest, float(ends[1]))
    return torch.linspace(first, last, _checked(steps))


def _checked(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"a sampler needs at least 1 step, not {steps}")
    return steps
