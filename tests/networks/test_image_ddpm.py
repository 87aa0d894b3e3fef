"""The image DDPM: the original code's numbers, the published layout key for key, and weights that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bundle.diffusion.schedule import DDPM_STEPS, linear_beta_log_snr, noised
from bundle.networks import (
    GUIDED_LAYOUTS,
    GuidedLayout,
    GuidedUNet,
    WeightsError,
    load_guided_unet,
    save_guided_unet,
)

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
SMALL = GuidedLayout(channels=32, multipliers=(1, 1, 2), blocks=2, attention_strides=(2, 4), head_channels=16)
TINY = GuidedLayout(
    8, (1, 2), 1, attention_strides=(2,), head_channels=8, image_channels=3, out_channels=3, norm_groups=4
)
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason=f"{REFERENCE} with the original code's numbers is not here"
)


@pytest.fixture(scope="module")
def published() -> tuple[GuidedUNet, dict[str, Tensor]]:
    network = load_guided_unet(REFERENCE / "guided_unet_small_weights.safetensors", SMALL)
    return network.eval(), load_file(REFERENCE / "guided_unet_small_io.safetensors")


@needs_reference
@pytest.mark.parametrize("step", [50, 150, 250])
def test_outputs_and_features_of_the_original_code(
    published: tuple[GuidedUNet, dict[str, Tensor]], step: int
) -> None:
    network, numbers = published
    noisy, timesteps = numbers[f"noisy_t{step}"], torch.full((2,), step)
    with torch.no_grad():
        torch.testing.assert_close(network(noisy, timesteps), numbers[f"output_t{step}"], atol=1e-5, rtol=0)
        for block, features in zip(
            (1, 4, 7, 8), network.features(noisy, timesteps, (8, 1, 7, 4)), strict=True
        ):
            torch.testing.assert_close(features, numbers[f"block{block}_t{step}"], atol=1e-5, rtol=0)
    log_snr = linear_beta_log_snr(timesteps / (DDPM_STEPS - 1))
    ours = noised(numbers["image"], numbers["noise"], log_snr)
    torch.testing.assert_close(ours, noisy, atol=1e-5, rtol=0)


@needs_reference
def test_published_layout_key_for_key() -> None:
    reference = json.loads((REFERENCE / "guided_diffusion_256_uncond.json").read_text())
    with torch.device("meta"):
        network = GuidedUNet("guided_diffusion_256")
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert shapes == reference["state_dict"]
    assert sum(p.numel() for p in network.parameters()) == reference["parameters"] == 552_814_086


def test_decoder_widths_of_the_published_layout() -> None:
    widths = GUIDED_LAYOUTS["guided_diffusion_256"].decoder_widths
    assert [widths[block] for block in (4, 6, 8, 12, 16)] == [1024, 512, 512, 256, 256]


def test_features_stop_behind_the_last_block_and_match_a_whole_pass() -> None:
    network = GuidedUNet(TINY).eval()
    for parameter in network.parameters():  # the residual branches start at zero
        torch.nn.init.normal_(parameter, std=0.2)
    x, timesteps = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    ran = []
    for number, stage in enumerate(network.output_blocks):
        stage.register_forward_hook(lambda *_, number=number: ran.append(number))
    some = network.features(x, timesteps, [1])
    assert ran == [0, 1]
    everything = network.features(x, timesteps, [0, 1, 2, 3])
    torch.testing.assert_close(some[0], everything[1])
    torch.testing.assert_close(network.out(everything[3]), network(x, timesteps))


def test_prompt_is_added_to_the_timestep_embedding() -> None:
    network = GuidedUNet(TINY).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, timesteps = torch.randn(2, 3, 8, 8), torch.tensor([50, 50])
    plain = network.features(x, timesteps, [3])[0]
    prompt = torch.randn(2, network.embedding_width)
    guided = network.features(x, timesteps, [3], prompt)[0]
    torch.testing.assert_close(network.features(x, timesteps, [3], torch.zeros_like(prompt))[0], plain)
    network.time_embed[2].bias.data += prompt[0]
    moved = network.features(x, timesteps, [3])[0]
    torch.testing.assert_close(moved[0], guided[0])
    assert not torch.allclose(guided, plain)


@pytest.mark.parametrize("blocks", [[], [4], [-1]])
def test_blocks_that_are_not_there(blocks: list[int]) -> None:
    with pytest.raises(ValueError, match="numbered 0 to 3"):
        GuidedUNet(TINY).features(torch.zeros(1, 3, 8, 8), torch.tensor([0]), blocks)


def test_sides_that_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="multiples of 2"):
        GuidedUNet(TINY)(torch.zeros(1, 3, 9, 8), torch.tensor([0]))


def test_weights_and_layout_round_trip_in_half_precision(tmp_path: Path) -> None:
    network = GuidedUNet(TINY)
    save_guided_unet(network.state_dict(), TINY, tmp_path)
    again = load_guided_unet(tmp_path)
    assert again.layout == TINY
    for key, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value.half().float(), atol=0, rtol=0)


def test_a_published_pt_file_loads_from_a_folder(tmp_path: Path) -> None:
    network = GuidedUNet(TINY)
    torch.save(network.state_dict(), tmp_path / "256x256_diffusion_uncond.pt")
    again = load_guided_unet(tmp_path, TINY)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in network.state_dict().items())


def test_one_sentence_for_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = GuidedUNet(TINY).state_dict()
    missing = {key: value for key, value in state.items() if key != "out.2.bias"}
    save_file(missing, tmp_path / "missing.safetensors")
    with pytest.raises(
        WeightsError, match=r"missing\.safetensors: 1 tensors are missing, first out\.2\.bias"
    ):
        load_guided_unet(tmp_path / "missing.safetensors", TINY)
    torch.save({**state, "out.2.bias": torch.zeros(6)}, tmp_path / "shape.pt")
    with pytest.raises(WeightsError, match=r"shape\.pt: 1 have another shape, first out\.2\.bias"):
        load_guided_unet(tmp_path / "shape.pt", TINY)
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_guided_unet(tmp_path / "text.safetensors", TINY)
    with pytest.raises(WeightsError, match="no such image DDPM"):
        load_guided_unet(tmp_path / "nothing")
    save_file(state, tmp_path / "alone.safetensors")
    with pytest.raises(WeightsError, match=r"has no layout\.json beside it"):
        load_guided_unet(tmp_path / "alone.safetensors")
    with pytest.raises(WeightsError, match="holds 3 weights files"):
        (tmp_path / "text.safetensors").unlink()
        load_guided_unet(tmp_path, TINY)
    (tmp_path / "layout.json").write_text('{"channels": 8, "colour": "blue"}')
    with pytest.raises(WeightsError, match="is not a layout"):
        load_guided_unet(tmp_path / "alone.safetensors")
    with pytest.raises(ValueError, match="must be one of guided_diffusion_256, compact"):
        load_guided_unet(tmp_path / "alone.safetensors", "huge")
