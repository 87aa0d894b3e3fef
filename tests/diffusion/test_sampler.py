"""Reverse steps equal the published posteriors, and noise is drawn as documented."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bundle.diffusion import (
    ancestral_step,
    cosine_log_snr,
    ddim_step,
    linear_beta_log_snr,
    sample,
    seeded_noise,
    steps_by_log_snr,
    steps_by_time,
)
from bundle.diffusion.sampler import SamplerName
from bundle.diffusion.sampling import Sampling, sample_members

ROOT = Path(__file__).resolve().parents[2]
SAMPLERS: list[SamplerName] = ["ancestral", "ddim"]
#: (noisier, cleaner) discrete steps of DDPM.
PAIRS = [(999, 998), (999, 0), (700, 333), (500, 499), (20, 3)]


def alphas_bar(step: int) -> float:
    product = 1.0
    for i in range(step + 1):
        product *= 1.0 - (1e-4 + (0.02 - 1e-4) * i / 999)
    return product


def log_snr_at(step: int) -> Tensor:
    return linear_beta_log_snr(torch.tensor(step / 999, dtype=torch.float64))


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn((2, 3, 4, 4), generator=generator, dtype=torch.float64)
    return x_t, torch.rand((2, 3, 4, 4), generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize(("t", "s"), PAIRS)
def test_ancestral_step_has_mean_and_variance_of_the_ddpm_posterior(
    pair: tuple[Tensor, Tensor], t: int, s: int
) -> None:
    x_t, x_0 = pair
    bar_t, bar_s = alphas_bar(t), alphas_bar(s)
    # equations 6 and 7, with the transition from s to t in the place of one step
    alpha = bar_t / bar_s
    beta = 1 - alpha
    mean = math.sqrt(bar_s) * beta / (1 - bar_t) * x_0 + math.sqrt(alpha) * (1 - bar_s) / (1 - bar_t) * x_t
    variance = (1 - bar_s) / (1 - bar_t) * beta
    silent = ancestral_step(x_t, x_0, log_snr_at(t), log_snr_at(s), torch.zeros_like(x_t))
    assert torch.allclose(silent, mean, atol=1e-7)
    noise = torch.randn_like(x_t)
    added = ancestral_step(x_t, x_0, log_snr_at(t), log_snr_at(s), noise) - silent
    assert torch.allclose(added, math.sqrt(variance) * noise, atol=1e-7)


@pytest.mark.parametrize(("t", "s"), PAIRS)
def test_ddim_step_moves_along_the_predicted_noise(pair: tuple[Tensor, Tensor], t: int, s: int) -> None:
    x_t, x_0 = pair
    bar_t, bar_s = alphas_bar(t), alphas_bar(s)
    epsilon = (x_t - math.sqrt(bar_t) * x_0) / math.sqrt(1 - bar_t)
    naive = math.sqrt(bar_s) * x_0 + math.sqrt(1 - bar_s) * epsilon
    assert torch.allclose(ddim_step(x_t, x_0, log_snr_at(t), log_snr_at(s)), naive, atol=1e-7)


@pytest.mark.parametrize("step", [ancestral_step, ddim_step])
def test_a_step_to_the_same_noise_level_changes_nothing(step: Callable[..., Tensor]) -> None:
    x_t, x_0, level = torch.randn(1, 2, 4, 4), torch.rand(1, 2, 4, 4), torch.tensor(-1.5)
    extra = [torch.randn_like(x_t)] if step is ancestral_step else []
    assert torch.allclose(step(x_t, x_0, level, level, *extra), x_t, atol=1e-5)


class Oracle:
    """Knows the clean mask, and keeps what it was asked about."""

    def __init__(self, x_0: Tensor) -> None:
        self.x_0 = x_0
        self.asked: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x_t: Tensor, log_snr: Tensor) -> Tensor:
        self.asked.append((x_t, log_snr))
        return self.x_0


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("place", [steps_by_time, steps_by_log_snr])
def test_with_an_oracle_every_state_of_the_chain_follows_the_forward_process(
    sampler: SamplerName, place: Callable[..., Tensor]
) -> None:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randint(0, 2, (1, 2, 120, 120), generator=generator).float() * 2 - 1
    log_snrs = place(cosine_log_snr, 6)
    oracle = Oracle(x_0)
    noise = seeded_noise(0, ["case"], x_0.shape[1:])
    assert all(torch.equal(prediction, x_0) for prediction in sample(oracle, noise, log_snrs, sampler))
    assert len(oracle.asked) == 6
    for (x_t, level), log_snr in zip(oracle.asked, log_snrs.tolist(), strict=True):
        assert level.tolist() == pytest.approx([log_snr])
        signal, noise_share = 1 / (1 + math.exp(-log_snr)), 1 / (1 + math.exp(log_snr))
        for value in (-1.0, 1.0):
            rest = (x_t - math.sqrt(signal) * x_0)[x_0 == value] / math.sqrt(noise_share)
            # the chain starts from pure noise, where q(x_1 | x_0) still has alpha = 0.007 of signal
            assert rest.mean().item() == pytest.approx(0.0, abs=5 / math.sqrt(rest.numel()) + 0.007)
            assert rest.var().item() == pytest.approx(1.0, rel=5 * math.sqrt(2 / rest.numel()))


@pytest.mark.parametrize(("sampler", "draws"), [("ddim", 1), ("ancestral", 7)])
def test_noise_is_drawn_once_by_ddim_and_once_a_step_by_ancestral(sampler: SamplerName, draws: int) -> None:
    drawn, asked = [], []

    def noise() -> Tensor:
        drawn.append(torch.randn(2, 3, 8, 8))
        return drawn[-1]

    def denoiser(x_t: Tensor, log_snr: Tensor) -> Tensor:
        asked.append(log_snr)
        return x_t.clamp(-1, 1)

    predictions = list(sample(denoiser, noise, steps_by_log_snr(cosine_log_snr, 7), sampler))
    assert len(predictions) == len(asked) == 7
    assert len(drawn) == draws
    assert torch.equal(predictions[0], drawn[0].clamp(-1, 1))
    assert all(log_snr.shape == (2,) for log_snr in asked)


def test_predictions_are_yielded_as_they_are_made() -> None:
    oracle = Oracle(torch.ones(1, 1, 4, 4))
    chain = sample(oracle, seeded_noise(0, ["a"], (1, 4, 4)), steps_by_log_snr(cosine_log_snr, 5))
    assert oracle.asked == []
    next(chain)
    assert len(oracle.asked) == 1


def test_unknown_sampler_is_refused_in_one_sentence() -> None:
    unknown: Any = "euler"
    with pytest.raises(ValueError, match="sampler must be 'ancestral' or 'ddim', not 'euler'"):
        next(sample(Oracle(torch.zeros(1)), lambda: torch.zeros(1), torch.zeros(1), unknown))


def test_members_stand_one_after_the_other() -> None:
    members = [seeded_noise(0, [f"a/{m}"], (2, 4, 4)) for m in range(3)]
    together = sample_members(lambda x, _: x.tanh(), members, cosine_log_snr, Sampling(steps=4, members=3))
    assert together.shape == (12, 1, 2, 4, 4)
    alone = seeded_noise(0, ["a/1"], (2, 4, 4))
    chain = list(sample(lambda x, _: x.tanh(), alone, steps_by_log_snr(cosine_log_snr, 4)))
    assert torch.equal(together[4:8], torch.stack(chain))


def test_placement_decides_where_members_are_evaluated() -> None:
    asked: dict[str, list[float]] = {}
    for placement in ("time", "log_snr"):
        oracle = Oracle(torch.ones(1, 1, 4, 4))
        settings: Any = {"steps": 3, "placement": placement}
        sample_members(oracle, [seeded_noise(0, ["a"], (1, 4, 4))], cosine_log_snr, Sampling(**settings))
        asked[placement] = [level.item() for _, level in oracle.asked]
    assert asked["time"] == pytest.approx(steps_by_time(cosine_log_snr, 3).tolist())
    assert asked["log_snr"] == pytest.approx(steps_by_log_snr(cosine_log_snr, 3).tolist())


# --- noise -----------------------------------------------------------------------------------------------


def test_seeded_noise_does_not_depend_on_batch_order_or_what_was_drawn_for_others() -> None:
    shape = (2, 5, 5)
    batch, turned = seeded_noise(3, ["a", "b", "c"], shape), seeded_noise(3, ["c", "a"], shape)
    alone = seeded_noise(3, ["c"], shape)
    for _ in range(3):
        first, second, third = batch(), turned(), alone()
        assert torch.equal(first[2], third[0]) and torch.equal(second[0], third[0])
        assert torch.equal(first[0], second[1])


def test_seeded_noise_ignores_and_spares_the_global_generator() -> None:
    torch.manual_seed(0)
    before = seeded_noise(1, ["a"], (4,))()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(seeded_noise(1, ["a"], (4,))(), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_seeded_noise_differs_between_keys_seeds_and_draws() -> None:
    def draw(seed: int, key: str) -> Tensor:
        return seeded_noise(seed, [key], (4000,))()[0]

    source = seeded_noise(0, ["a"], (4000,))
    streams = [source()[0], source()[0], draw(0, "b"), draw(1, "a"), draw(-1, "a"), draw(0, "a/member 0")]
    correlation = torch.corrcoef(torch.stack(streams)) - torch.eye(len(streams))
    assert correlation.abs().max().item() < 5 / math.sqrt(4000)


def test_seeded_noise_is_standard_normal() -> None:
    drawn = seeded_noise(0, ["a", "b"], (1, 200, 200))()
    assert drawn.mean().item() == pytest.approx(0.0, abs=5 / math.sqrt(drawn.numel()))
    assert drawn.var().item() == pytest.approx(1.0, rel=5 * math.sqrt(2 / drawn.numel()))


def test_seeded_noise_is_the_same_in_another_process() -> None:
    code = (
        "import json; from bundle.diffusion import seeded_noise;"
        "print(json.dumps(seeded_noise(11, ['case0037/slice 12', 'ä'], (2, 3))().tolist()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    here = seeded_noise(11, ["case0037/slice 12", "ä"], (2, 3))()
    assert torch.equal(torch.tensor(json.loads(done.stdout)), here)


# --- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["steps", "members"])
@pytest.mark.parametrize("value", [0, -1, 1001, 2.0, "2", True, None])
def test_sampling_refuses_numbers_of_steps_and_members_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a whole number from 1 to 1000, not {value!r}$"):
        Sampling(**{name: value})


@pytest.mark.parametrize("name", ["sampler", "placement", "consensus", "uncertainty"])
def test_sampling_refuses_unknown_names_and_lists_the_known(name: str) -> None:
    unknown: dict[str, Any] = {name: "bogus"}
    with pytest.raises(ValueError, match=rf"^{name} must be one of \w+, .*not 'bogus'$"):
        Sampling(**unknown)


def test_sampling_refuses_a_seed_that_is_no_whole_number() -> None:
    seed: Any = 1.5
    with pytest.raises(ValueError, match=r"seed must be a whole number, not 1\.5"):
        Sampling(seed=seed)


def test_sampling_takes_every_documented_value() -> None:
    choices: dict[str, list[Any]] = {
        "sampler": ["ddim", "ancestral"],
        "placement": ["time", "log_snr"],
        "consensus": ["mean", "majority", "staple", "last"],
        "uncertainty": ["entropy", "variance"],
        "steps": [1, 1000],
        "members": [1, 1000],
        "seed": [-5, 0, 2**70],
    }
    for name, values in choices.items():
        for value in values:
            assert getattr(Sampling(**{name: value}), name) == value
