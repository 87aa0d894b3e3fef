"""Slices, tiles and batches are put together so that nothing of how an image was cut shows in the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from bundle.cases.modality_settings import (
    CtSettings,
    HistologySettings,
    ModalitySettings,
    View,
    XraySettings,
)
from bundle.cases.structures import Structures
from bundle.diffusion.sampling import Sampling
from bundle.diffusion.uncertainty import predictive_entropy
from bundle.inference import SegmentationInferer
from bundle.inference.stain_borders import at_stain_borders
from tests.support.fake_segmenter import FakeSegmenter

STRUCTURES = Structures(
    [
        {"name": "liver", "modality": "CT"},
        {"name": "nucleus", "modality": "H&E"},
        {"name": "spleen", "modality": "CT"},
    ]
)


def pixel_by_pixel() -> FakeSegmenter:
    """Probabilities that depend on the pixel's own channels alone."""
    weights = torch.tensor([[0.2, 0.1, 0.4], [3.0, -1.0, 0.5], [-2.0, 2.0, 1.0], [0.3, 0.3, 2.0]])
    return FakeSegmenter(
        4,
        lambda image, _: torch.einsum("kc,bchw->bkhw", weights, image),
        named=lambda prompt: [len(prompt)] if prompt else None,
    )


def picture(height: int, width: int, modality: str = "H&E") -> MetaTensor:
    array = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    return MetaTensor(array, meta={"modality": modality, "content_key": "tile_1"})


def volume(depth: int = 11) -> MetaTensor:
    array = torch.rand(1, 1, 40, 50, depth, generator=torch.Generator().manual_seed(0))
    return MetaTensor(array, meta={"modality": "CT", "content_key": "study_1"})


def infer(image: MetaTensor, **options: Any) -> tuple[Tensor, FakeSegmenter]:
    network = pixel_by_pixel()
    return SegmentationInferer(STRUCTURES, **options)(image, network), network


@pytest.mark.parametrize(("height", "width"), [(200, 333), (64, 500), (500, 65), (97, 97)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_tiles_join_without_a_seam(height: int, width: int, overlap: float) -> None:
    whole, one = infer(picture(height, width), tile_size=512)
    tiled, many = infer(picture(height, width), tile_size=64, tile_overlap=overlap, batch_size=3)
    assert len(one.batches) == 1 and len(many.keys) > 1
    assert whole.shape == tiled.shape == (1, 3, height, width)
    torch.testing.assert_close(tiled.as_tensor(), whole.as_tensor(), rtol=1e-5, atol=1e-6)  # type: ignore[attr-defined]
    assert max(batch[0] for batch in many.batches) <= 3
    assert {batch[-2:] for batch in many.batches} <= {(64, 64)}


def test_every_tile_and_slice_has_a_noise_of_its_own() -> None:
    _, network = infer(picture(200, 200), tile_size=64)
    assert len(set(network.keys)) == len(network.keys) and all(
        key.startswith("tile_1/") for key in network.keys
    )
    _, network = infer(volume(), batch_size=4)
    assert network.keys == [f"study_1/slice {z}" for z in range(11)]
    assert [batch[0] for batch in network.batches] == [4, 4, 3]


def test_every_tile_and_slice_comes_with_the_prompt_of_its_case() -> None:
    for image in (picture(200, 200), volume()):
        image.meta["prompt"] = "$left @lung"  # type: ignore[attr-defined]
        for options, expected in (({}, "$left @lung"), ({"prompt": "right"}, "right"), ({"prompt": ""}, "")):
            network = pixel_by_pixel()
            SegmentationInferer(STRUCTURES, tile_size=64, batch_size=4)(image, network, **options)
            assert len(network.keys) > 8 and network.prompts == [expected] * len(network.keys)
    _, network = infer(picture(64, 64))
    assert network.prompts == [""]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_volume_is_its_slices_with_their_neighbours(batch_size: int) -> None:
    image = volume()
    found, network = infer(image, batch_size=batch_size)
    assert found.shape == (1, 4, 40, 50, 11)
    array = image.as_tensor()[0, 0]
    for z in range(11):
        places = [max(z - 1, 0), z, min(z + 1, 10)]
        slices = torch.stack([array[..., place] for place in places])[None]
        possible = torch.tensor([[True, True, False, True]])
        padded = torch.nn.functional.pad(slices, (0, 14, 0, 24))
        expected = pixel_by_pixel().predict(padded, ["k"], Sampling(), possible)[0, 0][[0, 1, 3], :40, :50]
        torch.testing.assert_close(found.as_tensor()[0, :3, ..., z], expected)  # type: ignore[attr-defined]


def test_channels_are_those_of_the_modality_and_the_uncertainty() -> None:
    for image, channels in ((picture(64, 64), 2), (volume(2), 3), (picture(64, 64, "X-ray"), 1)):
        found, _ = infer(image)
        values = found.as_tensor()[0]  # type: ignore[attr-defined]
        assert values.shape[0] == channels + 1
        assert float(values.min()) >= 0.0 and float(values.max()) <= 1.0
        torch.testing.assert_close(values[:-1].sum(dim=0), torch.ones(values.shape[1:]))
        probability = np.asarray(values[:-1], dtype=np.float64)
        entropy = -(probability * np.log(np.maximum(probability, 1e-12))).sum(axis=0) / np.log(
            max(channels, 2)
        )
        np.testing.assert_allclose(values[-1], entropy, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"batch_size": 0}, "batch_size"), ({"tile_size": 100}, "tile_size"), ({"tile_size": 0}, "tile_size")],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SegmentationInferer(STRUCTURES, **options)  # type: ignore[arg-type]


def test_a_mirrored_pass_reads_the_mirrored_text_and_counts_as_members() -> None:
    # the left half if the prompt says left, else the right half
    def half(image: Tensor, prompts: Sequence[str]) -> Tensor:
        left = torch.arange(image.shape[-1]) < image.shape[-1] // 2
        wanted = torch.stack([left if "left" in prompt else ~left for prompt in prompts])
        scores = image.new_full((len(image), 4, *image.shape[-2:]), -1e4)
        scores[:, 0] = 0.0
        return torch.where(wanted[:, None, None], pixels.scores(image, prompts), scores)

    image, pixels = picture(64, 64), pixel_by_pixel()
    network = FakeSegmenter(4, half)
    once = SegmentationInferer(STRUCTURES)(image, network, prompt="nuclei on the left")
    mirrored = ModalitySettings(histology=HistologySettings(mirrored=True))
    twice = SegmentationInferer(STRUCTURES, mirrored)(image, network, prompt="nuclei on the left")
    # a network that treats both sides alike finds the same
    torch.testing.assert_close(twice.as_tensor(), once.as_tensor())
    assert network.prompts == ["nuclei on the left", "nuclei on the left", "nuclei on the right"]
    assert network.keys == ["tile_1", "tile_1", "tile_1/mirrored"]
    _, other = infer(picture(64, 64), modalities=ModalitySettings(xray=XraySettings(mirrored=True)))
    assert len(other.batches) == 1


@pytest.mark.parametrize(
    ("modality", "sides", "read"),
    [
        ("X-ray", "image", "Left lung, right base"),
        ("X-ray", "patient", "Right lung, left base"),
        ("H&E", "patient", "Left lung, right base"),
    ],
)
def test_sides_of_the_patient_are_exchanged_on_x_rays_alone(modality: str, sides: str, read: str) -> None:
    network = pixel_by_pixel()
    entries = [{"name": name, "modality": kind} for name, kind in (("x", "X-ray"), ("n", "H&E"), ("c", "CT"))]
    structures = Structures(entries)
    SegmentationInferer(structures, ModalitySettings(xray=XraySettings(sides=sides)))(  # type: ignore[arg-type]
        picture(64, 64, modality), network, prompt="Left lung, right base"
    )
    assert network.prompts == [read]


def test_temperature_of_the_modality_softens_probabilities_and_changes_no_decision() -> None:
    plain, _ = infer(volume())
    modalities = ModalitySettings(
        ct=CtSettings(temperature=2.0), histology=HistologySettings(temperature=9.0)
    )
    soft, _ = infer(volume(), modalities=modalities)
    expected = plain[:, :-1].sqrt() / plain[:, :-1].sqrt().sum(dim=1, keepdim=True)
    torch.testing.assert_close(soft[:, :-1], expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(soft[:, :-1].argmax(1), plain[:, :-1].argmax(1))
    assert (soft[:, -1] >= plain[:, -1] - 1e-6).all()
    others = ModalitySettings(histology=HistologySettings(temperature=2.0))
    assert torch.equal(infer(volume(), modalities=others)[0], plain)


#: Borders as the network draws them, and by stain.
BORDERS = [ModalitySettings(histology=HistologySettings(stain_borders=stain)) for stain in (False, True)]


def test_stain_moves_the_borders_of_pictures_of_slides_alone() -> None:
    image = picture(64, 96)
    plain, moved = (infer(image, modalities=one)[0].as_tensor() for one in BORDERS)  # type: ignore[attr-defined]
    expected = at_stain_borders(plain[0, :-1], image[0].as_tensor())
    assert not torch.equal(expected, plain[0, :-1])
    torch.testing.assert_close(moved[0, :-1], expected)
    torch.testing.assert_close(moved[:, -1], predictive_entropy(expected[None], len(expected)))
    sampling = Sampling(members=2, uncertainty="variance")
    pair = [infer(image, modalities=one, sampling=sampling)[0] for one in BORDERS]
    assert torch.equal(pair[0][:, -1], pair[1][:, -1])
    entries = [{"name": name, "modality": kind} for name, kind in (("x", "X-ray"), ("n", "H&E"), ("c", "CT"))]
    for other in (picture(64, 96, "X-ray"), volume()):
        as_it_is, asked = (
            SegmentationInferer(Structures(entries), one)(other, pixel_by_pixel()) for one in BORDERS
        )
        assert torch.equal(as_it_is, asked)


def test_the_prompt_is_read_once_however_many_slices_there_are() -> None:
    network = pixel_by_pixel()
    SegmentationInferer(STRUCTURES, batch_size=2)(volume(7), network, prompt="liver")
    assert network.texts_read == ["liver"] and len(network.batches) == 4
    assert network.prompts == ["liver"] * 7


def test_the_result_says_what_the_network_made_of_the_prompt() -> None:
    image = volume(2)
    assert infer(image)[0].meta["reading"].channels is None
    # clinical words that no rule knows, so that the network's reading counts
    image.meta["prompt"] = "urine flank"
    result, _ = infer(image)
    reading = result.meta["reading"]
    assert (reading.text, reading.channels) == ("urine flank", (11,)) and "reading" not in image.meta
    result = SegmentationInferer(STRUCTURES)(image, pixel_by_pixel(), prompt="carries blood")
    assert result.meta["reading"].channels == (13,)


# --- views -----------------------------------------------------------------------------------------------


VIEWS: tuple[View, ...] = ("axial", "coronal", "sagittal")


def cut_in(*views: View) -> ModalitySettings:
    return ModalitySettings(ct=CtSettings(views=views))


def test_further_views_are_segmented_slice_by_slice_and_their_mean_counts() -> None:
    image = volume()
    alone = {view: infer(image, modalities=cut_in(view), batch_size=4) for view in VIEWS}
    shapes = {(40, 50): 11, (40, 11): 50, (50, 11): 40}
    for (result, network), ((height, width), count) in zip(alone.values(), shapes.items(), strict=True):
        assert result.shape == (1, 4, 40, 50, 11)
        assert len(network.keys) == len(set(network.keys)) == count
        assert all(batch[-2] >= height and batch[-1] >= width for batch in network.batches)
    assert alone["coronal"][1].keys[3] == "study_1/coronal slice 3"
    fused, network = infer(image, modalities=cut_in(*VIEWS), batch_size=4)
    assert network.keys == [key for _, one in alone.values() for key in one.keys]
    mean = torch.stack([result.as_tensor() for result, _ in alone.values()])[:, :, :-1].mean(dim=0)  # type: ignore[attr-defined]
    torch.testing.assert_close(fused[:, :-1].as_tensor(), mean)  # type: ignore[attr-defined]
    entropy = predictive_entropy(mean, 3)
    torch.testing.assert_close(fused[:, -1].as_tensor(), entropy)  # type: ignore[attr-defined]


def test_where_views_disagree_variance_is_higher_than_in_each() -> None:
    sampling = Sampling(uncertainty="variance")
    one, _ = infer(volume(), sampling=sampling)
    both, _ = infer(volume(), sampling=sampling, modalities=cut_in("axial", "coronal"))
    assert float(one[:, -1].max()) == 0.0  # one prediction does not disagree with itself
    assert float(both[:, -1].mean()) > 0.0 and float(both[:, -1].max()) <= 1.0


def test_pictures_have_one_view() -> None:
    one, _ = infer(picture(64, 64))
    both, network = infer(picture(64, 64), modalities=cut_in("axial", "coronal"))
    assert torch.equal(one.as_tensor(), both.as_tensor()) and len(network.keys) == 1  # type: ignore[attr-defined]
