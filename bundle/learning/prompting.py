"""What training images are prompted with, and which structures each prompt names.

A network that names structures learns words apart from images: beside its own prompt every image brings a text that
has nothing to do with it. Prompts name one or several structures, things that no channel of the network stands for,
or nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from bundle.cases.modality import Modality
from bundle.cases.structures import Structures
from bundle.cases.structures_file import REPORTS
from bundle.wording import (
    Infection,
    Meaning,
    NamedStructures,
    NucleiDistribution,
    Organ,
    SentenceGenerator,
    Term,
    all_terms,
    everyday,
    is_held_out,
    templates,
)

_REMOVED = "removed"  # of the findings in an organ: whether it is named there is a matter of taste
_LONGEST = 6  # sentences


@dataclass(frozen=True)
class Prompt:
    """A text and the channels of the structures it names."""

    text: str
    channels: frozenset[int] = frozenset()


class PromptDrawer:
    """Draws prompts for training; the same random state draws the same prompt. Held-out words never occur.

    Args:
        structures: of the network. Those that the wording knows are named in all its ways, others by their name.
        silent: share of the images that come without a text.
        own: share of the rest that keep the text of their case, where it has one.
        reworded: share that say what the case's text says in other words, where it is understood.
        foreign: share that name nothing the network knows, or nothing at all.

        What is left names structures that the image's modality can show.

    Raises:
        ValueError: shares outside [0, 1], or of more than the whole; a structure named by words that are held out.
    """

    def __init__(
        self,
        structures: Structures,
        silent: float = 0.3,
        own: float = 0.5,
        reworded: float = 0.25,
        foreign: float = 0.1,
    ) -> None:
        shares = (silent, own, reworded, foreign)
        if min(shares) < 0.0 or silent > 1.0 or sum(shares[1:]) > 1.0 + 1e-9:
            raise ValueError(f"prompt_shares: {shares} are no shares, or add up to more than 1")
        self.structures = structures
        self.silent, self.own, self.reworded, self.foreign = shares
        for entry in structures:
            if is_held_out(entry.name, structures):
                raise ValueError(
                    f"structures: {entry.name!r} is a phrasing that is kept to test the reading of prompts; "
                    "give the structure another name"
                )
        terms = {(term.name, term.modality): term for term in all_terms(structures).values()}
        self._terms = list(terms.values())
        self._parts = [
            (entry.value, entry.modality, terms[entry.name, entry.modality].parts) for entry in structures
        ]
        self._reported = {
            kind: frozenset(entry.value for entry in structures if entry.words.get("reports") == kind)
            for kind in REPORTS
        }
        self._channels = {term: self._whole([term]) for term in self._terms}
        self._known = [term for term in self._terms if self._channels[term]]

    def for_image(self, modality: Modality, own: str, random: Random) -> Prompt:
        """A prompt for an image, true of it where it says where something is.

        Args:
            own: text of the case, '' for none.
        """
        if random.random() < self.silent:
            return Prompt("")
        choice = random.random()
        said = Infection.from_zones(own) if modality == "X-ray" else None
        if choice < self.own and own:
            return Prompt(_retyped(own, random), self._of_modality(modality))
        if choice < self.own + self.reworded and said is not None:
            return Prompt(self._generator(random).say(said), self._reported["infection"])
        if choice > 1.0 - self.foreign:
            return self._foreign(random)
        return self._named(random, [term for term in self._known if term.modality == modality])

    def for_words_alone(self, random: Random) -> Prompt:
        """A prompt of any kind, about any modality."""
        kinds: Mapping[Callable[[Random], Prompt], float] = {
            lambda drawn: self._named(drawn, self._known): 30.0,
            lambda drawn: self._named(drawn, self._terms): 15.0,
            self._report: 25.0,
            self._foreign: 20.0,
            self._note: 10.0,
        }
        return random.choices(list(kinds), list(kinds.values()))[0](random)

    def _generator(self, random: Random) -> SentenceGenerator:
        return SentenceGenerator(random.getrandbits(48), self.structures)

    def _of_modality(self, modality: Modality) -> frozenset[int]:
        """What the texts of data sets speak of: everything that their images are labelled with."""
        return frozenset(self.structures.of_modality(modality))

    def _whole(self, terms: Sequence[Term]) -> frozenset[int]:
        """Channels of the structures that terms name wholly: 'left lung' alone does not name the lungs."""
        named = {(term.modality, part) for term in terms for part in term.parts}
        return frozenset(
            channel
            for channel, modality, parts in self._parts
            if all((modality, part) in named for part in parts)
        )

    def _named(self, random: Random, terms: list[Term]) -> Prompt:
        if not terms:
            return self._foreign(random)
        first = random.choice(terms)
        chosen = [first]
        if random.random() < 0.25:
            alike = [
                term for term in terms if term.modality == first.modality and not term.parts & first.parts
            ]
            chosen += random.sample(alike, min(len(alike), random.choice([1, 1, 2, 3])))
        text = self._generator(random).say(NamedStructures(tuple(chosen)))
        return Prompt(_retyped(text, random), self._whole(chosen))

    def _report(self, random: Random) -> Prompt:
        generator = self._generator(random)
        kinds: list[Callable[[], Meaning]] = [generator.infection, generator.nuclei, generator.organ]
        meaning = random.choices(kinds, weights=[2.0, 1.0, 1.0])[0]()
        names: frozenset[int] = frozenset()
        if isinstance(meaning, Infection) and (meaning.left or meaning.right):
            names = self._reported["infection"]
        elif isinstance(meaning, NucleiDistribution) and meaning.how != "none":
            names = self._reported["nuclei"]
        elif isinstance(meaning, Organ):
            if meaning.finding == _REMOVED:
                return self._foreign(random)
            names = self._channels[meaning.term]
        return Prompt(_retyped(generator.say(meaning), random), names)

    def _note(self, random: Random) -> Prompt:
        """Several sentences; what any of them names, the note names."""
        parts = [
            random.choice(templates()["notes"]["fillers"])
            if random.random() < 0.5
            else random.choice([self._report, lambda drawn: self._named(drawn, self._terms)])(random)
            for _ in range(random.randint(2, _LONGEST))
        ]
        sentences = [part if isinstance(part, str) else part.text for part in parts]
        named = frozenset().union(*(part.channels for part in parts if isinstance(part, Prompt)))
        return Prompt(" ".join(text[:1].upper() + text[1:].rstrip(".") + "." for text in sentences), named)

    def _foreign(self, random: Random) -> Prompt:
        """Words that ask for nothing the network could segment."""
        words = everyday()
        kind = random.random()
        if kind < 0.3:
            unknown = [term for term in self._terms if not self._channels[term]]
            return self._named(random, unknown) if unknown else Prompt("nothing")
        if kind < 0.55:
            thing = " ".join(random.choices(words["words"], k=random.choice([1, 1, 1, 2, 3])))
        elif kind < 0.7:
            thing = " ".join(_invented(random) for _ in range(random.choice([1, 1, 2, 3])))
        elif kind < 0.85:
            return Prompt(_retyped(random.choice(words["sentences"]), random))
        elif kind < 0.95:
            return Prompt(_retyped(random.choice(templates()["notes"]["fillers"]), random))
        else:
            letters = "abcdefghijklmnopqrstuvwxyz0123456789 .,;-_#/?!"
            return Prompt("".join(random.choices(letters, k=random.randint(1, 30))) + "?")
        if random.random() < 0.4:
            return Prompt(thing)
        image = random.choice(templates()["images"][random.choice(sorted(templates()["images"]))])
        frame: str = random.choice(templates()["prompts"])
        return Prompt(frame.replace("{x}", thing).replace("{image}", image))


def prompt_drawer(structures: Structures, shares: Mapping[str, float] | None) -> PromptDrawer | None:
    """A `PromptDrawer` with these shares; None for None.

    Raises:
        ValueError: a share that does not exist or is no number.
    """
    if shares is None:
        return None
    known = ("silent", "own", "reworded", "foreign")
    for name, value in shares.items():
        if name not in known or isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"prompt_shares: {name}: {value!r} is none; give numbers for {', '.join(known)}")
    return PromptDrawer(structures, **shares)


def _invented(random: Random) -> str:
    """A word that is none, or letters in a row."""
    if random.random() < 0.7:
        return "".join(random.choices(everyday()["syllables"], k=random.choice([2, 2, 3, 4])))
    return "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(2, 10)))


def _retyped(text: str, random: Random) -> str:
    """As people type it: with or without capitals, with or without a full stop."""
    choice = random.random()
    if choice < 0.5:
        return text
    if choice < 0.7:
        return text[:1].upper() + text[1:]
    if choice < 0.8:
        return text.upper()
    return text[:-1] if text.endswith(".") else text + "."
