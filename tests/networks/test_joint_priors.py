"""A PVT with EfficientNet-Lite under or beside it has the PVT's maps, and goes on from weights of the PVT alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bundle.diffusion.sampling import Sampling
from bundle.networks import (
    DiffusionSegmenter,
    EfficientNetLitePrior,
    MaskDenoiser,
    PvtBesideLitePrior,
    PvtOnLitePrior,
    PvtV2Prior,
    WeightsError,
    build_image_prior,
    count_parameters,
    load_weights,
    start_from,
)

NAMES = ("b0_on_lite0", "b0_slim_beside_lite0")


@pytest.mark.parametrize(
    ("name", "kind", "parameters"),
    [
        ("b0_slim", PvtV2Prior, 3_319_392),
        ("lite0", EfficientNetLitePrior, 2_958_848),
        ("b0_on_lite0", PvtOnLitePrior, 5_962_528),
        ("b0_slim_beside_lite0", PvtBesideLitePrior, 6_381_920),
    ],
)
def test_priors_by_name(name: str, kind: type[nn.Module], parameters: int) -> None:
    with torch.device("meta"):
        prior = build_image_prior(name)
        maps = prior(torch.empty(1, 3, 64, 96))
    assert type(prior) is kind
    assert count_parameters(prior) == parameters
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert tuple(m.shape[1] for m in maps) == prior.channels


@pytest.mark.parametrize("name", ["lite1", "b9_on_lite0", "b0_beside", "_on_lite0"])
def test_unknown_priors_are_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=f"^image_prior must be one of b0_slim, .*, not '{name}'$"):
        build_image_prior(name)


def small(name: str, seed: int = 0) -> DiffusionSegmenter:
    torch.manual_seed(seed)
    prior = build_image_prior(name)
    denoiser = MaskDenoiser(3, prior.channels, width=16, upsample_widths=(16,), mask_stride=4)  # type: ignore[arg-type]
    return DiffusionSegmenter(prior, denoiser, sampling=Sampling()).eval()


@pytest.mark.parametrize("name", ["lite0", *NAMES])
def test_an_image_alone_is_segmented_and_weights_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    network = small(name)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = network(image)
    assert found.shape == (1, 3, 64, 64)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 64, 64))
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    again = load_weights(small(name, seed=1), tmp_path / "weights.pt")
    with torch.no_grad():
        torch.testing.assert_close(again(image), found)  # in another memory layout


def test_beside_lite_a_pvt_goes_on_from_where_it_stood(tmp_path: Path) -> None:
    alone = small("b0_slim")
    torch.save(alone.state_dict(), tmp_path / "alone.pt")
    joint = start_from(small("b0_slim_beside_lite0", seed=1), tmp_path / "alone.pt", inherit=True).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(joint(image), alone(image))


def test_on_lite_the_coarse_stages_of_a_pvt_are_inherited(tmp_path: Path) -> None:
    alone = small("b0_slim")
    torch.save(alone.state_dict(), tmp_path / "alone.pt")
    joint = start_from(small("b0_on_lite0", seed=1), tmp_path / "alone.pt", inherit=True)
    given, own = alone.state_dict(), joint.state_dict()
    shared = [key for key in own if key in given]
    assert all(torch.equal(own[key], given[key]) for key in shared)
    stages = {key.split(".")[4] for key in shared if key.startswith("image_prior.backbone")}
    assert stages == {"2", "3"}
    assert {key.split(".")[1] for key in own if key not in given} == {"lite", "join"}


def test_weights_that_share_nothing_are_refused(tmp_path: Path) -> None:
    torch.save({"elsewhere": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"other\.pt: holds no tensor of this network"):
        start_from(small("lite0"), tmp_path / "other.pt", inherit=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_of_a_joint_prior_learns(name: str) -> None:
    torch.manual_seed(0)
    prior = build_image_prior(name).train()
    for _ in range(2):  # projections that begin at zero pass nothing on at first
        prior.zero_grad()
        maps = prior(torch.rand(1, 3, 64, 64))
        weights = torch.Generator().manual_seed(3)
        loss = sum(((m * torch.randn(m.shape, generator=weights)).mean() for m in maps), torch.zeros(()))
        loss.backward()
        with torch.no_grad():
            for parameter in prior.parameters():
                assert parameter.grad is not None
                parameter -= 0.01 * parameter.grad.sign()
    idle = [key for key, p in prior.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []
