"""Diffusion over masks: schedule, sampler, consensus and uncertainty, all pure functions."""

from bundle.diffusion.consensus import consensus
from bundle.diffusion.sampler import ancestral_step, ddim_step, sample, seeded_noise
from bundle.diffusion.schedule import (
    alpha_sigma,
    cosine_log_snr,
    linear_beta_log_snr,
    noised,
    resolution_shift,
    steps_by_log_snr,
    steps_by_time,
)
from bundle.diffusion.uncertainty import disagreement, predictive_entropy, uncertainty

__all__ = [
    "alpha_sigma",
    "ancestral_step",
    "consensus",
    "cosine_log_snr",
    "ddim_step",
    "disagreement",
    "linear_beta_log_snr",
    "noised",
    "predictive_entropy",
    "resolution_shift",
    "sample",
    "seeded_noise",
    "steps_by_log_snr",
    "steps_by_time",
    "uncertainty",
]
