"""What a prompt names is kept, what several prompts of a case find is joined, and an empty mask is explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Identityd
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bundle.cases import Case, CaseReference
from bundle.cases.modality_settings import ModalitySettings, XraySettings
from bundle.cases.structures import Structures
from bundle.inference import CaseDataset, CaseEvaluator, SegmentationInferer, ToPredictiond
from bundle.inference.postprocess import joined
from bundle.networks.prompt_reading import PromptReading
from bundle.results.prediction import Prediction
from bundle.transforms import preprocessing
from tests.support.fake_segmenter import FakeSegmenter

STRUCTURES = Structures(
    [
        {"name": "infection", "modality": "X-ray"},
        {"name": "nucleus", "modality": "H&E"},
        {"name": "effusion", "modality": "X-ray"},
    ]
)
INFERER = SegmentationInferer(STRUCTURES)
#: Columns of an image of 64x64 that show a structure, and how likely it is there.
SHOWN = {1: (slice(0, 40), 0.6), 3: (slice(24, 64), 0.8)}


def named(prompt: str) -> list[int] | None:
    return [value for value in range(1, 4) if STRUCTURES[value - 1].name in prompt] if prompt else None


def namer() -> FakeSegmenter:
    """Paints what its prompt names, all of it without a prompt, and in the overlap what is most probable."""

    def scores(image: Tensor, prompts: Sequence[str]) -> Tensor:
        probability = torch.zeros(len(image), STRUCTURES.channels, *image.shape[-2:])
        for number, prompt in enumerate(prompts):
            for value, (columns, share) in SHOWN.items():
                if value in (named(prompt) or ([] if prompt else SHOWN)):
                    probability[number, 1:, :, columns] = 0.0
                    probability[number, value, :, columns] = share
        probability[:, 0] = 1.0 - probability.sum(dim=1)
        return probability.log()

    return FakeSegmenter(STRUCTURES.channels, scores, named)


def case(modality: Any = "X-ray", prompt: str = "", shape: tuple[int, ...] = (1, 6, 7)) -> Case:
    reference = CaseReference("film", Path("film.png"), prompt=prompt)
    return Case(reference, np.zeros(shape, dtype=np.float32), None, modality, "option")


# --- one prompt ------------------------------------------------------------------------------------------


def post_processed(told: Case, result: Tensor, image: MetaTensor | None = None) -> dict[Any, Any]:
    """Of a case whose prompt the namer has read."""
    image = MetaTensor(torch.zeros_like(result[:1])) if image is None else image
    pred = MetaTensor(result, meta={"reading": namer().read(told.reference.prompt)})
    transform = ToPredictiond(Compose([Identityd("image")]), STRUCTURES, INFERER)
    return transform({"case": told, "pred": pred, "image": image})


def predicted(prompt: str, modality: Any = "X-ray") -> tuple[Prediction, NDArray[np.float32]]:
    """The prediction out of random probabilities, and these."""
    known = len(STRUCTURES.of_modality(modality))
    drawn = np.random.default_rng(0).random((known + 1, 6, 7)).astype(np.float32) + 1e-3
    probability = drawn / drawn.sum(axis=0)
    result = np.concatenate([probability, drawn[:1] * 0.5])
    return post_processed(case(modality, prompt), torch.from_numpy(result))["prediction"], probability


@pytest.mark.parametrize(
    ("prompt", "kept"),
    [
        ("", {1: "infection", 3: "effusion"}),
        ("infection and effusion", {1: "infection", 3: "effusion"}),
        ("infection", {1: "infection"}),
        ("the effusion", {3: "effusion"}),
    ],
)
def test_only_what_is_named_is_kept(prompt: str, kept: dict[int, str]) -> None:
    prediction, probability = predicted(prompt)
    assert prediction.labels == kept and prediction.warnings == []
    channels = {1: 1, 3: 2}  # of the modality
    np.testing.assert_array_equal(prediction.probability, probability[[channels[value] for value in kept]])
    for row in range(6):
        for column in range(7):
            best = int(probability[:, row, column].argmax())
            value = (0, 1, 3)[best]
            assert prediction.mask[row, column] == (value if value in kept else 0)
    assert set(np.unique(prediction.mask)) == {0, *kept}


def test_words_that_name_nothing_leave_an_empty_mask_and_say_what_is_known() -> None:
    prediction, _ = predicted("bicycle")
    assert not prediction.mask.any() and prediction.labels == {} and prediction.probability.shape == (0, 6, 7)
    (warning,) = prediction.warnings
    assert "names nothing that this network segments: the mask is empty" in warning
    assert warning.endswith("On X-ray it knows infection, effusion.")


def test_a_structure_of_another_modality_is_said_to_be_one() -> None:
    foreign = "The prompt names nucleus, which this network segments on H&E, not on X-ray."
    alone, both = predicted("nucleus")[0], predicted("nucleus, effusion")[0]
    assert not alone.mask.any() and alone.labels == {} and alone.warnings == [foreign]
    assert both.mask.any() and both.labels == {3: "effusion"} and both.warnings == [foreign]


def test_the_network_that_segmented_says_what_is_named() -> None:
    drawn = np.random.default_rng(0).random((3, 6, 7)).astype(np.float32)
    reading = PromptReading("infection", channels=(3,))
    pred = MetaTensor(torch.from_numpy(drawn), meta={"reading": reading})
    item = {"case": case(prompt="infection"), "pred": pred, "image": MetaTensor(torch.zeros(1, 6, 7))}
    prediction = ToPredictiond(Compose([Identityd("image")]), STRUCTURES, INFERER)(item)["prediction"]
    assert prediction.labels == {3: "effusion"} and prediction.reading is reading


@pytest.mark.parametrize("affine", [None, np.diag([2.0, 3.0, 4.0, 1.0])])
def test_the_mask_is_as_writers_take_it(affine: Any) -> None:
    spatial = (6, 7) if affine is None else (6, 7, 5)
    told = replace(case(prompt="effusion", shape=(1, *spatial)), affine=affine)
    drawn = torch.from_numpy(np.random.default_rng(0).random((4, *spatial)).astype(np.float32))
    image = MetaTensor(torch.zeros(1, *spatial), affine=np.eye(4) if affine is None else affine)
    item = post_processed(told, drawn, image)
    mask = item["prediction"].mask
    assert mask.any() and item["pred"].dtype == torch.uint8
    assert np.array_equal(np.asarray(item["pred"]), mask.T if affine is None else mask[None])
    if affine is not None:
        assert np.array_equal(np.asarray(item["pred"].affine), affine)
    assert len(item["prediction"].flags) == (affine is None), "an empty picture"
    assert item["result"] == {
        "modality": "X-ray",
        "found": True,
        "structures": {"effusion": 3},
        "warnings": [flag.text for flag in item["prediction"].flags],
    }


# --- several prompts -------------------------------------------------------------------------------------


def found(seed: int, kept: int, warnings: Sequence[str] = ()) -> Prediction:
    """What a prompt that names `kept` structures finds in random probabilities."""
    random = np.random.default_rng(seed)
    drawn = random.random((4, 6, 7)).astype(np.float32)
    probability = drawn / drawn.sum(axis=0)
    best = probability.argmax(axis=0)
    return Prediction(
        case(),
        np.where(best <= kept, best, 0).astype(np.uint8),
        probability[1 : kept + 1],
        random.random((6, 7)).astype(np.float32),
        dict(zip(range(1, kept + 1), "abc", strict=False)),
        list(warnings),
        {"steps": 2},
    )


def test_where_several_prompts_found_something_the_most_probable_has_the_voxel() -> None:
    names = {1: "infection", 2: "nucleus", 3: "effusion"}
    each = {3: found(0, 2, ["one"]), 1: found(1, 1, ["one", "two"]), 2: found(2, 0, ["three"])}
    together = joined(each, names)
    claimed = 0
    for place in np.ndindex(6, 7):
        claims = {
            value: sum(float(channel[place]) for channel in one.probability)
            for value, one in each.items()
            if one.mask[place] > 0
        }
        claimed += len(claims) > 1
        assert together.mask[place] == (max(claims, key=claims.__getitem__) if claims else 0)
        mean = sum(float(one.uncertainty[place]) for one in each.values()) / 3
        assert together.uncertainty[place] == pytest.approx(mean, abs=1e-6)
    assert claimed > 3 and together.mask.dtype == np.uint8 and together.uncertainty.dtype == np.float32
    assert list(together.labels.items()) == [(3, "effusion"), (1, "infection"), (2, "nucleus")]
    total = np.maximum(sum(one.probability.sum(axis=0) for one in each.values()), 1.0)
    for channel, one in zip(together.probability, each.values(), strict=True):
        np.testing.assert_allclose(channel, one.probability.sum(axis=0) / total, atol=1e-6)
    assert together.warnings == ["one", "two", "three"] and together.settings == {"steps": 2}


def test_a_single_prompt_is_joined_to_itself() -> None:
    one = found(0, 1)
    together = joined({1: one}, {1: "infection", 3: "effusion"})
    np.testing.assert_array_equal(together.mask, one.mask)
    np.testing.assert_array_equal(together.probability, one.probability)
    np.testing.assert_array_equal(together.uncertainty, one.uncertainty)
    assert together.labels == {1: "infection"}


# --- a run -----------------------------------------------------------------------------------------------

PREPROCESSING = preprocessing(STRUCTURES, ModalitySettings(xray=XraySettings(size=64)))


def run(
    folder: Path, prompts: Mapping[str, str | Mapping[str, str]], structures: Structures | None = STRUCTURES
) -> tuple[dict[str, Any], FakeSegmenter]:
    """Output of the evaluator for one film that is prompted in several ways."""
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)).save(
        folder / "film.png"
    )
    network = namer()
    evaluator = CaseEvaluator(
        CaseDataset([CaseReference("film", folder / "film.png", modality="X-ray")], PREPROCESSING),
        network,
        SegmentationInferer(STRUCTURES),
        ToPredictiond(PREPROCESSING, STRUCTURES, SegmentationInferer(STRUCTURES)),
        prompts={way: {"film": prompt} for way, prompt in prompts.items()},
        structures=structures,
    )
    evaluator.run()
    output: Any = evaluator.state.output
    return output, network


def columns(prediction: Prediction) -> list[int]:
    """The mask's row, which is the same everywhere."""
    assert (prediction.mask == prediction.mask[:1]).all()
    return [int(value) for value in prediction.mask[0]]


def test_each_structure_has_a_prompt_of_its_own(tmp_path: Path) -> None:
    names = {name: name for name in ("infection", "effusion")}
    output, network = run(tmp_path, {"on": names, "one": "infection", "off": ""})
    assert network.prompts == ["infection", "effusion", "infection", ""]
    on, one, off = (output["predictions"][way] for way in ("on", "one", "off"))
    assert columns(on) == [1] * 24 + [3] * 40 and on.labels == {1: "infection", 3: "effusion"}
    np.testing.assert_allclose(on.probability[:, 0, 30], [0.6 / 1.4, 0.8 / 1.4], atol=1e-6)
    assert on.case.reference.prompt == "infection; effusion"
    assert columns(one) == [1] * 40 + [0] * 24 and one.labels == {1: "infection"}
    assert columns(off) == columns(on) and off.labels == on.labels
    assert (one.case.reference.prompt, off.case.reference.prompt) == ("infection", "")
    assert output["prediction"] is on


def test_what_is_found_counts_as_the_structure_that_was_asked_for(tmp_path: Path) -> None:
    prompts = {
        "other": {"infection": "effusion", "effusion": "infection"},
        "meaningless": {"infection": "bicycle", "effusion": "effusion"},
        "foreign": {"nucleus": "infection"},
    }
    output, _ = run(tmp_path, prompts)
    other, meaningless, foreign = output["predictions"].values()
    assert columns(other) == [3] * 24 + [1] * 40
    assert columns(meaningless) == [0] * 24 + [3] * 40 and not meaningless.probability[0].any()
    assert len(meaningless.warnings) == 1 and "the mask is empty" in meaningless.warnings[0]
    assert columns(foreign) == [2] * 40 + [0] * 24 and foreign.labels == {2: "nucleus"}


@pytest.mark.parametrize(
    ("structures", "name", "problem"),
    [
        (None, "infection", "need the network's structures"),
        (STRUCTURES, "widget", "no structure 'widget'"),
    ],
)
def test_prompts_that_cannot_be_told_apart_fail_the_case_alone(
    structures: Structures | None, name: str, problem: str, tmp_path: Path
) -> None:
    output, _ = run(tmp_path, {"on": {name: "infection"}}, structures)
    assert problem in output["error"] and "predictions" not in output
