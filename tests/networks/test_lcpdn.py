"""LCPDN: each equation against a naive computation, its parts, its ablations, its size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bundle.diffusion.sampling import Sampling
from bundle.networks import (
    GuidedLayout,
    ImageDdpmPrior,
    Lcpdn,
    TextPrior,
    VisionPrior,
    count_parameters,
)
from bundle.networks.alignment import TextVisionPrompt, replicated
from bundle.networks.fusion import LightweightFusion
from bundle.networks.pixel_classifier import PixelClassifier
from bundle.networks.text_prior import TextFeatures

TINY = GuidedLayout(8, (1, 2), 1, (2,), 8, out_channels=3, norm_groups=4)


def text_features(lengths: list[int], width: int, seed: int = 0) -> TextFeatures:
    generator = torch.Generator().manual_seed(seed)
    count = max(lengths)
    tokens = torch.randn(len(lengths), count, width, generator=generator)
    mask = torch.arange(count)[None] < torch.tensor(lengths)[:, None]
    return TextFeatures(tokens * mask[..., None], mask, tokens[:, 0])


def make(**settings: Any) -> Lcpdn:
    torch.manual_seed(0)
    prior = ImageDdpmPrior(layout=TINY, blocks=(0, 2))
    for parameter in prior.unet.module.parameters():  # residual branches start at zero
        nn.init.normal_(parameter, std=0.2)
    defaults: dict[str, Any] = {
        "classes": 3,
        "image_prior": prior,
        "text_prior": TextPrior(),
        "vision_prior": VisionPrior(layout="compact"),
        "fusion_width": 8,
        "sampling": Sampling(steps=1),
    }
    return Lcpdn(**{**defaults, **settings}).eval()


def test_prompt_block_equations_1_to_4_token_by_token() -> None:
    torch.manual_seed(0)
    block = TextVisionPrompt(text_width=5, image_width=7, embedding_width=6, width=4)
    text = text_features([3, 2], 5)
    image = torch.randn(2, 9, 7)
    wq, wk, wv = block.query.weight.T, block.key.weight.T, block.value.weight.T
    expected = []
    for sample, length in enumerate((3, 2)):
        rows = []
        for n in range(length):
            query = text.tokens[sample, n] @ wq
            scores = torch.stack([query @ (image[sample, m] @ wk) for m in range(9)]) / math.sqrt(4)
            weights = scores.exp() / scores.exp().sum()
            z = sum(weights[m] * (image[sample, m] @ wv) for m in range(9))  # eq. 1
            assert isinstance(z, Tensor)
            rows.append(torch.tanh(z) * query)  # eq. 2
        mean = sum(rows[1:], rows[0]) / length  # eq. 3
        expected.append(mean @ block.to_embedding.weight.T + block.to_embedding.bias)  # eq. 4
    torch.testing.assert_close(block(text, image), torch.stack(expected), atol=1e-6, rtol=1e-5)


def test_text_tokens_are_repeated_or_cut_to_the_image() -> None:
    text = text_features([3, 2], 4)
    longer, shorter = replicated(text, 7), replicated(text, 1)
    for position in range(7):
        torch.testing.assert_close(longer[0, position], text.tokens[0, position % 3])
        torch.testing.assert_close(longer[1, position], text.tokens[1, position % 2])
    torch.testing.assert_close(shorter[:, 0], text.tokens[:, 0])


def test_fusion_equations_7_to_10_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    fusion = LightweightFusion(4)
    text = text_features([3, 5], 4)
    features = torch.randn(2, 4, 2, 3)
    result = fusion(features, text)
    for sample, length in enumerate((3, 5)):
        for y in range(2):
            for x in range(3):
                image = features[sample, :, y, x]
                token = text.tokens[sample, (3 * y + x) % length]
                joint = torch.cat([image, token])  # eq. 7
                fused = fusion.mlp(joint)  # eq. 8
                share = 1 / (1 + torch.exp(-(fusion.gate.weight @ fused + fusion.gate.bias)))
                mixed = share * fused + (1 - share) * image  # eq. 9
                torch.testing.assert_close(result[sample, :, y, x], mixed * image)  # eq. 10


def test_equation_5_and_6_prompt_enters_the_diffusion_unet() -> None:
    network = make()
    assert network.prompt is not None and network.vision_prior is not None
    image = torch.rand(2, 3, 16, 16)
    assert network.text_prior is not None
    text = network.text_prior(["liver", "left lung"])
    prompt = network.prompt(text, network.vision_prior(image))
    assert prompt.shape == (2, network.image_prior.embedding_width)
    seen: list[Tensor | None] = []
    network.image_prior.register_forward_hook(lambda _, inputs, __: seen.append(inputs[1]))
    network.logits(image, text)
    (given,) = seen
    assert given is not None
    torch.testing.assert_close(given, prompt)


def test_equation_11_each_scale_is_upsampled_and_all_are_concatenated() -> None:
    torch.manual_seed(0)
    classifier = PixelClassifier(6, 3).eval()
    maps = [torch.randn(1, 4, 2, 2), torch.randn(1, 2, 4, 4)]
    seen: list[Tensor] = []
    classifier.layers.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    assert classifier(maps, (4, 4)).shape == (1, 3, 4, 4)
    (joint,) = seen
    torch.testing.assert_close(joint[:, 4:], maps[1])
    for y in range(4):
        for x in range(4):
            # half-pixel centres: the first and last of four lie a quarter outside of the outermost of two
            v, u = (min(max((place + 0.5) / 2 - 0.5, 0.0), 1.0) for place in (y, x))
            corners = maps[0][0]
            top = corners[:, 0, 0] * (1 - u) + corners[:, 0, 1] * u
            bottom = corners[:, 1, 0] * (1 - u) + corners[:, 1, 1] * u
            torch.testing.assert_close(joint[0, :4, y, x], top * (1 - v) + bottom * v)


def test_instance_normalisation_is_what_batches_of_one_train_and_holds_at_inference() -> None:
    torch.manual_seed(0)
    batch, instance = PixelClassifier(6, 3, normalisation="batch"), PixelClassifier(6, 3)
    assert [p.shape for p in batch.parameters()] == [p.shape for p in instance.parameters()]
    instance.load_state_dict(dict(batch.named_parameters()))
    images = 2.0 + torch.randn(3, 6, 8, 8)
    together = instance.eval()([images], (8, 8))
    for number in range(3):
        alone = [images[number : number + 1]]
        torch.testing.assert_close(batch.train()(alone, (8, 8)), instance.train()(alone, (8, 8)))
        torch.testing.assert_close(instance.eval()(alone, (8, 8))[0], together[number])
    assert not torch.allclose(batch.eval()([images], (8, 8)), together, atol=0.1)
    with pytest.raises(ValueError, match="normalisation must be 'instance' or 'batch', not 'layer'"):
        PixelClassifier(6, 3, normalisation="layer")  # type: ignore[arg-type]


def test_both_modules_can_be_left_out_as_in_the_papers_ablation() -> None:
    image = torch.rand(2, 3, 16, 16)
    parts = {}
    for name, settings in {
        "both": {},
        "no prompt block": {"vision_prior": None},
        "cross-attention": {"text_fusion": "cross_attention"},
        "neither": {"vision_prior": None, "text_fusion": "cross_attention"},
    }.items():
        network = make(**settings)
        parts[name] = {key.split(".")[0] for key, _ in network.named_parameters()}
        result = network(image, ["left lung", "right lung"])
        assert result.shape == (2, 3, 16, 16)
        torch.testing.assert_close(result.sum(dim=1), torch.ones(2, 16, 16))
    assert parts["both"] - parts["no prompt block"] == {"prompt"}
    assert (
        make(text_fusion="ltfr").fusions[0].__class__
        is not make(text_fusion="cross_attention").fusions[0].__class__
    )
    with pytest.raises(ValueError, match="ltfr, cross_attention"):
        make(text_fusion="sum")


def test_text_and_image_decide_and_the_batch_does_not() -> None:
    network = make()
    image = torch.rand(2, 3, 16, 16)
    possible = torch.tensor([[True, True, False]] * 2)
    long = "infection of the lower left lung, " * 20
    result = network(image, [long, "liver"], possible=possible)
    assert result[:, 2].max() == 0
    alone = network(image[1:], ["liver"], possible=possible[1:])
    torch.testing.assert_close(result[1:], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(result[1:], network(image[1:], ["spleen"], possible=possible[1:]))
    torch.testing.assert_close(network(image), network(image, ["", ""]))
    members = network.predict(image, ["a", "b"], Sampling(steps=1, members=2), prompts=["liver"] * 2)
    assert members.shape == (2, 2, 3, 16, 16) and not torch.allclose(members[0], members[1])
    with pytest.raises(ValueError, match="steps must be 1"):
        network.predict(image, ["a", "b"], Sampling(steps=2))
    with pytest.raises(ValueError, match="2 images came with 1 prompts"):
        network(image, ["liver"])


def test_without_a_text_prior_no_text_is_read() -> None:
    network = make(text_prior=None)
    image = torch.rand(1, 3, 16, 16)
    reading = network.read("word " * 9000)
    assert not network.reads_text and reading.features is None and reading.cut_tokens == 0
    torch.testing.assert_close(network(image, ["liver"]), network(image))


def test_gradients_reach_every_trainable_parameter_and_no_frozen_one() -> None:
    network = make().train()
    network(torch.rand(2, 3, 16, 16), ["liver", "left lung"], logits=True).square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == []
    frozen = network.image_prior.unet.module
    assert all(p.grad is None for p in frozen.parameters())


@pytest.mark.parametrize(
    ("blocks", "width", "parts"),
    [
        (
            (4, 6, 8, 12),
            136,
            {
                "prompt": 2_556_928,
                "text": 104_584,
                "image": 940_576,
                "fusions": 223_588,
                "classifier": 664_610,
            },
        ),
        (
            (6, 8, 12, 16),
            160,
            {
                "prompt": 2_556_928,
                "text": 123_040,
                "image": 737_920,
                "fusions": 309_124,
                "classifier": 775_202,
            },
        ),
    ],
)
def test_trainable_parameters_with_the_papers_encoders(
    blocks: tuple[int, ...], width: int, parts: dict[str, int]
) -> None:
    with torch.device("meta"):
        network = Lcpdn(
            classes=2,
            image_prior=ImageDdpmPrior(layout="guided_diffusion_256", blocks=blocks),
            text_prior=TextPrior(layout="bert_base"),
            vision_prior=VisionPrior(layout="clip_vit_b32"),
            fusion_width=width,
        )
    assert network.prompt is not None
    assert parts == {
        "prompt": count_parameters(network.prompt),
        "text": count_parameters(network.text_projection),
        "image": count_parameters(network.image_projections),
        "fusions": count_parameters(network.fusions),
        "classifier": count_parameters(network.classifier),
    }
    assert count_parameters(network, trainable=True) == sum(parts.values())
    assert sum(parts.values()) == pytest.approx(4.52e6, rel=0.01)
    assert count_parameters(network.image_prior.unet.module) == 552_814_086
