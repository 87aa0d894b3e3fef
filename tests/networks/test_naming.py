"""A prompt guides and names what is segmented: its texts are read once, and name for themselves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bundle.diffusion.sampling import Sampling
from bundle.networks import DiffusionSegmenter, PyramidTextConditioning, StructureNaming, TextPrior
from bundle.networks.segmenter import MaskAndNaming
from bundle.networks.text_prior import TextFeatures

PROMPTS = ["liver", "both kidneys, outlined on this axial slice"]
TEXTS = ["infection of the lower left lung and of all zones of the right lung", "", "nothing"]
KEYS = ["case 1", "case 2"]
NOISY = (torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(2)), torch.tensor([-3.0, 1.0]))


@pytest.fixture
def make(make_segmenter: Callable[..., DiffusionSegmenter]) -> Callable[..., DiffusionSegmenter]:
    """A small segmenter that reads text; `trained`, so that the text has its say."""

    def made(trained: bool = True, fusion: str = "additive", **parts: Any) -> DiffusionSegmenter:
        bare = make_segmenter(fusion=fusion)
        prior = TextPrior(training="finetuned")
        settings: dict[str, Any] = {
            "text_prior": prior,
            "text_conditioning": PyramidTextConditioning((8, 8, 16, 16), prior.width, width=8),
            "naming": StructureNaming(3, prior.width),
        } | parts
        if trained:
            for parameter in settings["text_conditioning"].leave.parameters():
                nn.init.normal_(parameter)
        return DiffusionSegmenter(bare.image_prior, bare.denoiser, **settings).eval()

    return made


@torch.no_grad()
def test_log_odds_are_the_largest_over_the_real_tokens() -> None:
    torch.manual_seed(0)
    naming = StructureNaming(3, 5)
    for parameter in naming.parameters():
        nn.init.normal_(parameter)
    lengths = [3, 6, 1]
    mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
    tokens = torch.randn(3, 6, 5).where(mask[..., None], 100.0)  # what stands in the padding does not count
    found = naming(TextFeatures(tokens, mask, tokens[:, 0]))
    for prompt, length in enumerate(lengths):
        each = []
        for token in tokens[prompt, :length]:
            spread = (token - token.mean()) / (token.var(unbiased=False) + 1e-5).sqrt()
            hidden = naming.hidden.weight @ (spread * naming.norm.weight + naming.norm.bias)
            lifted = hidden + naming.hidden.bias
            gelu = lifted * 0.5 * (1 + torch.erf(lifted / 2**0.5))
            each.append(naming.score.weight @ gelu + naming.score.bias)
        for structure in range(3):
            expected = max(float(scores[structure]) for scores in each)
            assert float(found[prompt, structure]) == pytest.approx(expected, abs=1e-4)


def test_an_untrained_network_names_nothing(make: Callable[..., DiffusionSegmenter]) -> None:
    network = make()
    assert network.names_structures and network.reads_text
    for text in (*PROMPTS, "nothing"):
        reading = network.read(text)
        assert (reading.channels, reading.not_understood) == ((), (text,))


def test_without_words_or_without_naming_nothing_is_chosen(make: Callable[..., DiffusionSegmenter]) -> None:
    network = make()
    assert [network.read(text).channels for text in ("", " ", "\n \t")] == [None] * 3
    for bare in (
        make(naming=None),
        make(trained=False, text_prior=None, text_conditioning=None, naming=None),
    ):
        assert not bare.names_structures and bare.read("liver").channels is None


def test_a_structure_that_is_named_has_the_channel_after_its_index(
    make: Callable[..., DiffusionSegmenter],
) -> None:
    network = make()
    assert network.naming is not None
    nn.init.zeros_(network.naming.score.weight)
    for odds, channels in (
        ([1.0, -1.0, 2.0], (1, 3)),
        ([-1.0, 0.5, 0.0], (2,)),
        ([1.0, 1.0, 1.0], (1, 2, 3)),
    ):
        network.naming.score.bias.data = torch.tensor(odds)
        reading = network.read("liver")
        assert (reading.channels, reading.not_understood) == (channels, ())


@torch.no_grad()
@pytest.mark.parametrize(("steps", "members"), [(1, 1), (3, 2)])
def test_both_priors_run_once_however_many_steps_and_members(
    make: Callable[..., DiffusionSegmenter], images: Tensor, steps: int, members: int
) -> None:
    network = make()
    counted: dict[str, int] = {}

    def count(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            counted[name] = counted.get(name, 0) + 1

        return hook

    for name in ("image_prior", "text_prior", "text_conditioning", "denoiser"):
        network.get_submodule(name).register_forward_hook(count(name))
    network.predict(images[:2], KEYS, Sampling(steps=steps, members=members), prompts=["liver"] * 2)
    assert counted == {"image_prior": 1, "text_prior": 1, "text_conditioning": 1, "denoiser": steps * members}


@torch.no_grad()
def test_prompts_change_the_prediction_once_their_conditioning_has_learnt(
    make: Callable[..., DiffusionSegmenter], images: Tensor
) -> None:
    sampling = Sampling(steps=2)
    for trained in (False, True):
        network = make(trained)
        given, other, empty, none = (
            network.predict(images[:2], KEYS, sampling, prompts=prompts)
            for prompts in (PROMPTS, PROMPTS[::-1], ["", ""], None)
        )
        assert torch.equal(empty, none)
        assert torch.allclose(given, other, atol=1e-3) != trained
        assert torch.allclose(given, none, atol=1e-3) != trained


@torch.no_grad()
def test_a_prompt_guides_its_own_image_alone(make: Callable[..., DiffusionSegmenter], images: Tensor) -> None:
    network, sampling = make(), Sampling(steps=2)
    both = network.predict(images[:2], KEYS, sampling, prompts=PROMPTS)
    for number, (key, prompt) in enumerate(zip(KEYS, PROMPTS, strict=True)):
        alone = network.predict(images[number : number + 1], [key], sampling, prompts=[prompt])
        torch.testing.assert_close(both[:, number : number + 1], alone, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_a_training_step_gives_the_mask_and_the_names_in_prompts_and_texts(
    make: Callable[..., DiffusionSegmenter], images: Tensor
) -> None:
    network = make()
    assert network.text_prior is not None and network.naming is not None
    found = network(images[:2], PROMPTS, NOISY, texts=TEXTS)
    assert isinstance(found, MaskAndNaming)
    logits = network.denoise(*NOISY, network.encode(images[:2], network.text_prior(PROMPTS)))
    torch.testing.assert_close(found.mask, logits, atol=1e-4, rtol=1e-3)
    named = torch.cat([network.naming(network.text_prior([text])) for text in (*PROMPTS, *TEXTS)])
    torch.testing.assert_close(found.naming, named, atol=1e-4, rtol=1e-3)

    untold = network(images[:2], noisy=NOISY)
    assert isinstance(untold, MaskAndNaming)
    torch.testing.assert_close(untold.naming, named[3:4].expand(2, -1), atol=1e-4, rtol=1e-3)
    assert isinstance(make(naming=None)(images[:2], PROMPTS, NOISY, texts=TEXTS), Tensor)


def test_gradients_reach_every_part_that_reads(
    make: Callable[..., DiffusionSegmenter], images: Tensor
) -> None:
    network = make().train()
    found = network(images[:2], PROMPTS, NOISY, texts=TEXTS)
    assert isinstance(found, MaskAndNaming)
    for output, silent in ((found.mask, "naming"), (found.naming, "text_conditioning")):
        network.zero_grad()
        output.square().sum().backward(retain_graph=True)
        for name in ("text_prior", "text_conditioning", "naming"):
            gradients = [parameter.grad for parameter in network.get_submodule(name).parameters()]
            reached = [gradient is not None and bool(gradient.any()) for gradient in gradients]
            assert (not any(reached)) if name == silent else all(reached), name


def test_another_number_of_prompts_than_of_images_is_refused(
    make: Callable[..., DiffusionSegmenter], images: Tensor
) -> None:
    network = make()
    with pytest.raises(ValueError, match="2 images came with 1 prompts"):
        network(images[:2], ["liver"])
    with pytest.raises(ValueError, match="2 images came with 3 prompts"):
        network(images[:2], ["liver"] * 3, NOISY)


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"text_prior": None, "naming": None}, "read a text prior, and none was given"),
        ({"text_prior": None, "text_conditioning": None}, "read a text prior, and none was given"),
        ({"fusion": "none"}, "the denoiser uses none"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(
    make: Callable[..., DiffusionSegmenter], parts: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        make(trained=False, **parts)


@torch.no_grad()
def test_a_prompt_that_was_read_guides_like_the_prompt(
    make: Callable[..., DiffusionSegmenter], images: Tensor
) -> None:
    network, sampling = make(), Sampling(steps=2)
    read = network.read("left lung")
    torch.testing.assert_close(
        network.predict(images[:2], KEYS, sampling, prompts=[read] * 2),
        network.predict(images[:2], KEYS, sampling, prompts=["left lung"] * 2),
    )
    with pytest.raises(ValueError, match="2 images came with 3 prompts"):
        network.predict(images[:2], KEYS, sampling, prompts=[read] * 3)
