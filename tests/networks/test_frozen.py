"""Frozen encoders: no part of weights, of training and of copies, and not to be exchanged unnoticed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bundle.networks import WeightsError
from bundle.networks.frozen import Frozen, fingerprint


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        Frozen(nn.Sequential(nn.Linear(2, 3), nn.Dropout()), "test encoder"), nn.Linear(3, 1)
    )


def test_is_no_part_of_weights_training_or_copies() -> None:
    model = network()
    frozen = model[0]
    assert isinstance(frozen, Frozen)
    assert [name for name, _ in model.named_parameters()] == ["1.weight", "1.bias"]
    assert set(model.state_dict()) == {"0.fingerprint", "1.weight", "1.bias"}
    model.train()
    assert not frozen.module.training
    assert copy.deepcopy(model)[0].module is frozen.module


def test_follows_its_owner() -> None:
    model = network()
    model.double()
    assert model(torch.zeros(1, 2, dtype=torch.float64)).dtype == torch.float64
    assert model.to("meta")[0].module[0].weight.is_meta


def test_gradients_pass_through() -> None:
    model = network()
    x = torch.zeros(1, 2, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert model[0].module[0].weight.grad is None


def test_weights_trained_beside_another_encoder_are_refused() -> None:
    model = network()
    other = network(seed=1)
    same = network()
    same.load_state_dict(model.state_dict())
    with pytest.raises(WeightsError, match="trained beside another test encoder"):
        other.load_state_dict(model.state_dict())


def test_fingerprint_tells_names_shapes_and_values() -> None:
    base = nn.Linear(2, 2)
    moved = copy.deepcopy(base)
    assert torch.equal(fingerprint(base), fingerprint(moved))
    moved.weight.data[0, 0] += 1e-3
    assert not torch.equal(fingerprint(base), fingerprint(moved))
    assert not torch.equal(fingerprint(base), fingerprint(nn.Sequential(base)))
