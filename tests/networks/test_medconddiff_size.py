"""MedCondDiff as configured has the paper's number of parameters, part by part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from bundle.networks import DiffusionSegmenter, count_parameters

ROOT = Path(__file__).resolve().parents[2]


def configured(*files: str, **overrides: object) -> DiffusionSegmenter:
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / file) for file in files])
    for key, value in overrides.items():
        parser[key] = value
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def")
    assert isinstance(network, DiffusionSegmenter)
    return network


@pytest.fixture(autouse=True)
def in_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def structures() -> list[dict[str, str]]:
    return [{"name": name, "modality": "CT"} for name in ("left lung", "right lung", "heart", "oesophagus")]


def test_parts_of_medconddiff_with_five_classes(structures: list[dict[str, str]]) -> None:
    network = configured("inference.yaml", "medconddiff.yaml", structures=structures)
    assert network.classes == 5
    assert network.image_prior is not None and network.denoiser.pyramid_time is not None
    prior = count_parameters(network.image_prior)
    times = count_parameters(network.denoiser.pyramid_time)
    rest = count_parameters(network.denoiser) - times
    assert (prior, times, rest) == (13_496_000, 3_085_312, 8_069_637)
    assert count_parameters(network) == prior + times + rest == 24_650_949
    assert count_parameters(network) == pytest.approx(24.7e6, rel=0.005)
    assert count_parameters(network, trainable=True) == count_parameters(network)


def test_medconddiff_samples_as_published(structures: list[dict[str, str]]) -> None:
    network = configured("inference.yaml", "medconddiff.yaml", structures=structures)
    sampling = network.sampling
    assert (sampling.steps, sampling.sampler, sampling.placement, sampling.consensus) == (
        10,
        "ancestral",
        "time",
        "mean",
    )
    half = network.schedule(torch.tensor([0.5], dtype=torch.float64))
    assert half.item() == pytest.approx(-3.41, abs=0.005)


@pytest.mark.parametrize("fusion", ["concatenation", "none"])
def test_ablations_of_the_fusion_are_one_setting_away(structures: list[dict[str, str]], fusion: str) -> None:
    network = configured("inference.yaml", "medconddiff.yaml", structures=structures, fusion=fusion)
    assert (network.image_prior is None) == (fusion == "none")
    with torch.device("meta"):
        logits = network(torch.empty(1, 3, 352, 352), noisy=(torch.empty(1, 5, 352, 352), torch.empty(1)))
    assert logits.shape == (1, 5, 352, 352)
