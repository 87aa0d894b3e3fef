"""Cases become tensors with what is known of them; labels get the network's values by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from bundle.cases import CaseError, CaseReference, Modality
from bundle.cases.structures import Structures
from bundle.transforms import LoadCased, preprocessing, reference_item

AFFINE = np.array([[0, -0.8, 0, 4.0], [0.7, 0, 0, -9.0], [0, 0, 2.5, 30.0], [0, 0, 0, 1]])
HU = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)


def loaded(structures: Structures, item: Any, modality: Modality | None = None) -> Any:
    return LoadCased(structures, modality)(item)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(HU, AFFINE), tmp_path / "patient 7.nii.gz")
    return tmp_path / "patient 7.nii.gz"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    rgb = np.random.default_rng(1).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "tile.png")
    return tmp_path / "tile.png"


def with_mask(volume: Path, values: np.ndarray, labels: dict[int, str]) -> CaseReference:
    mask = volume.with_name("mask.nii.gz")
    nibabel.save(nibabel.Nifti1Image(values.astype(np.uint8), AFFINE), mask)
    return CaseReference("case_7", volume, mask, "the liver", "CT", labels, "datalist")


def test_label_values_are_mapped_by_name_into_the_structures(structures: Structures, volume: Path) -> None:
    values = np.zeros(HU.shape)
    values[0], values[1], values[2] = 1, 3, 255
    reference = with_mask(volume, values, {1: "liver", 3: "spleen", 255: "COVID-19 infection"})
    item = loaded(structures, reference_item(reference, with_label=True))
    label = item["label"]
    assert label.shape == (1, *HU.shape) and label.dtype == torch.uint8
    named = {0: 3, 1: 1, 2: 2}  # liver, spleen, infection in the structures
    for position in range(6):
        assert label[0, position].unique().tolist() == [named.get(position, 0)]
    assert np.allclose(np.asarray(label.affine), AFFINE)


def test_a_name_that_the_network_does_not_know_is_said(structures: Structures, volume: Path) -> None:
    reference = with_mask(volume, np.zeros(HU.shape), {1: "thymus"})
    with pytest.raises(KeyError, match="no structure 'thymus'; known are spleen"):
        loaded(structures, reference_item(reference, with_label=True))


def test_a_label_is_read_only_where_it_is_asked_for(structures: Structures, volume: Path) -> None:
    reference = with_mask(volume, np.zeros(HU.shape), {1: "thymus"})
    assert "label" not in loaded(structures, reference_item(reference))


def test_the_image_tells_what_it_is(structures: Structures, volume: Path) -> None:
    reference = with_mask(volume, np.zeros(HU.shape), {1: "liver"})
    item = loaded(structures, reference_item(reference, with_label=True))
    image = item["image"]
    assert isinstance(image, MetaTensor) and image.shape == (1, *HU.shape) and image.dtype == torch.float32
    assert np.array_equal(np.asarray(image[0]), HU) and np.allclose(np.asarray(image.affine), AFFINE)
    for tensor in (image, item["label"]):
        meta = tensor.meta
        assert (meta["case_id"], meta["modality"], meta["prompt"]) == ("case_7", "CT", "the liver")
        assert meta["filename_or_obj"] == str(volume)
    assert item["case"].reference == reference and "reference" not in item


def test_a_request_of_a_server_is_a_path_and_a_prompt(structures: Structures, volume: Path) -> None:
    request = {"image": str(volume), "prompt": "spleen, please", "model": "any"}
    item = loaded(structures, request)
    assert item["image"].meta["case_id"] == "patient 7"
    assert item["image"].meta["prompt"] == "spleen, please" and item["image"].meta["modality"] == "CT"
    assert item["model"] == "any"
    assert request["image"] == str(volume), "the request itself must not be changed"


def test_a_request_cannot_bring_what_the_pipeline_makes(structures: Structures, volume: Path) -> None:
    ours = {
        "reference": {"id": "x"},
        "case": 1,
        "label": "/nowhere",
        "named": [1],
        "pred": 2,
        "image_path": "x",
    }
    item = preprocessing(structures)({"image": str(volume), "modality": "CT", **ours})
    assert item["case"].reference.id == "patient 7"
    assert not {"reference", "label", "named", "pred", "image_path", "modality"} & set(item)


def test_a_request_says_what_the_mask_is_to_be(structures: Structures, volume: Path, picture: Path) -> None:
    for path, asked, expected in (
        (volume, {}, ".nii.gz"),
        (volume, {"result_extension": ".nrrd"}, ".nrrd"),
        (picture, {"result_extension": ""}, ".png"),
        (picture, {"result_extension": ".tif"}, ".tif"),
    ):
        assert loaded(structures, {"image": str(path), **asked})["result_extension"] == expected
    for path, wrong in ((volume, ".png"), (volume, "/../x"), (picture, ".jpg"), (picture, [".png"])):
        with pytest.raises(CaseError, match="result_extension"):
            loaded(structures, {"image": str(path), "result_extension": wrong})
    assert "result_extension" not in loaded(structures, reference_item(CaseReference("a", picture)))


def test_a_request_may_state_a_modality_that_there_is(structures: Structures, picture: Path) -> None:
    item = loaded(structures, {"image": str(picture), "modality": "X-ray"})
    assert item["image"].meta["modality"] == "X-ray" and item["case"].modality_source == "option"
    with pytest.raises(CaseError, match="CT, X-ray, H&E"):
        loaded(structures, {"image": str(picture), "modality": "$1/0"})


@pytest.mark.parametrize("prompt", [None, 3, ["liver"]])
def test_a_prompt_that_is_no_text_is_none(structures: Structures, volume: Path, prompt: object) -> None:
    assert loaded(structures, {"image": str(volume), "prompt": prompt})["image"].meta["prompt"] == ""


def test_the_stated_modality_holds_for_cases_that_state_none(structures: Structures, picture: Path) -> None:
    assert loaded(structures, {"image": str(picture)})["image"].meta["modality"] == "H&E"
    assert loaded(structures, {"image": str(picture)}, "X-ray")["image"].meta["modality"] == "X-ray"
    assert (
        loaded(structures, reference_item(CaseReference("a", picture)), "X-ray")["image"].meta["modality"]
        == "X-ray"
    )
    stated = CaseReference("a", picture, modality="H&E")
    assert loaded(structures, reference_item(stated), "X-ray")["image"].meta["modality"] == "H&E"


def test_a_picture_has_no_place_in_a_patient(structures: Structures, picture: Path) -> None:
    item = loaded(structures, {"image": str(picture)})
    assert item["image"].shape == (3, 20, 24) and item["case"].affine is None
    assert np.array_equal(np.asarray(item["image"].affine), np.eye(4))


def test_a_file_that_cannot_be_used_is_a_case_error(structures: Structures, tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"nowhere\.nii"):
        loaded(structures, {"image": str(tmp_path / "nowhere.nii")})


def test_the_case_stays_as_it_was_read(structures: Structures, volume: Path, picture: Path) -> None:
    for path in (volume, picture):
        item = preprocessing(structures)({"image": str(path)})
        fresh = loaded(structures, {"image": str(path)})["case"]
        assert np.array_equal(item["case"].array, fresh.array)
