"""The settings of a reverse process and the reverse process over several members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bundle.diffusion.consensus import ConsensusName
from bundle.diffusion.sampler import Denoiser, NoiseSource, SamplerName, sample
from bundle.diffusion.schedule import LogSnrSchedule, steps_by_log_snr, steps_by_time
from bundle.diffusion.uncertainty import UncertaintyName

StepPlacement = Literal["time", "log_snr"]


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

    steps: int = 2
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
    denoiser: Denoiser, noises: Sequence[NoiseSource], schedule: LogSnrSchedule, sampling: Sampling
) -> Tensor:
    """Predictions of x_0 of all members, their steps one after the other.

    Args:
        denoiser: (x_t, log-SNR) -> x_0 in [-1, 1].
        noises: one source a member.

    Returns:
        (members * steps, B, K, H, W) in [-1, 1].
    """
    log_snrs = sampling.log_snrs(schedule)
    return torch.stack(
        [x_0 for noise in noises for x_0 in sample(denoiser, noise, log_snrs, sampling.sampler)]
    )
