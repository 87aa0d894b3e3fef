"""The image prior runs once and changes nothing by it; batches, members and possible classes keep apart."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bundle.diffusion import ancestral_step, consensus, ddim_step, sample, seeded_noise
from bundle.diffusion import steps_by_log_snr as place
from bundle.diffusion.sampler import SamplerName
from bundle.diffusion.sampling import Sampling
from bundle.networks import DiffusionSegmenter, MaskDenoiser, PvtV2Prior

Make = Callable[..., DiffusionSegmenter]
KEYS = ["case 1/slice 0", "case 1/slice 1", "case 2", "case 3"]


@pytest.mark.parametrize("conditioning", ["mask", "pyramid"])
@pytest.mark.parametrize(("steps", "members"), [(1, 1), (4, 1), (3, 3)])
def test_the_prior_runs_once_and_the_denoiser_once_a_step(
    make_segmenter: Make, images: Tensor, conditioning: str, steps: int, members: int
) -> None:
    network = make_segmenter(time_conditioning=conditioning)
    assert network.image_prior is not None
    counted: dict[str, int] = {"prior": 0, "denoiser": 0}

    def count(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            counted[name] += 1

        return hook

    network.image_prior.register_forward_hook(count("prior"))
    network.denoiser.register_forward_hook(count("denoiser"))
    with torch.no_grad():
        predictions = network.predict(images, KEYS, Sampling(steps=steps, members=members))
    assert counted == {"prior": 1, "denoiser": steps * members}
    assert predictions.shape == (steps * members, 4, 4, 64, 64)


def naive_predictions(
    network: DiffusionSegmenter, image: Tensor, keys: list[str], sampling: Sampling
) -> Tensor:
    """Everything anew at every step, the prior included."""
    levels = place(network.schedule, sampling.steps)
    predictions = []
    for member in range(sampling.members):
        streams = [f"{key}/member {member}" for key in keys]
        noise = seeded_noise(sampling.seed, streams, (network.classes, *image.shape[-2:]))
        x_t = noise()
        for step in range(sampling.steps):
            assert network.image_prior is not None
            condition = network.denoiser.prepare(image, network.image_prior(image))
            logits = network.denoiser(x_t, levels[step].expand(len(image)), condition)
            probability = logits.softmax(dim=1)
            predictions.append(probability)
            if step + 1 < sampling.steps:
                x_0, ends = 2 * probability - 1, (levels[step], levels[step + 1])
                if sampling.sampler == "ancestral":
                    x_t = ancestral_step(x_t, x_0, *ends, noise())
                else:
                    x_t = ddim_step(x_t, x_0, *ends)
    return torch.stack(predictions)


@torch.no_grad()
@pytest.mark.parametrize("conditioning", ["mask", "pyramid"])
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
@pytest.mark.parametrize("fusion", ["additive", "concatenation"])
def test_running_the_prior_once_gives_what_running_it_at_every_step_gives(
    make_segmenter: Make, images: Tensor, conditioning: str, sampler: SamplerName, fusion: str
) -> None:
    network = make_segmenter(time_conditioning=conditioning, fusion=fusion)
    sampling = Sampling(steps=3, members=2, seed=5, sampler=sampler)
    naive = naive_predictions(network, images[:2], KEYS[:2], sampling)
    assert torch.allclose(network.predict(images[:2], KEYS[:2], sampling), naive, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["additive", "none"])
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_a_batch_of_four_equals_one_by_one(
    make_segmenter: Make, images: Tensor, fusion: str, sampler: SamplerName
) -> None:
    network = make_segmenter(fusion=fusion)
    sampling = Sampling(steps=3, members=2, sampler=sampler)
    batch = network.predict(images, KEYS, sampling)
    for index, key in enumerate(KEYS):
        alone = network.predict(images[index : index + 1], [key], sampling)
        assert torch.allclose(batch[:, index : index + 1], alone, atol=1e-5)
    turned = network.predict(images.flip(0), KEYS[::-1], sampling)
    assert torch.allclose(batch, turned.flip(1), atol=1e-5)


@torch.no_grad()
def test_predictions_depend_on_seed_key_and_member(make_segmenter: Make, images: Tensor) -> None:
    network = make_segmenter()
    first = network.predict(images[:1], ["a"], Sampling(steps=1, members=2))
    assert torch.equal(first, network.predict(images[:1], ["a"], Sampling(steps=1, members=2)))
    assert not torch.allclose(first[0], first[1], atol=1e-4)
    assert not torch.allclose(first, network.predict(images[:1], ["b"], Sampling(1, 2)), atol=1e-4)
    assert not torch.allclose(first, network.predict(images[:1], ["a"], Sampling(1, 2, seed=1)), atol=1e-4)


@torch.no_grad()
def test_more_members_leave_the_first_as_it_was(make_segmenter: Make, images: Tensor) -> None:
    network = make_segmenter()
    one = network.predict(images, KEYS, Sampling(steps=2, members=1))
    three = network.predict(images, KEYS, Sampling(steps=2, members=3))
    assert torch.allclose(three[:2], one, atol=1e-6)


@torch.no_grad()
def test_probabilities_of_impossible_classes_are_exactly_zero(make_segmenter: Make, images: Tensor) -> None:
    network = make_segmenter()
    possible = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    predictions = network.predict(images, KEYS, Sampling(steps=3), possible)
    chosen = possible[None, :, :, None, None].expand_as(predictions)
    assert (predictions[~chosen] == 0).all()
    assert (predictions[chosen] > 0).all()
    assert torch.allclose(predictions.sum(dim=2), torch.ones(3, 4, 64, 64), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("detail", [False, True])
def test_a_mask_noised_at_stride_four_is_predicted_at_full_resolution(
    make_segmenter: Make, images: Tensor, detail: bool
) -> None:
    network = make_segmenter(mask_stride=4, detail=detail)
    asked: list[Tensor] = []
    network.denoiser.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0]))
    predictions = network.predict(images, KEYS, Sampling(steps=2))
    assert [tuple(x_t.shape) for x_t in asked] == [(4, 4, 16, 16)] * 2
    assert predictions.shape == (2, 4, 4, 64, 64)
    # the second step carries on what the first predicted, averaged over squares of 4 x 4
    log_snrs = Sampling(steps=2).log_snrs(network.schedule)
    x_0 = nn.functional.avg_pool2d(predictions[0], 4) * 2.0 - 1.0
    expected = ddim_step(asked[0], x_0, log_snrs[0], log_snrs[1])
    torch.testing.assert_close(asked[1], expected)


@torch.no_grad()
def test_the_image_changes_the_mask_within_a_pixel_of_the_prior(make_segmenter: Make, images: Tensor) -> None:
    network = make_segmenter(mask_stride=4, detail=True)
    blind = copy.deepcopy(network)
    assert blind.denoiser.detail is not None
    nn.init.zeros_(blind.denoiser.detail.read.weight)
    seen, unseen = (each.predict(images, KEYS, Sampling(steps=1)) for each in (network, blind))
    assert not torch.allclose(seen, unseen, atol=1e-4)


@torch.no_grad()
def test_image_alone_gives_the_consensus_of_the_settings_it_was_made_with(
    make_segmenter: Make, images: Tensor
) -> None:
    sampling = Sampling(steps=2, members=2, seed=3, consensus="majority")
    network = make_segmenter(sampling)
    fused = network(images[:2])
    assert fused.shape == (2, 4, 64, 64)
    assert torch.allclose(fused.sum(dim=1), torch.ones(2, 64, 64), atol=1e-5)
    predictions = network.predict(images[:2], ["image 0", "image 1"], sampling)
    assert torch.equal(fused, consensus(predictions, 2, "majority"))
    assert torch.equal(fused, network(images[:2]))


@pytest.mark.parametrize("size", [(63, 64), (64, 48), (33, 31)])
@pytest.mark.parametrize("fusion", ["additive", "none"])
def test_sides_that_are_no_multiple_of_32_are_refused(
    make_segmenter: Make, size: tuple[int, int], fusion: str
) -> None:
    with pytest.raises(ValueError, match=rf"multiples of 32, not \({size[0]}, {size[1]}\)"):
        make_segmenter(fusion=fusion)(torch.rand(1, 3, *size))


@torch.no_grad()
def test_sides_may_differ(make_segmenter: Make) -> None:
    assert make_segmenter()(torch.rand(1, 3, 32, 96)).shape == (1, 4, 32, 96)


@pytest.mark.parametrize("fusion", ["additive", "concatenation", "none"])
@pytest.mark.parametrize("conditioning", ["mask", "pyramid"])
def test_one_training_pass_sends_gradients_to_every_parameter(
    make_segmenter: Make, images: Tensor, fusion: str, conditioning: str
) -> None:
    prior = PvtV2Prior("b0")
    network = make_segmenter(image_prior=prior, fusion=fusion, time_conditioning=conditioning).train()
    logits = network(images[:2], noisy=(torch.randn(2, 4, 64, 64), torch.tensor([-3.0, 1.0])))
    (logits * torch.randn_like(logits)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        # attention does not change when all keys are shifted by one vector
        assert name.endswith("attention.key.bias") or parameter.grad.abs().max().item() > 0, name
    assert (network.image_prior is None) == (fusion == "none")


@torch.no_grad()
@pytest.mark.parametrize("conditioning", ["mask", "pyramid"])
def test_two_interleaved_predictions_equal_separate_ones(
    make_segmenter: Make, images: Tensor, conditioning: str
) -> None:
    network = make_segmenter(time_conditioning=conditioning)
    sampling = Sampling(steps=3, sampler="ancestral")
    separate = [network.predict(images[i : i + 1], [KEYS[i]], sampling) for i in range(2)]

    def chain(index: int) -> Callable[[Tensor, Tensor], Tensor]:
        condition = network.encode(images[index : index + 1])
        return lambda x_t, level: network.denoise(x_t, level, condition).softmax(dim=1) * 2 - 1

    denoisers = [chain(0), chain(1)]
    noises = [seeded_noise(0, [f"{KEYS[i]}/member 0"], (4, 64, 64)) for i in range(2)]
    levels = place(network.schedule, 3)
    chains = [sample(d, n, levels, "ancestral") for d, n in zip(denoisers, noises, strict=True)]
    for step, pair in enumerate(zip(*chains, strict=True)):
        for index, x_0 in enumerate(pair):
            assert torch.allclose((x_0 + 1) / 2, separate[index][step], atol=1e-6)


@torch.no_grad()
def test_prediction_leaves_no_trace_in_the_network(make_segmenter: Make, images: Tensor) -> None:
    network = make_segmenter()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in network.named_modules()}
    network.predict(images, KEYS, Sampling(steps=2))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert {name: set(vars(module)) for name, module in network.named_modules()} == attributes


def test_a_fusing_denoiser_without_prior_is_refused() -> None:
    denoiser = MaskDenoiser(3, [8, 8, 8, 8], width=16, upsample_widths=(8, 8))
    with pytest.raises(ValueError, match="the denoiser fuses an image prior, and none was given"):
        DiffusionSegmenter(None, denoiser)
