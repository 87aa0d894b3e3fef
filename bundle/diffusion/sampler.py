"""Reverse diffusion as pure functions: (denoiser, noise source, log-SNR of the steps) -> predictions of x_0.

No state is kept anywhere: each prediction is yielded as it is made, for a consensus to take or drop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from bundle.diffusion.schedule import alpha_sigma

#: (x_t (B, K, H, W), log-SNR (B,)) -> predicted x_0 in [-1, 1], the shape of x_t.
Denoiser = Callable[[Tensor, Tensor], Tensor]
#: Draws the next standard normal sample of shape (B, K, H, W).
NoiseSource = Callable[[], Tensor]
SamplerName = Literal["ancestral", "ddim"]


def seeded_noise(
    seed: int, keys: Sequence[str], shape: Sequence[int], device: torch.device | str = "cpu"
) -> NoiseSource:
    """A noise source in which every element of the batch has a stream of its own.

    The stream depends on (seed, key) alone: not on the batch it is drawn in, on what was drawn before
    for other cases, or on the device, since it is always drawn on the CPU.

    Args:
        keys: one a batch element, e.g. 'case0037/slice 12/member 0'.
        shape: of one element, (K, H, W).
    """
    generators = [torch.Generator().manual_seed(_stable_seed(f"{seed}/{key}")) for key in keys]
    size = tuple(shape)

    def draw() -> Tensor:
        return torch.stack([torch.randn(size, generator=generator) for generator in generators]).to(device)

    return draw


def _stable_seed(text: str) -> int:
    # Python's hash() changes from process to process
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") & (2**63 - 1)


def ancestral_step(x_t: Tensor, x_0: Tensor, log_snr: Tensor, log_snr_next: Tensor, noise: Tensor) -> Tensor:
    """One draw from the posterior q(x_s | x_t, x_0), s less noisy than t (DDPM, Ho et al. 2020, eq. 6-7).

    In continuous time (Kingma et al. 2021, appendix A.4): with c = 1 - exp(log_snr_t - log_snr_s),
    mean = alpha_s (x_t (1 - c) / alpha_t + c x_0) and variance = sigma_s^2 c.
    """
    alpha, _ = alpha_sigma(log_snr)
    alpha_next, sigma_next = alpha_sigma(log_snr_next)
    c = -torch.expm1(log_snr - log_snr_next)
    mean = alpha_next * (x_t * (1.0 - c) / alpha + c * x_0)
    return mean + sigma_next * c.sqrt() * noise


def ddim_step(x_t: Tensor, x_0: Tensor, log_snr: Tensor, log_snr_next: Tensor) -> Tensor:
    """The deterministic step of DDIM (Song et al. 2021, eq. 12 with sigma = 0)."""
    alpha, sigma = alpha_sigma(log_snr)
    alpha_next, sigma_next = alpha_sigma(log_snr_next)
    return alpha_next * x_0 + sigma_next * (x_t - alpha * x_0) / sigma


def sample(
    denoiser: Denoiser,
    noise: NoiseSource,
    log_snrs: Tensor,
    sampler: SamplerName = "ddim",
    to_x_0: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Run one reverse chain and yield the prediction of x_0 at every step.

    The noisy mask is carried on from predictions in [-1, 1], the range of the masks that training noised;
    the update after the last prediction would be thrown away and is not made.

    Args:
        denoiser: see `Denoiser`.
        noise: see `NoiseSource`; drawn once for the start and, by 'ancestral', once between steps.
        log_snrs: (steps,) rising, from `bundle.diffusion.schedule`.
        sampler: 'ancestral' or 'ddim'.
        to_x_0: of a denoiser that predicts in another form, what makes x_0 of a prediction.

    Yields:
        (B, K, H, W) in [-1, 1], or what the denoiser predicts, one a step.
    """
    if sampler not in ("ancestral", "ddim"):
        raise ValueError(f"sampler must be 'ancestral' or 'ddim', not {sampler!r}")
    x_t = noise()
    log_snrs = log_snrs.to(x_t)
    for step, log_snr in enumerate(log_snrs):
        prediction = denoiser(x_t, log_snr.expand(len(x_t)))
        yield prediction
        if step + 1 == len(log_snrs):
            return
        x_0 = prediction if to_x_0 is None else to_x_0(prediction)
        if sampler == "ancestral":
            x_t = ancestral_step(x_t, x_0, log_snr, log_snrs[step + 1], noise())
        else:
            x_t = ddim_step(x_t, x_0, log_snr, log_snrs[step + 1])
