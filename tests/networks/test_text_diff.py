"""TextDiff and FastTextDiff: size to the parameter, the block against a naive computation, text that decides."""

from __future__ import annotations

import math

import pytest
import torch

from bundle.networks import GuidedLayout, ImageDdpmPrior, TextDiff, TextPrior, count_parameters
from bundle.networks.fusion import CrossModalBlock
from bundle.networks.text_prior import TextFeatures

TINY = GuidedLayout(8, (1, 2), 1, (2,), 8, out_channels=3, norm_groups=4)


@pytest.mark.parametrize(
    ("blocks", "projections", "total"),
    [((6, 8, 12, 16), 2_360_832, 9_683_234), ((4, 6, 8, 12), 3_540_480, 10_862_882)],
)
@pytest.mark.parametrize("encoder", ["bert_base", "modernbert_base"])
def test_published_number_of_trainable_parameters(
    blocks: tuple[int, ...], projections: int, total: int, encoder: str
) -> None:
    with torch.device("meta"):
        network = TextDiff(
            classes=2,
            image_prior=ImageDdpmPrior(layout="guided_diffusion_256", blocks=blocks),
            text_prior=TextPrior(layout=encoder),
        )
    assert count_parameters(network.projections) == projections
    assert count_parameters(network.fusion) == 3_745_536
    assert count_parameters(network.classifier) == 3_576_866
    assert count_parameters(network, trainable=True) == count_parameters(network) == total


def test_cross_modal_block_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    block = CrossModalBlock(width=6, text_width=5, heads=2, head_width=3)
    tokens = torch.randn(1, 4, 5)
    text = TextFeatures(tokens, torch.tensor([[True, True, True, False]]), tokens[:, 0])
    features = torch.randn(1, 6, 2, 2)
    result = block(features, text)
    for y in range(2):
        for x in range(2):
            pixel = features[0, :, y, x]
            for norm, attention in zip(list(block.norms)[:2], block.attentions, strict=True):
                query = attention.query.weight @ norm(pixel)
                heads = []
                for head in range(2):
                    part = slice(3 * head, 3 * head + 3)
                    keys = [(attention.key.weight @ token)[part] for token in tokens[0, :3]]
                    values = [(attention.value.weight @ token)[part] for token in tokens[0, :3]]
                    scores = torch.stack([query[part] @ key for key in keys]) / math.sqrt(3)
                    heads.append((scores.softmax(0)[:, None] * torch.stack(values)).sum(0))
                pixel = pixel + attention.out(torch.cat(heads))
            pixel = pixel + block.feed(block.norms[2](pixel))
            torch.testing.assert_close(result[0, :, y, x], pixel, atol=1e-5, rtol=1e-4)


def test_report_decides_and_neighbours_in_a_batch_do_not() -> None:
    torch.manual_seed(0)
    prior = ImageDdpmPrior(layout=TINY, blocks=(0, 2))
    network = TextDiff(3, prior, TextPrior(), width=16, heads=2, head_width=8).eval()
    image = torch.rand(2, 3, 16, 16)
    note = "Infection of the upper left lung. " * 300
    together = network(image, [note, "nuclei"])
    torch.testing.assert_close(network(image[:1], [note]), together[:1], atol=1e-5, rtol=1e-4)
    end_changed = network(image[:1], [note + "Right lung clear."])
    assert network.read(note).cut_tokens == 0
    assert not torch.allclose(end_changed, together[:1])  # not cut to its first words
    assert network.reads_text and network.stride == 2


def test_maps_share_projections_as_published() -> None:
    with torch.device("meta"):
        prior = ImageDdpmPrior(layout="guided_diffusion_256", blocks=(4, 6, 8, 12))
        network = TextDiff(2, prior, None)
    assert set(network.projections) == {"coarsest_3072", "finer_1536"}
