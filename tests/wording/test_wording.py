"""Generated wording: what means the same is said in many ways, and some ways are kept back."""

from __future__ import annotations

from collections import defaultdict
from random import Random

from bundle.cases.structures import shipped_structures
from bundle.wording import (
    Infection,
    NamedStructures,
    NucleiDistribution,
    Organ,
    SentenceGenerator,
    Unrelated,
    all_terms,
    everyday,
    is_held_out,
)

LEFT = Infection(frozenset({"upper", "middle"}), frozenset({"lower"}))


def test_every_structure_of_the_model_has_words_and_two_that_are_held_out() -> None:
    terms = all_terms()
    names = {one.name for one in shipped_structures()}
    for name in names:
        assert len(terms[name].phrasings) >= 8
        assert len(terms[name].held_out) >= 2
        assert terms[name].phrasings[0] == name
    assert {name for name, term in terms.items() if term.held_out} == names
    assert len(terms) >= 50


def test_no_two_terms_share_a_phrasing() -> None:
    owners = defaultdict(set)
    for term in all_terms().values():
        for phrasing in (*term.phrasings, *term.held_out):
            owners[phrasing.lower()].add(term.name)
    assert {phrasing: names for phrasing, names in owners.items() if len(names) > 1} == {}


def test_held_out_phrasings_are_known_and_never_generated() -> None:
    assert is_held_out("Please outline the  HEPATIC gland.")
    assert not is_held_out("hepatic glands")
    generator = SentenceGenerator(0)
    texts = [text for pair in generator.pairs(10000) for text in (pair.first, pair.second)]
    texts.append(generator.note(20000))
    held_out = [phrase for term in all_terms().values() for phrase in term.held_out]
    assert len(held_out) >= 22
    everything = "\n".join(texts).lower()
    for phrase in held_out:
        assert f"{phrase.lower()} " not in everything and f"{phrase.lower()}\n" not in everything, phrase


def test_same_seed_gives_the_same_texts() -> None:
    def texts(seed: int) -> list[object]:
        generator = SentenceGenerator(seed)
        return [*generator.pairs(50), generator.note(100), generator.sentence()]

    assert texts(3) == texts(3)
    assert texts(3) != texts(4)


def test_pairs_differ_in_words_and_opposites_in_meaning() -> None:
    pairs = SentenceGenerator(1).pairs(600)
    assert len(pairs) == 600
    assert sum(pair.first != pair.second for pair in pairs) > 570
    mirrored = [(a, b) for a, b in zip(pairs, pairs[1:], strict=False) if _mirror(a.meaning) == b.meaning]
    assert len(mirrored) > 60
    assert all(a.meaning != b.meaning for a, b in mirrored)


def _mirror(key: str) -> str | None:
    """The key of an infection with exchanged sides."""
    if not key.startswith("infection: ") or "left" not in key:
        return None
    sides = {"left": "", "right": ""}
    rest = []
    for part in key.removeprefix("infection: ").split("; "):
        side, _, zones = part.partition(" ")
        if side in sides:
            sides[side] = zones
        else:
            rest.append(part)
    exchanged = [
        f"{side} {zones}" for side, zones in (("left", sides["right"]), ("right", sides["left"])) if zones
    ]
    return "infection: " + "; ".join([*exchanged, *rest])


def test_left_and_right_are_other_meanings() -> None:
    other = LEFT.opposite()
    assert LEFT.key == "infection: left upper middle; right lower"
    assert other is not None and other.key == "infection: left lower; right upper middle"
    assert Infection(frozenset({"upper"}), frozenset({"upper"})).opposite() is None
    assert Infection().opposite() is None
    kidney = NamedStructures((all_terms()["left kidney"],)).opposite()
    assert kidney is not None and kidney.key == "structures: right kidney"
    assert NamedStructures((all_terms()["liver"],)).opposite() is None
    assert NucleiDistribution("upper left").opposite() == NucleiDistribution("upper right")
    assert NucleiDistribution("upper").opposite() is None and NucleiDistribution("sparse").opposite() is None
    organ = Organ(all_terms()["left kidney"], "cyst").opposite()
    assert organ is not None and organ.key == "organ: right kidney: cyst"


def test_number_of_areas_is_part_of_the_meaning_where_it_is_stated() -> None:
    keys = {Infection(LEFT.left, LEFT.right, areas).key for areas in (None, 2, 3)}
    assert len(keys) == 3


def test_both_kidneys_are_left_and_right_kidney() -> None:
    terms = all_terms()
    assert (
        NamedStructures((terms["kidneys"],)).key
        == NamedStructures((terms["right kidney"], terms["left kidney"])).key
    )


def test_a_location_is_said_in_many_ways() -> None:
    random = Random(0)
    texts = {LEFT.say(random) for _ in range(300)}
    assert len(texts) > 200
    for text in texts:
        assert "left" in text and "right" in text and "{" not in text
    one_sided = {Infection(left=frozenset({"lower"})).say(random) for _ in range(300)}
    assert not any("right" in text or "bilateral" in text or "both" in text for text in one_sided)


def test_the_compact_style_is_among_the_ways() -> None:
    meaning = Infection(frozenset({"upper"}), frozenset({"lower"}), 2)
    random = Random(0)
    texts = {meaning.say(random) for _ in range(5000)}
    assert "bilateral pulmonary infection, two infected areas, upper left lung and lower right lung" in texts


def test_no_template_is_left_unfilled_and_articles_are_single() -> None:
    generator = SentenceGenerator(5)
    for _ in range(3000):
        text = generator.sentence()
        assert "{" not in text and "the the" not in text and "the both" not in text and text.strip()


def test_notes_are_as_long_as_asked_for() -> None:
    assert 3000 <= len(SentenceGenerator(0).note(3000).split()) < 3050


def test_all_kinds_of_meanings_are_drawn() -> None:
    generator = SentenceGenerator(0)
    kinds = {type(generator.meaning()) for _ in range(300)}
    assert kinds == {NamedStructures, Infection, NucleiDistribution, Organ, Unrelated}


def test_everyday_words_are_words() -> None:
    # YAML takes a bare yes or no for something else
    for name, words in everyday().items():
        assert [word for word in words if not isinstance(word, str)] == [], name
        assert len(set(words)) == len(words), name
    known = {phrase.lower() for term in all_terms().values() for phrase in term.phrasings}
    assert not known & {word.lower() for word in [*everyday()["words"], *everyday()["held_out"]]}
    assert not set(everyday()["held_out"]) & set(everyday()["words"])
