"""Structures are asked for one by one, by their own, unseen, foreign and empty words; false finds are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle.cases import CaseReference
from bundle.scoring import Score, adherence_prompts, score_label, score_masks, summarise, text_prompts
from bundle.scoring.text_effect import CasePrompt
from bundle.wording import all_terms, everyday, is_held_out

ORGANS = ["liver", "left kidney", "pancreas"]


def case(name: str, labels: Sequence[str] = (), prompt: str = "") -> CaseReference:
    return CaseReference(name, Path("a.png"), prompt=prompt, labels=dict(enumerate(labels, 1)))


def named(prompt: CasePrompt) -> Mapping[str, str]:
    """The prompts of a case that has one a structure."""
    assert not isinstance(prompt, str)
    return prompt


# --- ways to ask -----------------------------------------------------------------------------------------


def test_every_structure_of_every_case_is_asked_for_in_every_way() -> None:
    ways = adherence_prompts([case("a", ORGANS), case("b", ORGANS[::-1])])
    expected = ["name", "unseen 1", "unseen 2", "unseen 3", "other", "meaningless 1", "meaningless 2"]
    assert list(ways) == expected
    for of_cases in ways.values():
        assert {name: list(named(of_case)) for name, of_case in of_cases.items()} == {
            "a": ORGANS,
            "b": ORGANS[::-1],
        }
    assert ways["name"]["a"] == {name: name for name in ORGANS}


def test_unseen_words_are_those_that_training_never_shows() -> None:
    ways = adherence_prompts([case("a", ORGANS)], unseen=4)
    for name in ORGANS:
        asked = [named(ways[f"unseen {number}"]["a"])[name] for number in range(1, 5)]
        held_out = all_terms()[name].held_out
        assert asked == [*held_out, *[held_out[-1]] * 4][:4] and all(map(is_held_out, asked))
    assert [way for way in adherence_prompts([case("a", ORGANS)], 1) if "unseen" in way] == ["unseen 1"]
    unknown = adherence_prompts([case("a", ORGANS), case("b", [*ORGANS, "widget"])])
    assert not any("unseen" in way for way in unknown), "every structure of every case, or none"


def test_another_name_is_that_of_the_next_structure() -> None:
    ways = adherence_prompts([case("a", ORGANS), case("b", ORGANS[:2])])
    assert ways["other"]["a"] == dict(zip(ORGANS, [*ORGANS[1:], ORGANS[0]], strict=True))
    assert ways["other"]["b"] == {"liver": "left kidney", "left kidney": "liver"}
    assert "other" not in adherence_prompts([case("a", ORGANS), case("b", ORGANS[:1])])


def test_meaningless_words_depend_on_seed_and_case_alone() -> None:
    cases = [case(f"case {number}", ORGANS) for number in range(6)]
    ways, backwards = adherence_prompts(cases, meaningless=3), adherence_prompts(cases[::-1], meaningless=3)
    drawn = [
        word
        for number in (1, 2, 3)
        for of_case in ways[f"meaningless {number}"].values()
        for word in named(of_case).values()
    ]
    assert set(drawn) <= set(everyday()["held_out"]) and len(set(drawn)) > 10
    assert ways == backwards != adherence_prompts(cases, meaningless=3, seed=1)
    assert list(adherence_prompts(cases, unseen=0, meaningless=0)) == ["name", "other"]


def test_a_case_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="case 7 has no labels"):
        adherence_prompts([case("a", ORGANS), case("case 7")])


# --- names in place of texts -----------------------------------------------------------------------------


def test_a_case_without_a_text_is_asked_for_by_its_names_and_by_those_of_others() -> None:
    prompts = text_prompts([case("a", ORGANS), case("b", ORGANS[1:])], True, names_structures=True)
    assert list(prompts) == ["on", "off", "shuffled"]
    assert prompts["on"] == {"a": {name: name for name in ORGANS}, "b": {name: name for name in ORGANS[1:]}}
    assert prompts["off"] == {"a": "", "b": ""}
    assert prompts["shuffled"]["a"] == dict(zip(ORGANS, [*ORGANS[1:], ORGANS[0]], strict=True))
    assert prompts["shuffled"]["b"] == {"left kidney": "pancreas", "pancreas": "left kidney"}
    assert list(text_prompts([case("a", ORGANS)], True)) == ["off"], "a network that knows no names"
    assert list(text_prompts([case("a", ORGANS)], False, names_structures=True)) == ["off"]


def test_a_single_label_has_no_other_name() -> None:
    prompts = text_prompts([case("a", ["nucleus"]), case("b", ORGANS)], True, names_structures=True)
    assert list(prompts) == ["on", "off"] and prompts["on"]["a"] == {"nucleus": "nucleus"}
    assert list(text_prompts([case("a", ["nucleus"])], True, names_structures=True)) == ["on", "off"]


def test_texts_stand_beside_names() -> None:
    films = [case(name, ["COVID-19 infection"], text) for name, text in (("a", "left"), ("b", "right"))]
    prompts = text_prompts([*films, case("c", ORGANS), case("d")], True, names_structures=True)
    assert prompts["on"] == {"a": "left", "b": "right", "c": {name: name for name in ORGANS}, "d": ""}
    shuffled = prompts["shuffled"]
    assert (shuffled["a"], shuffled["b"]) == ("right", "left") and shuffled["d"] in ("left", "right")
    assert isinstance(shuffled["c"], dict)
    alone = text_prompts([films[0], case("c", ORGANS)], True, names_structures=True)
    assert list(alone) == ["on", "off"], "no other text for the film"


# --- what is left empty ----------------------------------------------------------------------------------


def slabs(shape: Sequence[int], seed: int, axis: int) -> NDArray[np.bool_]:
    """A mask some of whose slices along an axis are empty."""
    random = np.random.default_rng(seed)
    shown = np.moveaxis(np.zeros(shape, dtype=bool), axis, 0)
    shown[random.random(len(shown)) < 0.5] = True
    return np.moveaxis(shown, 0, axis) & (random.random(shape) < 0.3)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_slices_without_the_label_are_counted_one_by_one(axis: int, seed: int) -> None:
    predicted, truth = slabs((7, 9, 8), seed, axis), slabs((7, 9, 8), seed + 50, axis)
    absent = left_empty = 0
    for place in range(truth.shape[axis]):
        if not truth.take(place, axis).any():
            absent += 1
            left_empty += not predicted.take(place, axis).any()
    assert 0 < left_empty < absent < truth.shape[axis]
    score = score_label("c", "liver", predicted, truth, slice_axis=axis)
    assert (score.absent, score.left_empty) == (absent, left_empty)


def test_a_picture_counts_as_one() -> None:
    something, nothing = np.eye(5, dtype=bool), np.zeros((5, 5), dtype=bool)
    for predicted, truth, expected in (
        (something, something, (0, 0)),
        (nothing, something, (0, 0)),
        (something, nothing, (1, 0)),
        (nothing, nothing, (1, 1)),
    ):
        score = score_label("c", "nucleus", predicted, truth)
        assert (score.absent, score.left_empty) == expected


def test_the_slices_of_every_label_are_its_own() -> None:
    truth, mask = np.zeros((2, 4, 4, 6), dtype=np.uint8)
    truth[..., :2], truth[..., 4] = 1, 2
    mask[..., 3], mask[..., 4:] = 5, 9
    liver, spleen = score_masks("c", mask, truth, {1: (5, "liver"), 2: (9, "spleen")}, slice_axis=2)
    assert (liver.absent, liver.left_empty) == (4, 3)
    assert (spleen.absent, spleen.left_empty) == (5, 4)


def test_the_summary_gives_the_share_that_was_left_empty() -> None:
    def score(name: str, label: str, absent: int, left_empty: int) -> Score:
        return Score(name, "on", label, 50.0, 40.0, float("nan"), 1, 1, 1, absent, left_empty)

    scores = [score("a", "liver", 3, 1), score("b", "liver", 6, 5), score("a", "lung", 0, 0)]
    figures = summarise(scores)["per_label"]
    assert figures["liver"]["absent"] == 9 and figures["liver"]["left_empty"] == pytest.approx(66.6667)
    assert figures["lung"]["absent"] == 0 and figures["lung"]["left_empty"] is None


def test_a_network_that_does_not_choose_by_prompts_is_refused() -> None:
    reference = CaseReference("a", Path("a.nii.gz"), labels={1: "liver"})
    with pytest.raises(ValueError, match="does not choose by a prompt"):
        adherence_prompts([reference], names_structures=False)
