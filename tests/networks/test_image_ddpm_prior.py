"""Features of a frozen image DDPM: which, of what, and kept so that nothing changes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from bundle.diffusion.sampler import seeded_noise
from bundle.diffusion.schedule import linear_beta_log_snr, noised
from bundle.networks import GuidedLayout, GuidedUNet, ImageDdpmPrior, TensorStore, save_guided_unet

TINY = GuidedLayout(8, (1, 2), 1, (2,), 8, out_channels=3, norm_groups=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = GuidedUNet(TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path_factory.mktemp("image_ddpm")
    save_guided_unet(network.state_dict(), TINY, path)
    return path


def count_passes(prior: ImageDdpmPrior) -> list[int]:
    """Grows by one with each pass of the UNet's first layer."""
    passes: list[int] = []
    prior.unet.module.input_blocks[0].register_forward_hook(lambda *_: passes.append(1))  # type: ignore[union-attr]
    return passes


def test_features_are_those_of_one_step_after_the_other(folder: Path) -> None:
    prior = ImageDdpmPrior(folder, blocks=(1, 3), timesteps=(50, 250))
    assert prior.channels == (32, 16)
    image = torch.rand(3, 3, 8, 12)
    passes = count_passes(prior)
    maps = prior(image)
    assert len(passes) == 1
    noise = seeded_noise(0, ["member 0"], (3, 8, 12))()
    unet = prior.unet.module
    assert isinstance(unet, GuidedUNet)
    for number in range(3):
        for step, timestep in enumerate((50, 250)):
            log_snr = linear_beta_log_snr(torch.tensor([timestep / 999]))
            x_t = noised(image[number : number + 1] * 2 - 1, noise, log_snr)
            one_by_one = unet.features(x_t, torch.tensor([timestep]), (1, 3))
            for features, alone, width in zip(maps, one_by_one, (16, 8), strict=True):
                torch.testing.assert_close(
                    features[number, step * width : (step + 1) * width], alone[0], atol=1e-4, rtol=1e-4
                )


def test_members_have_noises_of_their_own(folder: Path) -> None:
    prior = ImageDdpmPrior(folder, blocks=(3,))
    image = torch.rand(1, 3, 8, 8)
    first, again, second = prior(image)[0], prior(image)[0], prior(image, member=1)[0]
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


def test_gradients_reach_the_prompt_and_nothing_else(folder: Path) -> None:
    prior = ImageDdpmPrior(folder, blocks=(3,))
    assert not list(prior.parameters())
    prompt = torch.zeros(2, prior.embedding_width, requires_grad=True)
    prior(torch.rand(2, 3, 8, 8), prompt)[0].sum().backward()
    assert prompt.grad is not None and prompt.grad.abs().sum() > 0
    assert all(p.grad is None for p in prior.unet.module.parameters())
    assert not prior(torch.rand(2, 3, 8, 8))[0].requires_grad


def test_kept_features_are_the_same_from_memory_from_disk_and_in_any_batch(
    folder: Path, tmp_path: Path
) -> None:
    image = torch.rand(2, 3, 8, 8)
    plain = ImageDdpmPrior(folder, blocks=(1, 3))(image)
    prior = ImageDdpmPrior(folder, blocks=(1, 3), store=TensorStore(tmp_path))
    passes = count_passes(prior)
    with torch.autocast("cpu", torch.bfloat16):
        first = prior(image)
    assert len(passes) == 2
    again = copy.deepcopy(prior)(image.flip(0))
    assert len(passes) == 2
    for a, b, c in zip(first, again, plain, strict=True):
        assert torch.equal(a, b.flip(0))
        torch.testing.assert_close(a, c, atol=1e-2, rtol=1e-2)  # half precision
    other = ImageDdpmPrior(folder, blocks=(1, 3), store=TensorStore(tmp_path))
    passes = count_passes(other)
    assert all(torch.equal(a, b) for a, b in zip(first, other(image), strict=True))
    assert not passes
    changed = ImageDdpmPrior(folder, blocks=(1, 3), seed=1, store=TensorStore(tmp_path))
    assert not torch.equal(changed(image)[0], first[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": (3, 1)}, "ascending"),
        ({"blocks": (1, 9)}, "numbered 0 to 3"),
        ({"timesteps": (1000,)}, "0 to 999"),
        ({"timesteps": ()}, "0 to 999"),
    ],
)
def test_settings_that_make_no_sense(folder: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDdpmPrior(folder, **settings)  # type: ignore[arg-type]


def test_needs_weights_or_a_layout() -> None:
    with pytest.raises(ValueError, match="source of weights or a layout"):
        ImageDdpmPrior()
