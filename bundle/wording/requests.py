"""What a prompt asks for, by rules where rules hold: names and synonyms in any form, sides, lists, negation, exception.

A prompt is cut into the longest phrases of the terms and of the small words in grammar.yaml, and read from left to
right. What the rules do not know at all is left to the network's learnt reading, see `Request.decided`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from bundle.cases.structures import Structures
from bundle.cases.structures_file import SIDES
from bundle.wording.affirmed import DENYING, affirmed, report_words
from bundle.wording.grammar import Reading
from bundle.wording.idioms import Idioms
from bundle.wording.phrases import Item, Phrases, kind_alone
from bundle.wording.spelling import Spelling, Word, fold, folded, tokens
from bundle.wording.terms import Term, all_terms, everyday, grammar, templates

#: Kinds of phrases in grammar.yaml; a phrase of two kinds is of the one that comes first here.
_KINDS = (
    "except",
    "less",
    "unwanted",
    "free",
    "nothing",
    "not",
    "only",
    "contrast",
    "verbs",
    "everything",
    "quantifiers",
    "wanted",
    "and",
    "near",
    "whichever",
    "with",
    "of",
    "things",
    "transparent",
    "absent",
)
_KEPT = 64  # prompts
_SUGGESTED_FOR = 20  # words
_LONGEST_NAME = 80  # letters
#: Lists of single words in grammar.yaml that idioms look for.
_WORD_LISTS = ("groups", "group_words", "participles", "actions", "whichever_one", "report")
#: Kinds that say nothing of what a structure is.
_SMALL = (
    "filler",
    "transparent",
    "of",
    "with",
    "and",
    "split",
    "comma",
    "quantifiers",
    "verbs",
    "only",
    "contrast",
)


@dataclass(frozen=True)
class Request:
    """What a prompt asks for.

    Attributes:
        named: names of things asked for, those among them that no network segments too; empty where the prompt asks
            for nothing.
        everything: whether all that the image can show is asked for, less `excluded`.
        excluded: names that the prompt takes out.
        decided: whether any of the words were known. If not, `named` says nothing.
        not_understood: parts of the prompt that name nothing asked for, as written.
        read_as: words with typing errors -> what they were read as.
        affirmed: the prompt without the clauses that deny something; the prompt itself where none does.
        learnt: whether the network's learnt reading counts where nothing is decided.
    """

    named: frozenset[str] = frozenset()
    everything: bool = False
    excluded: frozenset[str] = frozenset()
    decided: bool = False
    not_understood: tuple[str, ...] = ()
    read_as: Mapping[str, str] = field(default_factory=dict)
    affirmed: str = ""
    learnt: bool = True

    def values(self, structures: Structures) -> tuple[int, ...]:
        """Mask values of the structures that are asked for; of organs that a structure joins, all must be."""
        wanted = []
        for one in structures:
            term = all_terms(structures).get(one.name)
            parts = frozenset({one.name}) if term is None else term.parts
            taken_out = parts & self.excluded
            if not taken_out if self.everything else parts <= self.named:
                wanted.append(one.value)
        return tuple(wanted)

    def halves(self, structures: Structures) -> dict[str, frozenset[str]]:
        """Structure -> its parts that are asked for, where not all of them are: the left lung of a network's lung."""
        terms = {one.name: all_terms(structures).get(one.name) for one in structures}
        asked = {name: term.parts & self.named for name, term in terms.items() if term is not None}
        return {name: parts for name, parts in asked.items() if parts and parts != terms[name].parts}  # type: ignore[union-attr]


class RequestReader:
    """Reads prompts.

    Args:
        terms: all things that a prompt can name.
        own: names of the structures of a network; they come before all other meanings of the same words.
        findings: name -> further phrasings of terms that are reported with their place, such as an infection of zones
            of the lung: organs beside them say where it is and are not asked for.
        described_at_length: names of terms that reports describe.
    """

    def __init__(
        self,
        terms: Iterable[Term],
        own: Iterable[str] = (),
        findings: Mapping[str, Iterable[str]] | None = None,
        described_at_length: Iterable[str] = (),
    ) -> None:
        self._described_at_length = frozenset(described_at_length)
        self._own = frozenset(own)
        self._terms = sorted(terms, key=lambda term: not term.parts & self._own)
        findings = findings or {}
        self._findings = frozenset(findings)
        self._phrases: dict[tuple[str, ...], tuple[str, Any]] = {}
        words = grammar()
        for word in words["filler"]:
            self._phrases[folded(word)] = ("filler", None)
        for kind in reversed(_KINDS):
            for phrase in words[kind]:
                self._phrases[folded(phrase)] = (kind, None)
        for phrase in words["more_things"]:
            self._phrases.setdefault(folded(phrase), ("things", None))
        for phrase in words["still"]:
            self._phrases[folded(phrase)] = ("filler", None)
        for side, phrases in words["sides"].items():
            for phrase in phrases:
                self._phrases[folded(phrase)] = ("side", side)
        named: dict[tuple[str, ...], tuple[str, Any]] = {
            folded(term.name): ("term", term) for term in self._terms
        }
        for term in self._terms:
            also = (*findings[term.name], *term.adjectives) if term.name in findings else ()
            for phrase in (*term.phrasings, *term.held_out, *term.also_read, *also):
                named.setdefault(folded(phrase), ("term", term))
        for term in self._terms:
            for phrase in term.adjectives:
                self._phrases.setdefault(folded(phrase), ("adjective", term))
        self._phrases |= named
        self._things = {folded(phrase) for kind in ("things", "more_things") for phrase in words[kind]}
        lengths: dict[str, set[int]] = {}
        for known in self._phrases:
            if known:
                lengths.setdefault(known[0], set()).add(len(known))
        self._lengths = {word: sorted(found, reverse=True) for word, found in lengths.items()}
        self._names = {term.name.lower(): term.name for term in self._terms}
        found = [phrase for phrases in findings.values() for phrase in phrases]
        said = [
            phrase
            for term in self._terms
            for phrase in (
                term.name,
                *term.phrasings,
                *term.held_out,
                *term.also_read,
                *term.adjectives,
                *found,
            )
            if phrase == term.name or len(tokens(phrase)) == 1
        ]
        self._alike = {fold(word): fold(group[0]) for group in words["alike"] for word in group}
        small = {phrase for phrase, meaning in self._phrases.items() if meaning[0] in _SMALL}
        told = [(frozenset(folded(phrase)), term) for term in self._terms for phrase in term.known_by]
        stated = len(told)
        told += [
            (frozenset(word for word in folded(phrase) if (word,) not in small), term)
            for term in self._terms
            for phrase in term.described
        ]
        self._descriptions = [
            (frozenset(map(self._concept, words)), term)
            for position, (words, term) in enumerate(told)
            if len(words) > 1 or position < stated
        ]
        clinical = {word for phrase, meaning in named.items() for word in phrase}
        self._clinical = clinical - {word for phrase in words["filler"] for word in folded(phrase)}
        self._clinical |= set(self._alike)
        self._single = {phrase[0] for phrase in named if len(phrase) == 1} | set(SIDES)
        two_words = {
            phrase.lower()
            for term in self._terms
            for phrase in (term.name, *term.phrasings, *term.held_out)
            if phrase.count(" ") == 1 and phrase.replace(" ", "").isalpha()
        }
        right = {word for phrase in self._phrases for word in phrase} | _everyday_words() | set(self._alike)
        right |= {fold(word) for kind in _WORD_LISTS for word in words[kind]}
        self._kept = lru_cache(maxsize=_KEPT)(self._read)
        self._spelling = Spelling(
            {word.text.lower() for phrase in (*said, *SIDES, *words["mended"]) for word in tokens(phrase)}
            | {word for kind in ("except", "everything") for word in words[kind] if len(word) > 5},
            right | {fold(word) for word in words["not_typos"]},
            two_words,
            words["stands_for"],
        )
        self._pairs = {
            term.name.split(" ", 1)[1]: {side: f"{side} {term.name.split(' ', 1)[1]}" for side in SIDES}
            for term in self._terms
            if term.opposite is not None and term.name.split(" ", 1)[0] in SIDES
        }

    def suggestions(self, words: str) -> list[str]:
        """Names that are close to words which were not understood, the closest first; only the first words count."""
        found: dict[str, None] = {}
        for word in [words, *words.split()][:_SUGGESTED_FOR]:
            if len(word) > _LONGEST_NAME:
                continue
            close = difflib.get_close_matches(
                word.lower(), [*self._names, *self._spelling.names], n=3, cutoff=0.7
            )
            for one in close:
                kind, term = self._phrases.get((one,), ("", None))
                name = self._names.get(one) or (term.name if kind in ("term", "adjective") else None)
                if name:
                    found[name] = None
        return list(found)

    def __call__(self, prompt: str) -> Request:
        """What a prompt asks for; nothing of it is evaluated. The last ones are kept, and read once."""
        return self._kept(prompt)

    def _read(self, prompt: str) -> Request:
        words, joined = self._spelling.joined(self._spelling.in_full(tokens(prompt), self._single), prompt)
        words, read_as = self._spelling.corrected(words)
        read_as = joined | read_as
        items = self._items(words, prompt)
        reading = Reading(self._pairs, self._findings)
        for position, item in enumerate(items):
            reading.take(items, position, item)
        self._described(reading, words, items)
        spans = reading.not_understood
        if reading.reported or reading.named & self._described_at_length:
            spans = [
                span for span in spans if not {word.folded for word in words[slice(*span)]} <= report_words()
            ]
        return Request(
            named=frozenset(reading.named - reading.excluded),
            everything=reading.everything or (reading.implied and not reading.named),
            excluded=frozenset(reading.excluded),
            decided=reading.decided,
            not_understood=_as_written(prompt, words, spans),
            read_as=read_as,
            affirmed=affirmed(prompt, words, items, read_as, self._findings),
            learnt=self._may_be_learnt(words, items),
        )

    def _concept(self, word: str) -> str:
        return self._alike.get(word, word)

    def _described(self, reading: Reading, words: list[Word], items: Phrases) -> None:
        """Takes a prompt that names nothing for the one structure of which it says most."""
        if reading.everything or reading.named & self._own:
            return
        if any(
            item.kind in DENYING or (item.kind == "adjective" and item.value.parts & self._own)
            for item in items
        ):
            return
        things = [
            word.folded for item in items if item.kind == "things" for word in words[item.start : item.end]
        ]
        if any(word not in self._alike for word in things):
            return
        given = {self._concept(word.folded) for word in words}
        fitting = [(len(concepts), term) for concepts, term in self._descriptions if concepts <= given]
        most = max((size for size, _ in fitting), default=0)
        meant = {term.name: term for size, term in fitting if size == most}
        if len(meant) != 1:
            return
        (term,) = meant.values()
        sides = {item.value for item in items if item.kind == "side"} & set(SIDES)
        one_sided = len(term.parts) == 2 and len(sides) == 1
        reading.named = {part for part in term.parts if not one_sided or part.split(" ", 1)[0] in sides}
        reading.decided, reading.implied, reading.not_understood = True, False, []

    def _may_be_learnt(self, words: list[Word], items: Phrases) -> bool:
        """Whether the network's learnt reading counts: several words, half of them known in clinical wording."""
        told = [words[item.start].folded for item in items if item.kind not in _SMALL]
        return len(told) > 1 and 2 * sum(word in self._clinical for word in told) >= len(told)

    def _items(self, words: list[Word], prompt: str) -> Phrases:
        items: list[Item] = []
        told = [word.folded for word in words]
        position = 0
        while position < len(words):
            for length in self._lengths.get(told[position], ()):
                phrase = tuple(told[position : position + length])
                found = self._phrases.get(phrase) if len(phrase) == length else None
                if found is not None:
                    break
            else:
                length = 1
                phrase = (told[position],)
                found = kind_alone(words, position), None
                bound = bool(position) and prompt[words[position - 1].end : words[position].start] in (
                    "-",
                    "–",
                )
                if bound and items[-1].kind == "term" and found[0] == "unknown" and phrase[0].isalpha():
                    found = "things", None  # 'lung-ta' is a word of its own
            follows_term = bool(items) and items[-1].kind == "term" and items[-1].end == position
            foreign = found[0] == "term" and found[1] is not None and not found[1].parts & self._own
            if foreign and follows_term and phrase in self._things:
                found = "things", None  # 'liver tumour', though a tumour is also a term of its own
            behind = told[position + length : position + length + 1]
            if foreign and phrase in self._things and behind in (["of"], ["in"], ["within"], ["inside"]):
                found = "things", None
            if foreign and phrase[:1] in self._things and "of" in phrase:
                found, length = ("things", None), 1  # 'tumour of the liver', and of what else follows
            items.append(Item(found[0], found[1], position, position + length))
            position += length
        return Idioms(items, words, self._findings).read()


def names_a_side(text: str) -> bool:
    """Whether a text speaks of left or right, abbreviated ones too."""
    sides, full = grammar()["sides"], grammar()["stands_for"]
    known = {word for side in SIDES for phrase in sides[side] for word in folded(phrase)[:1]}
    known |= {short for short, words in full.items() if set(words.split()) & set(SIDES)}
    return any(word.folded in known for word in tokens(text))


@lru_cache(maxsize=8)
def request_reader(structures: Structures) -> RequestReader:
    """The reader of prompts about the structures of a network and about all else that has a name."""
    findings = {}
    for one in structures:
        report = templates().get(one.words.get("reports", ""), {})
        if "findings" in report:
            findings[one.name] = report["findings"]
    reported = [one.name for one in structures if one.words.get("reports")]
    return RequestReader(all_terms(structures).values(), [one.name for one in structures], findings, reported)


@lru_cache(maxsize=1)
def _everyday_words() -> frozenset[str]:
    content = everyday()
    phrases = [*content["words"], *content["sentences"], *content["held_out"]]
    return frozenset(word for phrase in phrases for word in folded(str(phrase)))


def _as_written(prompt: str, words: list[Word], spans: list[tuple[int, int]]) -> tuple[str, ...]:
    """The parts of a prompt at spans of its words, neighbours joined, each once."""
    joined: list[list[int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    return tuple(dict.fromkeys(prompt[words[start].start : words[end - 1].end] for start, end in joined))
