"""PVT v2 has the published sizes, and takes published weights whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PvtV2Config, PvtV2ForImageClassification

from bundle.networks import PVT_V2_VARIANTS, PvtV2Prior, WeightsError, count_parameters

#: Parameters of the published classifiers without their heads, in millions (Wang et al. 2022, table 1).
PUBLISHED = {"b0": 3.41, "b1": 13.50, "b2": 24.85, "b3": 44.73, "b4": 62.04, "b5": 81.44}


@pytest.mark.parametrize(("variant", "parameters"), [("b0", 3_409_760), ("b1", 13_496_000)])
def test_parameters_of_the_small_variants(variant: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(PvtV2Prior(variant)) == parameters


@pytest.mark.parametrize("variant", ["b2", "b3", "b4", "b5"])
def test_parameters_of_the_large_variants_are_as_published(variant: str) -> None:
    with torch.device("meta"):
        assert count_parameters(PvtV2Prior(variant)) / 1e6 == pytest.approx(PUBLISHED[variant], abs=0.01)


def test_b1_gives_maps_at_strides_4_to_32() -> None:
    with torch.device("meta"):
        prior = PvtV2Prior("b1")
        maps = prior(torch.empty(2, 3, 352, 352))
    assert [tuple(m.shape) for m in maps] == [
        (2, 64, 88, 88),
        (2, 128, 44, 44),
        (2, 320, 22, 22),
        (2, 512, 11, 11),
    ]
    assert prior.channels == (64, 128, 320, 512)


def test_maps_of_an_image_with_unequal_sides_and_one_channel() -> None:
    with torch.device("meta"):
        maps = PvtV2Prior("b0", in_channels=1)(torch.empty(1, 1, 64, 128))
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 16, 32), (64, 8, 16), (160, 4, 8), (256, 2, 4)]


def test_unknown_variant_is_refused_in_one_sentence() -> None:
    with pytest.raises(
        ValueError, match="^PVT v2 variant must be one of b0_slim, b0, b1, b2, b3, b4, b5, not 'b9'$"
    ):
        PvtV2Prior("b9")


#: Of the published weights' training images.
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as it is published: a classifier, of whose weights the backbone's are a part."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("pvt_v2_b0")
    PvtV2ForImageClassification(PvtV2Config(**PVT_V2_VARIANTS["b0"])).save_pretrained(folder)
    return folder


def test_published_weights_give_the_published_features(published: Path) -> None:
    classifier = PvtV2ForImageClassification.from_pretrained(published).eval()
    prior = PvtV2Prior("b0", pretrained=str(published)).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        normalised = (image - IMAGENET_MEAN) / IMAGENET_DEVIATION
        expected = classifier.pvt_v2(normalised, output_hidden_states=True)
        maps = prior(image)
    assert torch.equal(maps[-1], expected.last_hidden_state)
    assert all(torch.equal(a, b) for a, b in zip(maps, expected.hidden_states, strict=True))
    assert not torch.equal(maps[-1], PvtV2Prior("b0").eval()(image)[-1])


def test_a_folder_that_is_missing_is_named_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError) as caught:
        PvtV2Prior("b0", pretrained=str(folder))
    message = str(caught.value)
    assert message.startswith(f"{folder}: no such folder") and message.endswith(".")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("variant", "in_channels"), [("b1", 3), ("b0", 1)])
def test_weights_of_another_variant_or_number_of_channels_are_refused(
    published: Path, variant: str, in_channels: int
) -> None:
    with pytest.raises(WeightsError) as caught:
        PvtV2Prior(variant, in_channels, pretrained=str(published))
    assert str(caught.value).startswith(f"{published}: ") and len(str(caught.value).splitlines()) == 1


def test_weights_with_a_missing_tensor_are_refused_instead_of_drawn_at_random(
    published: Path, tmp_path: Path
) -> None:
    shutil.copy(published / "config.json", tmp_path)
    tensors = load_file(published / "model.safetensors")
    lost = "pvt_v2.encoder.layers.2.blocks.1.attention.query.weight"
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 tensors are missing .*layers\.2\.blocks\.1\.attention\.query"):
        PvtV2Prior("b0", pretrained=str(tmp_path))


def test_a_prior_trained_here_is_read_with_its_own_normalisation(tmp_path: Path) -> None:
    prior = PvtV2Prior("b0").eval()
    prior.save(tmp_path)
    again = PvtV2Prior("b0", pretrained=str(tmp_path)).eval()
    assert torch.equal(again.mean, prior.mean) and torch.equal(again.deviation, prior.deviation)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for kept, read in zip(prior(image), again(image), strict=True):
            torch.testing.assert_close(read, kept, atol=2e-2, rtol=2e-2)  # the file is in half precision
    assert next(prior.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    "content", ["{", '{"image_mean": [0, 0, 0]}', '{"image_mean": [0], "image_std": [0]}']
)
def test_a_normalisation_that_cannot_be_used_is_refused_in_one_sentence(content: str, tmp_path: Path) -> None:
    PvtV2Prior("b0").save(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"its preprocessor_config\.json cannot be read") as caught:
        PvtV2Prior("b0", pretrained=str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1
