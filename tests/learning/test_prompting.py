"""Prompts are drawn in their shares and never in held-out words; the channels are those of what they name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bundle.cases.modality import MODALITIES, Modality
from bundle.cases.structures import Structures, shipped_structures
from bundle.learning import Prompt, PromptDrawer, prompt_drawer
from bundle.wording import Infection, all_terms, everyday, exchange_sides, is_held_out, templates

ROOT = Path(__file__).resolve().parents[2]
STRUCTURES = shipped_structures()
INFECTION = {STRUCTURES.value("COVID-19 infection")}
#: In the wording of QaTa-COV19.
FILM = "Bilateral pulmonary infection, two infected areas, upper left lung and middle lower right lung."
LOWER_LEFT = "unilateral pulmonary infection, one infected area, lower left lung."
#: Names alone, of structures that the image can show.
NAMES = {"silent": 0.0, "own": 0.0, "reworded": 0.0, "foreign": 0.0}


def drawn(
    count: int, modality: Modality, text: str = "", structures: Structures = STRUCTURES, **shares: float
) -> list[Prompt]:
    drawer, random = PromptDrawer(structures, **{**NAMES, **shares}), Random(0)
    return [drawer.for_image(modality, text, random) for _ in range(count)]


def words_of(prompt: Prompt) -> set[str]:
    return set(re.findall(r"[\w-]+", prompt.text.lower()))


# --- draws -----------------------------------------------------------------------------------------------


def test_the_same_random_state_draws_the_same_prompt() -> None:
    one, other = PromptDrawer(STRUCTURES), PromptDrawer(STRUCTURES)
    kinds: list[Callable[[PromptDrawer, Random], Prompt]] = [
        lambda drawer, random: drawer.for_image("X-ray", FILM, random),
        lambda drawer, random: drawer.for_image("CT", "", random),
        lambda drawer, random: drawer.for_words_alone(random),
    ]
    for draw in kinds:
        first = [draw(one, Random(seed)) for seed in range(60)]
        assert first == [draw(other, Random(seed)) for seed in reversed(range(60))][::-1]
        assert len(set(first)) > 20


def test_words_that_are_held_out_never_occur() -> None:
    drawer, random = PromptDrawer(STRUCTURES), Random(0)
    texts = [drawer.for_words_alone(random).text for _ in range(2000)]
    texts += [drawer.for_image(kind, FILM, random).text for kind in MODALITIES for _ in range(700)]
    words = re.compile(rf"\b(?:{'|'.join(map(re.escape, everyday()['held_out']))})\b", re.IGNORECASE)
    assert not any(is_held_out(text) or words.search(text) for text in texts)
    assert len(set(texts)) > 2000


def test_shares_are_kept() -> None:
    prompts = drawn(4000, "X-ray", FILM, silent=0.3, own=0.5, reworded=0.25, foreign=0.0)
    own, zones = FILM.lower().rstrip("."), re.compile("left|right")
    kinds = [
        "silent"
        if not prompt.text
        else "own"
        if prompt.text.lower().rstrip(".") == own
        else "reworded"
        if zones.search(prompt.text)
        else "named"
        for prompt in prompts
    ]
    # three standard deviations are below 0.022; a few of those that are reworded say 'both' instead of the sides
    for kind, share in {"silent": 0.3, "own": 0.35, "reworded": 0.175, "named": 0.175}.items():
        assert kinds.count(kind) / len(kinds) == pytest.approx(share, abs=0.03), kind


@pytest.mark.parametrize("modality", MODALITIES)
def test_silence_is_empty_and_names_nothing(modality: Modality) -> None:
    assert set(drawn(100, modality, FILM, silent=1.0, own=1.0)) == {Prompt("")}


@pytest.mark.parametrize(
    "shares",
    [
        {"silent": -0.1},
        {"silent": 1.1},
        {"own": -0.5},
        {"foreign": -1e-3},
        {"own": 0.5, "reworded": 0.4, "foreign": 0.2},
        {"own": 1.5},
    ],
)
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="prompt_shares"):
        PromptDrawer(STRUCTURES, **{**NAMES, **shares})


# --- the case's own text ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modality", "text"),
    [
        ("X-ray", FILM),
        ("X-ray", "no finding"),
        ("H&E", "Nuclei crowded on the left"),
        ("CT", "$both @lungs."),
    ],
)
def test_an_own_text_keeps_its_words_and_names_all_that_the_modality_shows(
    modality: Modality, text: str
) -> None:
    prompts = drawn(200, modality, text, own=1.0)
    assert {prompt.text.lower().removesuffix(".") for prompt in prompts} == {text.lower().removesuffix(".")}
    assert {prompt.channels for prompt in prompts} == {frozenset(STRUCTURES.of_modality(modality))}
    assert len({prompt.text for prompt in prompts}) > 2, "as people type it"


@pytest.mark.parametrize(
    ("text", "others"),
    [
        (LOWER_LEFT, "right both bilateral both-sided all whole entire upper apical apex middle mid central"),
        (
            exchange_sides(LOWER_LEFT),
            "left left-sided both bilateral all upper apical apex middle mid central",
        ),
        (
            "Unilateral pulmonary infection, two infected areas, upper middle right lung.",
            "left left-sided both bilateral all whole entire lower basal inferior base",
        ),
        (
            "Bilateral pulmonary infection, two infected areas, upper left lung and upper right lung.",
            "unilateral one-sided all whole entire middle mid central perihilar lower basal inferior base",
        ),
    ],
)
def test_other_words_of_a_text_name_no_other_zones(text: str, others: str) -> None:
    prompts = drawn(500, "X-ray", text, reworded=1.0)
    assert len(set(prompts)) > 250
    for prompt in prompts:
        assert not words_of(prompt) & set(others.split()), prompt.text
        assert prompt.channels == INFECTION


def test_what_is_not_understood_is_not_reworded() -> None:
    for modality, text in (("X-ray", "opacities, left"), ("CT", LOWER_LEFT), ("X-ray", "")):
        for prompt in drawn(100, modality, text, reworded=1.0):  # type: ignore[arg-type]
            assert "left" not in words_of(prompt) or modality == "CT"
            assert prompt.channels and prompt.channels <= set(STRUCTURES.of_modality(modality))  # type: ignore[arg-type]


# --- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", MODALITIES)
def test_names_are_those_of_the_modality_and_all_of_them(modality: Modality) -> None:
    prompts, known = drawn(600, modality), set(STRUCTURES.of_modality(modality))
    assert all(prompt.channels and prompt.channels <= known for prompt in prompts)
    assert frozenset[int]().union(*(prompt.channels for prompt in prompts)) == known


def test_a_side_names_its_kidney_and_no_side_or_both_name_both() -> None:
    kidneys = Structures([{"name": f"{side} kidney", "modality": "CT"} for side in ("left", "right")])
    sides = {"left": 1, "sinister": 1, "left-sided": 1, "right": 2, "dexter": 2, "right-sided": 2}
    prompts = drawn(1500, "CT", structures=kidneys)
    for prompt in prompts:
        said = {sides[word] for word in words_of(prompt) & sides.keys()}
        assert prompt.channels == (said or {1, 2}), prompt.text
    for name, channels in (("kidneys", {1, 2}), ("left kidney", {1}), ("right kidney", {2})):
        plain = [prompt for prompt in prompts if prompt.text.lower().rstrip(".") == name]
        assert plain and all(prompt.channels == channels for prompt in plain)


def test_a_structure_that_the_wording_does_not_know_is_named_by_its_name() -> None:
    structures = Structures([{"name": name, "modality": "CT"} for name in ("spleen", "widget")])
    prompts = drawn(500, "CT", structures=structures)
    for prompt in prompts:
        assert (2 in prompt.channels) == ("widget" in words_of(prompt)), prompt.text
    assert {prompt.channels for prompt in prompts} == {frozenset(one) for one in ({1}, {2}, {1, 2})}


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_foreign_names_nothing(modality: Modality) -> None:
    prompts = drawn(700, modality, FILM, foreign=1.0)
    assert all(prompt.text and not prompt.channels for prompt in prompts)
    known = {name.lower() for entry in STRUCTURES for name in all_terms()[entry.name].phrasings}
    frames = [
        re.escape(frame).replace(r"\{x\}", "(.*)")
        for frame in templates()["prompts"]
        if "{image" not in frame
    ]
    asked = [
        match[1].lower()
        for prompt in prompts
        for frame in frames
        if (match := re.fullmatch(frame, prompt.text))
    ]
    assert len(asked) > 300 and not known & set(asked)


# --- sides and zones of a text ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "exchanged"),
    [
        (LOWER_LEFT, "unilateral pulmonary infection, one infected area, lower right lung."),
        ("Left-sided, RIGHT base; left/right", "Right-sided, LEFT base; right/left"),
        ("bright, upright and leftover, copyright", "bright, upright and leftover, copyright"),
        ("", ""),
    ],
)
def test_sides_are_exchanged_word_by_word_and_twice_gives_the_text_back(text: str, exchanged: str) -> None:
    assert exchange_sides(text) == exchanged and exchange_sides(exchanged) == text


def zones(words: str) -> frozenset[str]:
    return frozenset(words.split())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LOWER_LEFT, (zones("lower"), zones(""))),
        (FILM, (zones("upper"), zones("middle lower"))),
        (
            "Bilateral pulmonary infection, two infected areas, middle lower left lung and all right lung.",
            (zones("middle lower"), zones("upper middle lower")),
        ),
        (
            "unilateral pulmonary infection, one infected area, all right lung.",
            (zones(""), zones("upper middle lower")),
        ),
        ("lower left lung", None),
        ("pulmonary infection", None),
        ("no pulmonary infection", None),
        ("infection of the left lung", None),
        ("nuclei are crowded in the upper left", None),
        ("", None),
    ],
)
def test_the_zones_of_a_text_are_read(text: str, found: tuple[Any, Any] | None) -> None:
    assert Infection.from_zones(text) == (None if found is None else Infection(*found))
    mirrored = Infection.from_zones(exchange_sides(text))
    assert mirrored == (None if found is None else Infection(*found[::-1]))


def test_a_known_name_on_another_modality_is_named_there() -> None:
    drawer = PromptDrawer(
        Structures([{"name": "lung", "modality": "X-ray"}, {"name": "lung tissue", "modality": "CT"}]),
        silent=0.0,
        own=0.0,
        reworded=0.0,
        foreign=0.0,
    )
    random = Random(0)
    drawn = [drawer.for_image("X-ray", "", random) for _ in range(50)]
    assert all("lung" in prompt.text.lower() and prompt.channels == {1} for prompt in drawn)


def test_a_structure_named_by_held_out_words_is_refused() -> None:
    with pytest.raises(ValueError, match="'gallbladder lumen' is a phrasing that is kept to test"):
        PromptDrawer(Structures([{"name": "gallbladder lumen", "modality": "CT"}]))


def test_shares_of_exactly_the_whole_are_taken() -> None:
    PromptDrawer(Structures([{"name": "liver", "modality": "CT"}]), own=0.34, reworded=0.55, foreign=0.11)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"silence": 0.3}, "prompt_shares: silence: 0.3 is none; give numbers for silent, own"),
        ({"own": "half"}, "prompt_shares: own: 'half' is none"),
    ],
)
def test_shares_that_do_not_exist_are_refused(shares: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompt_drawer(Structures([{"name": "liver", "modality": "CT"}]), shares)


def test_no_shares_no_drawer_and_half_a_pair_does_not_name_it() -> None:
    structures = Structures([{"name": "lung", "modality": "CT"}])
    assert prompt_drawer(structures, None) is None
    drawer = prompt_drawer(structures, {"silent": 0.0, "own": 0.0, "reworded": 0.0, "foreign": 1.0})
    assert drawer is not None
    terms = all_terms()
    assert [drawer._channels[terms[name]] for name in ("left lung", "right lung", "lung")] == [
        frozenset(),
        frozenset(),
        {1},
    ]
