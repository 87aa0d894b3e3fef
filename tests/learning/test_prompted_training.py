"""Drawn prompts reach the network with what they name, mirrored pictures keep true texts, and naming is learnt."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bundle.cases.structures import shipped_structures
from bundle.learning import (
    HybridLoss,
    LogitsInferer,
    MaskTarget,
    NoisedMaskInferer,
    PromptDrawer,
    TrainingImages,
    prepare_batch,
    training_references,
)
from bundle.networks.segmenter import MaskAndNaming
from bundle.transforms import augmentation, preprocessing
from bundle.wording import exchange_sides
from tests.support.grids import SMALL_GRIDS

ROOT = Path(__file__).resolve().parents[2]
STRUCTURES = shipped_structures()
CLASSES = STRUCTURES.channels


def images(*datalists: Path, vary: bool = True, **options: Any) -> TrainingImages:
    return TrainingImages(
        training_references(list(datalists), "training"),
        preprocessing(
            STRUCTURES,
            SMALL_GRIDS,
        ),
        augmentation(64, vary=vary),
        STRUCTURES,
        **{"images_per_epoch": 24, "progress": False, **options},
    )


def shown(dataset: TrainingImages) -> list[dict[str, Any]]:
    return [dataset[position] for position in range(len(dataset))]


def references(dataset: TrainingImages) -> list[Any]:
    return [dataset.references[dataset.units[int(unit)][0]] for unit in dataset.plan]


@pytest.fixture(scope="module")
def prompted(phantoms: dict[str, Path]) -> TrainingImages:
    return images(*phantoms.values(), prompts=PromptDrawer(STRUCTURES))


# --- drawn prompts ---------------------------------------------------------------------------------------


def test_an_image_comes_with_a_prompt_and_a_text_and_what_they_name(prompted: TrainingImages) -> None:
    items = shown(prompted)
    for item in items:
        assert isinstance(item["prompt"], str) and isinstance(item["text"], str) and item["text"]
        assert item["named"].shape == (2, CLASSES - 1) and item["named"].dtype == torch.bool
        assert item["possible"][1:][item["named"][0]].all(), "a prompt is about its image"
    silent = [item for item in items if not item["prompt"]]
    assert 0 < len(silent) < len(items) and not any(item["named"][0].any() for item in silent)
    assert len({item["text"] for item in items}) > len(items) / 2
    assert any((item["named"][1] & ~item["possible"][1:]).any() for item in items), (
        "a text is about any image"
    )


def test_what_is_named_is_what_the_drawer_says(phantoms: dict[str, Path]) -> None:
    dataset = images(
        phantoms["H&E"], prompts=PromptDrawer(STRUCTURES, silent=0.0, own=1.0, reworded=0.0, foreign=0.0)
    )
    nucleus = torch.arange(1, CLASSES) == STRUCTURES.value("nucleus")
    for item, reference in zip(shown(dataset), references(dataset), strict=True):
        assert item["prompt"].lower().rstrip(".") == reference.prompt.lower().rstrip(".")
        assert torch.equal(item["named"][0], nucleus)


def test_prompts_depend_on_epoch_and_position_and_change_no_other_draw(
    prompted: TrainingImages, phantoms: dict[str, Path]
) -> None:
    first = shown(prompted)
    prompted.set_epoch(2)
    second = shown(prompted)
    prompted.set_epoch(1)
    again = [prompted[position] for position in reversed(range(len(prompted)))][::-1]
    texts, others, repeated = (
        [(item["prompt"], item["text"]) for item in one] for one in (first, second, again)
    )
    assert texts == repeated and texts != others
    for item, bare in zip(first, shown(images(*phantoms.values())), strict=True):
        assert bare.keys() == item.keys() - {"text", "named"}
        assert item["standalone"] == bare["standalone"]
        assert all(torch.equal(item[key], bare[key]) for key in bare if key not in ("prompt", "standalone"))


def test_the_step_names_the_prompts_of_all_images_first_and_then_the_texts(prompted: TrainingImages) -> None:
    items = shown(prompted)[:4]
    batch = next(iter(DataLoader(prompted, batch_size=4)))
    _, target, _, needed = prepare_batch(batch, "cpu")
    assert needed["prompts"] == [item["prompt"] for item in items]
    assert needed["texts"] == [item["text"] for item in items]
    assert target.named is not None
    expected = [item["named"][row] for row in (0, 1) for item in items]
    assert torch.equal(target.named, torch.stack(expected)) and target.named.any()


def test_without_drawn_prompts_nothing_is_named(phantoms: dict[str, Path]) -> None:
    batch = next(iter(DataLoader(images(phantoms["X-ray"]), batch_size=4)))
    _, target, _, needed = prepare_batch(batch, "cpu")
    assert target.named is None and "texts" not in needed


# --- mirrored X-rays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["CT", "X-ray", "H&E"])
def test_mirroring_turns_x_rays_with_their_labels_and_texts_and_nothing_else(
    modality: str, phantoms: dict[str, Path]
) -> None:
    plain, mirrored = (images(phantoms[modality], vary=False, mirrored=share) for share in (0.0, 1.0))
    for one, other in zip(shown(plain), shown(mirrored), strict=True):
        if modality == "X-ray":
            assert not torch.equal(one["image"], other["image"])
            assert other["prompt"] == exchange_sides(one["prompt"]) != one["prompt"]
            one = one | {key: one[key].flip(-1) for key in ("image", "label")} | {"prompt": other["prompt"]}
        assert all(
            torch.equal(one[key], other[key]) if isinstance(one[key], Tensor) else one[key] == other[key]
            for key in one
        )


def test_a_share_of_the_x_rays_is_mirrored_before_their_texts_are_drawn(phantoms: dict[str, Path]) -> None:
    own = PromptDrawer(STRUCTURES, silent=0.0, own=1.0, reworded=0.0, foreign=0.0)
    dataset = images(phantoms["X-ray"], vary=False, prompts=own, mirrored=0.5, images_per_epoch=64)
    untouched = images(phantoms["X-ray"], vary=False, images_per_epoch=64)
    turned = 0
    for item, plain in zip(shown(dataset), shown(untouched), strict=True):
        mirrored = torch.equal(item["image"], plain["image"].flip(-1))
        assert mirrored or torch.equal(item["image"], plain["image"])
        text = exchange_sides(plain["prompt"]) if mirrored else plain["prompt"]
        assert item["prompt"].lower().rstrip(".") == text.lower().rstrip(".")
        turned += mirrored
    assert 16 <= turned <= 48


# --- what is learnt from names ---------------------------------------------------------------------------


def draw(texts: int = 6) -> tuple[MaskAndNaming, MaskTarget]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.randn(3, 4, 5, 7, generator=generator).requires_grad_()
    naming = (3 * torch.randn(texts, 3, generator=generator)).requires_grad_()
    known = torch.ones(3, 4, dtype=torch.bool)
    label = torch.randint(0, 4, (3, 5, 7), generator=generator)
    named = torch.rand(texts, 3, generator=generator) < 0.3
    return MaskAndNaming(mask, naming), MaskTarget(label, known, known, named)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_loss_of_names_is_a_binary_cross_entropy_beside_that_of_the_mask(weight: float) -> None:
    output, target = draw()
    assert target.named is not None
    total = 0.0
    for text in range(6):
        for structure in range(3):
            probability = 1 / (1 + math.exp(-float(output.naming[text, structure].detach())))
            total -= math.log(probability if target.named[text, structure] else 1 - probability)
    mask_loss = float(HybridLoss()(output.mask, target).detach())
    found = HybridLoss(naming_weight=weight)(output, target)
    assert float(found.detach()) == pytest.approx(mask_loss + weight * total / 18, rel=1e-5)


def test_where_no_names_are_known_the_loss_is_that_of_the_mask_and_every_output_has_a_gradient() -> None:
    output, target = draw()
    without = MaskTarget(target.label, target.labelled, target.possible)
    loss = HybridLoss()(output, without)
    assert torch.equal(loss, HybridLoss()(output.mask, target))
    loss.backward()
    assert output.naming.grad is not None and not output.naming.grad.any()
    assert output.mask.grad is not None and output.mask.grad.any()


# --- times -----------------------------------------------------------------------------------------------


class Times(nn.Module):
    """Keeps the times it is shown and what it is told besides; it samples from -7 on."""

    mask_stride = 1
    sampling = SimpleNamespace(log_snrs=lambda _: torch.tensor([-7.0, 0.0]))

    def __init__(self, learns_names: bool = True) -> None:
        super().__init__()
        self.learns_names = learns_names
        self.times = torch.empty(0)
        self.asked: dict[str, Any] = {}

    def schedule(self, times: Tensor) -> Tensor:
        return times

    def forward(self, image: Tensor, noisy: tuple[Tensor, Tensor] | None = None, **asked: Any) -> Tensor:
        self.times, self.asked = self.times if noisy is None else noisy[1], asked
        return image


def times(seed: int, batch: int = 8, **options: Any) -> Tensor:
    network, known = Times(), torch.ones(batch, 2, dtype=torch.bool)
    target = MaskTarget(torch.zeros(batch, 4, 4, dtype=torch.long), known, known)
    torch.manual_seed(seed)
    step = NoisedMaskInferer(**options)
    step(torch.rand(batch, 3, 4, 4), network, target=target, noise=torch.zeros(batch, 2, 4, 4))
    return network.times


@pytest.mark.parametrize("seed", range(5))
def test_a_share_of_the_times_is_where_sampling_starts_and_the_rest_are_spread_as_ever(seed: int) -> None:
    halved = times(seed, pure_noise_share=0.5)
    assert int((halved == -7.0).sum()) == 4
    rest = halved[halved >= 0.0].sort().values
    torch.testing.assert_close(rest.diff(), torch.full((3,), 0.25))
    assert 0.0 <= float(rest[0]) < 0.25


def test_without_pure_noise_times_are_spread_evenly_from_one_offset() -> None:
    torch.manual_seed(3)
    torch.rand(8, 3, 4, 4)
    offset = torch.rand(1)
    expected = (offset + torch.arange(8) / 8) % 1.0
    assert torch.equal(times(3), expected) and torch.equal(times(3, pure_noise_share=0.0), expected)


@pytest.mark.parametrize("step", [NoisedMaskInferer(), LogitsInferer()], ids=["noised", "logits"])
def test_each_of_several_batches_is_predicted_with_what_it_needs(step: Any) -> None:
    network: Any
    network, shown = Times(), []
    network.register_forward_hook(lambda *_: shown.append(network.asked["prompts"]))
    images, parts = [], []
    for batch, side in ((3, 4), (2, 8)):
        known = torch.ones(batch, 2, dtype=torch.bool)
        target = MaskTarget(torch.zeros(batch, side, side, dtype=torch.long), known, known)
        images.append(torch.rand(batch, 3, side, side))
        noise = torch.zeros(batch, 2, side, side)
        parts.append({"target": target, "noise": noise, "prompts": [f"{side}"] * batch})
        if isinstance(step, LogitsInferer):
            parts[-1].pop("noise")
    predicted = step(images, network, parts=parts)
    assert all(torch.equal(one, other) for one, other in zip(predicted, images, strict=True))
    assert shown == [["4"] * 3, ["8"] * 2]


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_a_share_of_pure_noise_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="pure_noise_share must lie in"):
        NoisedMaskInferer(pure_noise_share=share)


def test_further_texts_reach_networks_that_are_given_some_and_no_other() -> None:
    known = torch.ones(2, 2, dtype=torch.bool)
    target = MaskTarget(torch.zeros(2, 4, 4, dtype=torch.long), known, known)
    image, noise = torch.rand(2, 3, 4, 4), torch.zeros(2, 2, 4, 4)
    for texts, learns in ((["liver", "nothing"], True), (["liver", "nothing"], False), (None, True)):
        network = Times(learns)
        NoisedMaskInferer()(image, network, target=target, noise=noise, prompts=["a", ""], texts=texts)
        assert network.asked["prompts"] == ["a", ""]
        assert network.asked.get("texts") == (texts if learns else None)
        assert ("texts" in network.asked) == (texts is not None and learns)
