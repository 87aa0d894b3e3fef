"""Prompts, report sentences and notes in many wordings, from seeded random choices.

A meaning can be said in many ways; its key tells whether two texts mean the same: sides, zones and numbers count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from bundle.cases.structures import Structures
from bundle.cases.structures_file import SIDES
from bundle.wording.terms import ZONES, Term, all_terms, is_held_out, templates, vocabulary

_SIDE_WORD = re.compile(r"\b(?:left|right)\b", re.IGNORECASE)
_PLACES = re.compile(r"\b((?:(?:all|upper|middle|lower) )+)(left|right) lung\b")
_DETERMINED = re.compile(r"^(the|both|all|every|everything|each|everybody)\b", re.IGNORECASE)


def exchange_sides(text: str) -> str:
    """A text with left and right exchanged, as it would describe the mirrored picture."""

    def other(word: re.Match[str]) -> str:
        found = word[0]
        exchanged = SIDES[1 - SIDES.index(found.lower())]
        return (
            exchanged.upper() if found.isupper() else exchanged.title() if found[0].isupper() else exchanged
        )

    return _SIDE_WORD.sub(other, text)


class Meaning(Protocol):
    """What a sentence says, apart from its words."""

    @property
    def key(self) -> str:
        """Equal for, and only for, the same meaning."""
        ...

    def say(self, random: Random) -> str:
        """One of its wordings."""
        ...

    def opposite(self, structures: Structures | None = None) -> Meaning | None:
        """The same with left and right exchanged, where that is another meaning; `structures` as for `all_terms`."""
        ...


@dataclass(frozen=True)
class Pair:
    """Two wordings of one meaning."""

    first: str
    second: str
    meaning: str


def _fill(template: str, **words: str) -> str:
    """Replace '{word}'; 'the {x}' loses its article before words that bring their own."""
    for name, value in words.items():
        if _DETERMINED.match(value):
            template = template.replace(f"the {{{name}}}", value)
        template = template.replace(f"{{{name}}}", value)
    return template


def _join(random: Random, parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return ", ".join(parts[:-1]) + random.choice([" and ", ", ", " as well as "]) + parts[-1]


def _name(random: Random, term: Term) -> str:
    """A phrasing of a term; its usual name often, as people do."""
    return term.name if random.random() < 0.3 else random.choice(term.phrasings)


@dataclass(frozen=True)
class NamedStructures:
    """A prompt that names one or several structures."""

    terms: tuple[Term, ...]

    @property
    def key(self) -> str:
        return "structures: " + " + ".join(sorted(frozenset().union(*(term.parts for term in self.terms))))

    def say(self, random: Random) -> str:
        named = _join(random, [_name(random, term) for term in self.terms])
        image = random.choice(templates()["images"][self.terms[0].modality])
        return _fill(random.choice(templates()["prompts"]), x=named, image=image)

    def opposite(self, structures: Structures | None = None) -> NamedStructures | None:
        mirrored = tuple(
            all_terms(structures)[term.opposite] if term.opposite is not None else term for term in self.terms
        )
        other = NamedStructures(mirrored)
        return other if other.key != self.key else None


@dataclass(frozen=True)
class Infection:
    """A chest X-ray finding: zones a side, and the number of areas where it is stated."""

    left: frozenset[str] = frozenset()
    right: frozenset[str] = frozenset()
    areas: int | None = None

    @classmethod
    def from_zones(cls, text: str) -> Infection | None:
        """The zones that a sentence about an infection names before a side ('middle lower left lung').

        The number of areas is left out: it follows from the zones, or cannot be told from the image.

        Returns:
            None where the sentence names no infection or no zone of a lung.
        """
        zones: dict[str, frozenset[str]] = {side: frozenset() for side in SIDES}
        if "infection" not in text:
            return None
        for words, side in _PLACES.findall(text):
            named = words.split()
            zones[side] |= frozenset(ZONES if "all" in named else named)
        found = cls(zones["left"], zones["right"])
        return found if found.left or found.right else None

    @property
    def key(self) -> str:
        sides = [
            f"{side} {' '.join(zone for zone in ZONES if zone in zones)}"
            for side, zones in zip(SIDES, (self.left, self.right), strict=True)
            if zones
        ]
        stated = [] if self.areas is None or not sides else [f"{self.areas} areas"]
        return "infection: " + ("; ".join([*sides, *stated]) or "none")

    def say(self, random: Random) -> str:
        words = templates()["infection"]
        if not (self.left or self.right):
            return str(random.choice(words["none"]))
        one = self.areas == 1
        bilateral = bool(self.left and self.right)
        number = "" if self.areas is None else random.choice([str(self.areas), _count_word(self.areas)])
        compact = self.areas is not None and random.random() < 0.4
        style = "uncounted" if self.areas is None else "compact" if compact else "counted"
        return _fill(
            random.choice(words[style]),
            extent=random.choice(["bilateral", "both-sided"] if bilateral else ["unilateral", "one-sided"]),
            finding=random.choice(words["findings"]),
            count=number,
            areas=random.choice(["area", "region", "focus"] if one else ["areas", "regions", "foci"]),
            are="is" if one else "are",
            places=self._compact_places(random) if compact else self._places(random),
        )

    def opposite(self, structures: Structures | None = None) -> Infection | None:
        other = Infection(self.right, self.left, self.areas)
        return other if other.key != self.key else None

    def _ordered(self, random: Random) -> list[tuple[str, frozenset[str]]]:
        sides = [(side, zones) for side, zones in zip(SIDES, (self.left, self.right), strict=True) if zones]
        if random.random() < 0.4:
            sides.reverse()
        return sides

    def _compact_places(self, random: Random) -> str:
        return " and ".join(
            f"{'all' if len(zones) == 3 else ' '.join(zone for zone in ZONES if zone in zones)} {side} lung"
            for side, zones in self._ordered(random)
        )

    def _places(self, random: Random) -> str:
        if self.left == self.right and random.random() < 0.5:
            return _zones_of(random, self.left, "both lungs")
        return _join(
            random,
            [
                _side_first(random, zones, side)
                if random.random() < 0.5
                else _zones_of(random, zones, f"{side} lung")
                for side, zones in self._ordered(random)
            ],
        )


def _count_word(number: int) -> str:
    words: Sequence[str] = vocabulary()["counts"]
    return words[number - 1] if number <= len(words) else str(number)


def _zone_words(random: Random, zones: frozenset[str]) -> list[str]:
    return [random.choice(vocabulary()["zones"][zone]["adjectives"]) for zone in ZONES if zone in zones]


def _side_first(random: Random, zones: frozenset[str], side: str) -> str:
    """'left upper and middle zones', 'left apex'."""
    side_word = random.choice(vocabulary()["sides"][side])
    if len(zones) == 3:
        return random.choice(
            [f"whole {side_word} lung", f"{side_word} lung in all zones", f"entire {side} lung"]
        )
    if random.random() < 0.3:
        places = [random.choice(vocabulary()["zones"][zone]["places"]) for zone in ZONES if zone in zones]
        return _join(random, [f"{side_word} {place}" for place in places])
    noun = random.choice(["zone", "field", "region"]) + ("s" if len(zones) > 1 else "")
    return f"{side_word} {' and '.join(_zone_words(random, zones))} {noun}"


def _zones_of(random: Random, zones: frozenset[str], whole: str) -> str:
    """'upper and middle zones of the left lung', 'base of the right lung'."""
    article = "" if whole.startswith("both") else "the "
    if len(zones) == 3:
        if article:
            return f"{random.choice(templates()['infection']['all'])} {whole}"
        return random.choice(
            ["all zones of both lungs", "entire lungs on both sides", "both lungs completely"]
        )
    if random.random() < 0.3:
        places = [random.choice(vocabulary()["zones"][zone]["places"]) for zone in ZONES if zone in zones]
        return f"{_join(random, places)} of {article}{whole}"
    noun = random.choice(["zone", "field", "part"]) + ("s" if len(zones) > 1 or not article else "")
    return f"{' and '.join(_zone_words(random, zones))} {noun} of {article}{whole}"


@dataclass(frozen=True)
class NucleiDistribution:
    """How nuclei are distributed: a key of `nuclei.meanings` in templates.yaml, or a crowded part of the field."""

    how: str

    @property
    def key(self) -> str:
        return f"nuclei: {self.how}"

    def say(self, random: Random) -> str:
        words = templates()["nuclei"]
        subject = random.choice(words["subjects"])
        if self.how in words["meanings"]:
            how = random.choice(words["meanings"][self.how])
            return _fill(random.choice(words["spread"]), subject=subject, how=how)
        return _fill(random.choice(words["dense_at"]), subject=subject, where=self._where(random))

    def opposite(self, structures: Structures | None = None) -> NucleiDistribution | None:
        exchanged = exchange_sides(self.how)
        return NucleiDistribution(exchanged) if exchanged != self.how else None

    def _where(self, random: Random) -> str:
        vertical, _, horizontal = self.how.rpartition(" ")
        wordings = [self.how]
        if vertical:
            wordings += [f"{horizontal} {vertical}", f"{vertical}-{horizontal}"]
        if "upper" in self.how or "lower" in self.how:
            wordings.append(random.choice(wordings).replace("upper", "top").replace("lower", "bottom"))
        return random.choice(wordings)


@dataclass(frozen=True)
class Organ:
    """A CT finding: a term, and a key of `organs.findings` in templates.yaml."""

    term: Term
    finding: str

    @property
    def key(self) -> str:
        return f"organ: {self.term.name}: {self.finding}"

    def say(self, random: Random) -> str:
        words = templates()["organs"]
        sentence = _fill(random.choice(words["findings"][self.finding]), x=_name(random, self.term))
        return _fill(random.choice(words["frames"]), s=sentence)

    def opposite(self, structures: Structures | None = None) -> Organ | None:
        if self.term.opposite is None:
            return None
        return Organ(all_terms(structures)[self.term.opposite], self.finding)


@dataclass(frozen=True)
class Unrelated:
    """A prompt that asks for something no clinical image shows."""

    word: str

    @property
    def key(self) -> str:
        return f"unrelated: {self.word}"

    def say(self, random: Random) -> str:
        images = random.choice(sorted(templates()["images"]))
        image = random.choice(templates()["images"][images])
        return _fill(random.choice(templates()["prompts"]), x=self.word, image=image)

    def opposite(self, structures: Structures | None = None) -> None:
        return None


class SentenceGenerator:
    """Draws meanings and says them; the same seed gives the same texts. Held-out phrasings never occur.

    Args:
        seed: of all choices.
        structures: whose words it has, beside further ones; None for those of the shipped network.
    """

    def __init__(self, seed: int, structures: Structures | None = None) -> None:
        self._random = Random(seed)
        self._structures = structures
        self._terms = list(all_terms(structures).values())

    def say(self, meaning: Meaning) -> str:
        """A wording of a meaning, without held-out phrasings."""
        while is_held_out(text := meaning.say(self._random), self._structures):
            pass
        return text

    def structures(self) -> NamedStructures:
        """One structure, sometimes two or three of one modality."""
        first = self._random.choice(self._terms)
        if self._random.random() < 0.85:
            return NamedStructures((first,))
        alike = [
            term for term in self._terms if term.modality == first.modality and not term.parts & first.parts
        ]
        return NamedStructures((first, *self._random.sample(alike, self._random.choice([1, 1, 2]))))

    def infection(self) -> Infection:
        """Zones of one or both lungs; now and then none."""
        if self._random.random() < 0.03:
            return Infection()
        sides = self._random.choice(["left", "right", "both", "both"])
        left = self._zones() if sides != "right" else frozenset[str]()
        right = self._zones() if sides != "left" else frozenset[str]()
        fewest = bool(left) + bool(right)
        areas = self._random.randint(fewest, 6) if self._random.random() < 0.5 else None
        return Infection(left, right, areas)

    def nuclei(self) -> NucleiDistribution:
        """How nuclei are spread over an H&E field."""
        words = templates()["nuclei"]
        return NucleiDistribution(self._random.choice([*words["meanings"], *words["corners"]]))

    def organ(self) -> Organ:
        """A finding in an organ on CT."""
        terms = [term for term in self._terms if term.modality == "CT"]
        return Organ(self._random.choice(terms), self._random.choice(list(templates()["organs"]["findings"])))

    def unrelated(self) -> Unrelated:
        """Something that is in no clinical image."""
        return Unrelated(self._random.choice(vocabulary()["unrelated"]))

    def meaning(self) -> Meaning:
        """Any of the above, structures most often."""
        kinds: list[Callable[[], Meaning]] = [
            self.structures,
            self.infection,
            self.nuclei,
            self.organ,
            self.unrelated,
        ]
        return self._random.choices(kinds, weights=[45, 30, 8, 12, 5])[0]()

    def sentence(self) -> str:
        """A sentence of any meaning."""
        return self.say(self.meaning())

    def note(self, words: int) -> str:
        """A report of at least `words` words: sentences of all kinds under headings."""
        parts: list[str] = []
        length = 0
        while length < words:
            notes = templates()["notes"]
            text = self.sentence() if self._random.random() < 0.6 else self._random.choice(notes["fillers"])
            if self._random.random() < 0.15:
                text = f"{self._random.choice(notes['headings'])} {text}".strip()
            text = text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")
            parts.append(text)
            length += len(text.split())
        return " ".join(parts)

    def pairs(self, count: int) -> list[Pair]:
        """Two wordings each of `count` meanings; a meaning with sides is followed by its opposite."""
        pairs: list[Pair] = []
        while len(pairs) < count:
            meaning = self.meaning()
            pairs.append(self._pair(meaning))
            other = meaning.opposite(self._structures)
            if other is not None and len(pairs) < count:
                pairs.append(self._pair(other))
        return pairs

    def _pair(self, meaning: Meaning) -> Pair:
        return Pair(self.say(meaning), self.say(meaning), meaning.key)

    def _zones(self) -> frozenset[str]:
        return frozenset(self._random.sample(ZONES, self._random.choice([1, 1, 2, 2, 3])))
