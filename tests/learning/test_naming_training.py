"""Naming is learnt on texts alone: other parts stay, a stopped training goes on exactly, and words name structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.cases import CaseReference
from bundle.cases.structures import Structures
from bundle.learning import NamingTraining
from bundle.networks import DiffusionSegmenter, MaskDenoiser, PvtV2Prior, StructureNaming, TextPrior
from bundle.networks.weights import WeightsError, load_weights, start_from

STRUCTURES = Structures(
    [
        {"name": "liver", "modality": "CT"},
        {"name": "spleen", "modality": "CT"},
        {"name": "COVID-19 infection", "modality": "X-ray"},
        {"name": "nucleus", "modality": "H&E"},
    ]
)
QUICK: dict[str, Any] = {
    "texts": 24,
    "learning_rate": 2e-3,
    "warmup_steps": 5,
    "save_every": 4,
    "progress": False,
}


def network() -> DiffusionSegmenter:
    torch.manual_seed(0)
    text = TextPrior(training="finetuned")
    prior = PvtV2Prior("b0_slim")
    denoiser = MaskDenoiser(STRUCTURES.channels, prior.channels, width=8, upsample_widths=(8,))
    return DiffusionSegmenter(
        prior, denoiser, text_prior=text, naming=StructureNaming(len(STRUCTURES), text.width)
    )


def test_words_come_to_name_structures_and_nothing_else_changes(tmp_path: Path) -> None:
    taught = network()
    before = {name: value.clone() for name, value in taught.state_dict().items()}
    figures = NamingTraining(taught, STRUCTURES, tmp_path, steps=60, **QUICK).run()
    assert taught.read("segment the liver").channels == (1,)
    assert taught.read("spleen and liver").channels == (1, 2)
    assert taught.read("a trampoline").channels == ()
    assert set(figures) == {"held_out_names", "meaningless"} and figures["meaningless"] > 0.5
    changed = {
        name.split(".")[0] for name, value in taught.state_dict().items() if not value.equal(before[name])
    }
    assert changed == {"text_prior", "naming"}
    again = load_weights(network(), tmp_path / "model.pt")
    assert all(value.equal(taught.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_stopped_training_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halted = network(), network()
    NamingTraining(whole, STRUCTURES, tmp_path / "whole", steps=8, **QUICK).run()
    training = NamingTraining(halted, STRUCTURES, tmp_path / "parts", steps=8, **QUICK)
    step = training._step

    def killed(number: int) -> float:
        if number == 6:  # after the checkpoint at 4
            raise KeyboardInterrupt
        return step(number)

    monkeypatch.setattr(training, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        training.run()
    resumed = network()
    going_on = NamingTraining(resumed, STRUCTURES, tmp_path / "parts", steps=8, **QUICK)
    assert going_on.done == 4
    going_on.run()
    assert all(value.equal(whole.state_dict()[name]) for name, value in resumed.state_dict().items())
    with pytest.raises(WeightsError):
        NamingTraining(network(), STRUCTURES, tmp_path / "parts", steps=9, **QUICK)


def test_texts_of_cases_name_what_their_modality_shows(tmp_path: Path) -> None:
    own = "Zwei Herde, vermutlich alt."
    reference = CaseReference(id="a", image=tmp_path / "a.png", modality="X-ray", prompt=own)
    taught = network()
    training = NamingTraining(taught, STRUCTURES, tmp_path, [[reference]], steps=30, own_share=0.5, **QUICK)
    assert training.own == [("X-ray", own)]
    training.run()
    assert taught.read(own).channels == (3,)


def test_a_network_without_text_is_refused(tmp_path: Path) -> None:
    prior = PvtV2Prior("b0_slim")
    bare = DiffusionSegmenter(prior, MaskDenoiser(5, prior.channels, width=8, upsample_widths=(8,)))
    with pytest.raises(ValueError, match="read_text"):
        NamingTraining(bare, STRUCTURES, tmp_path)


def test_frozen_parts_do_not_learn_and_name_nothing_in_training() -> None:
    frozen = start_from(network(), frozen=["text_prior", "naming"])
    learning = {name.split(".")[0] for name, weight in frozen.named_parameters() if weight.requires_grad}
    assert learning == {"image_prior", "denoiser"}
    assert isinstance(frozen, DiffusionSegmenter) and not frozen.learns_names
    noisy = torch.randn(1, STRUCTURES.channels, 32, 32), torch.zeros(1)
    assert isinstance(frozen(torch.rand(1, 3, 32, 32), ["liver"], noisy=noisy), torch.Tensor)
    with pytest.raises(ValueError, match="frozen_parts: 'neck' is none of image_prior"):
        start_from(network(), frozen=["neck"])
