"""The settings of a reverse process and the reverse process over several members."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bundle.diffusion.consensus import ConsensusName
from bundle.diffusion.sampler import Denoiser, NoiseSource, SamplerName, sample, seeded_noise
from bundle.diffusion.schedule import LogSnrSchedule, steps_by_log_snr, steps_by_time
from bundle.diffusion.uncertainty import UncertaintyName

StepPlacement = Literal["time", "log_snr"]
#: (x_t (B, K, h, w), log-SNR (B,)) -> logits of the clean mask (B, K, H, W), as fine as x_t or finer.
MaskLogits = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sampling:
    """How masks are sampled.

    Attributes:
        steps: evaluations of the denoiser a member.
        members: chains, each from noise of its own.
        seed: of the noise, together with what the image shows.
        sampler: 'ddim' or 'ancestral'.
        placement: steps at equal distances in 'time' or in 'log_snr'.
        consensus: 'mean', 'majority', 'staple' or 'last'.
        uncertainty: 'entropy' or 'variance'.
    """

    steps: int = 1
    members: int = 1
    seed: int = 0
    sampler: SamplerName = "ddim"
    placement: StepPlacement = "log_snr"
    consensus: ConsensusName = "mean"
    uncertainty: UncertaintyName = "entropy"

    def __post_init__(self) -> None:
        for name in ("steps", "members"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1000:
                raise ValueError(f"{name} must be a whole number from 1 to 1000, not {value!r}")
        if not isinstance(self.seed, int):
            raise ValueError(f"seed must be a whole number, not {self.seed!r}")
        choices = {
            "sampler": SamplerName,
            "placement": StepPlacement,
            "consensus": ConsensusName,
            "uncertainty": UncertaintyName,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(allowed))}, not {getattr(self, name)!r}"
                )

    def log_snrs(self, schedule: LogSnrSchedule) -> Tensor:
        """(steps,) rising: where on a schedule the steps of a member are."""
        place = steps_by_time if self.placement == "time" else steps_by_log_snr
        return place(schedule, self.steps)


def sample_members(
    denoiser: Denoiser,
    noises: Sequence[NoiseSource],
    schedule: LogSnrSchedule,
    sampling: Sampling,
    to_x_0: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Predictions of all members, their steps one after the other.

    Args:
        denoiser, to_x_0: see `bundle.diffusion.sampler.sample`.
        noises: one source a member.

    Returns:
        (members * steps, B, K, H, W) in [-1, 1], or what the denoiser predicts.
    """
    log_snrs = sampling.log_snrs(schedule)
    chains = (sample(denoiser, noise, log_snrs, sampling.sampler, to_x_0) for noise in noises)
    return torch.stack([prediction for chain in chains for prediction in chain])


def sample_masks(
    logits: MaskLogits,
    keys: Sequence[str],
    shape: Sequence[int],
    schedule: LogSnrSchedule,
    sampling: Sampling,
    mask_stride: int = 1,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Every prediction of every member, for a network that gives logits.

    Args:
        logits: see `MaskLogits`.
        keys: one an image; noise is seeded with (sampling.seed, key, member).
        shape: of a mask, (K, H, W).
        mask_stride: H / h; the noisy mask is carried on from the means of its squares.

    Returns:
        (members * steps, B, K, H, W) probabilities.
    """
    noisy = (shape[0], *(side // mask_stride for side in shape[1:]))
    noises = [
        seeded_noise(sampling.seed, [f"{key}/member {member}" for key in keys], noisy, device)
        for member in range(sampling.members)
    ]
    return sample_members(
        lambda x_t, log_snr: logits(x_t, log_snr).softmax(dim=1),
        noises,
        schedule,
        sampling,
        lambda probability: nn.functional.avg_pool2d(probability, mask_stride) * 2.0 - 1.0,
    )
