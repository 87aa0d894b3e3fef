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
from bundle.wording.grammar import Item, Reading
from bundle.wording.spelling import Spelling, Word, fold, folded, tokens
from bundle.wording.terms import Term, all_terms, everyday, grammar, templates

_SPLITS = frozenset(".;:!?\n")
_COMMAS = frozenset(",()[]")
#: Kinds of phrases in grammar.yaml; a phrase of two kinds is of the one that comes first here.
_KINDS = (
    "except",
    "not",
    "only",
    "contrast",
    "verbs",
    "everything",
    "and",
    "near",
    "with",
    "of",
    "things",
    "transparent",
    "absent",
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
    """

    named: frozenset[str] = frozenset()
    everything: bool = False
    excluded: frozenset[str] = frozenset()
    decided: bool = False
    not_understood: tuple[str, ...] = ()
    read_as: Mapping[str, str] = field(default_factory=dict)
    affirmed: str = ""

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


class RequestReader:
    """Reads prompts.

    Args:
        terms: all things that a prompt can name.
        own: names of the structures of a network; they come before all other meanings of the same words.
        findings: name -> further phrasings of terms that are reported with their place, such as an infection of zones
            of the lung: organs beside them say where it is and are not asked for.
    """

    def __init__(
        self,
        terms: Iterable[Term],
        own: Iterable[str] = (),
        findings: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
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
        for side, phrases in words["sides"].items():
            for phrase in phrases:
                self._phrases[folded(phrase)] = ("side", side)
        named: dict[tuple[str, ...], tuple[str, Any]] = {
            folded(term.name): ("term", term) for term in self._terms
        }
        for term in self._terms:
            also = (*findings[term.name], *term.adjectives) if term.name in findings else ()
            for phrase in (*term.phrasings, *term.held_out, *also):
                named.setdefault(folded(phrase), ("term", term))
        for term in self._terms:
            for phrase in term.adjectives:
                self._phrases.setdefault(folded(phrase), ("adjective", term))
        self._phrases |= named
        self._things = {folded(phrase) for phrase in words["things"]}
        self._longest = max(map(len, self._phrases))
        self._names = {term.name.lower(): term.name for term in self._terms}
        said = [
            phrase for term in self._terms for phrase in (*term.phrasings, *term.held_out, *term.adjectives)
        ]
        right = {word for phrase in self._phrases for word in phrase} | _everyday_words()
        self._spelling = Spelling(
            {word.text.lower() for phrase in said for word in tokens(phrase)},
            right | {fold(word) for word in words["not_typos"]},
        )
        self._pairs = {
            term.name.split(" ", 1)[1]: {side: f"{side} {term.name.split(' ', 1)[1]}" for side in SIDES}
            for term in self._terms
            if term.opposite is not None and term.name.split(" ", 1)[0] in SIDES
        }

    def suggestions(self, words: str) -> list[str]:
        """Names that are close to words which were not understood, the closest first."""
        found: dict[str, None] = {}
        for word in [words, *words.split()]:
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
        """What a prompt asks for; nothing of it is evaluated."""
        words, read_as = self._spelling.corrected(tokens(prompt))
        items = self._items(words)
        reading = Reading(self._pairs, self._findings)
        for position, item in enumerate(items):
            reading.take(items, position, item)
        spans = reading.not_understood
        return Request(
            named=frozenset(reading.named - reading.excluded),
            everything=reading.everything or (reading.implied and not reading.named),
            excluded=frozenset(reading.excluded),
            decided=reading.decided,
            not_understood=_as_written(prompt, words, spans),
            read_as=read_as,
            affirmed=self._affirmed(prompt, words, items),
        )

    def _items(self, words: list[Word]) -> list[Item]:
        items: list[Item] = []
        position = 0
        while position < len(words):
            for length in range(min(self._longest, len(words) - position), 0, -1):
                phrase = tuple(word.folded for word in words[position : position + length])
                found = self._phrases.get(phrase)
                if found is not None:
                    break
            else:
                length = 1
                text = words[position].folded
                kind = "split" if text in _SPLITS else "comma" if text in _COMMAS else "unknown"
                kind = "and" if text in "/&+" else kind
                kind = "things" if kind == "unknown" and _names_a_thing(text) else kind
                found = kind, None
            follows_term = bool(items) and items[-1].kind == "term" and items[-1].end == position
            foreign = found[0] == "term" and found[1] is not None and not found[1].parts & self._own
            if foreign and follows_term and phrase in self._things:
                found = "things", None  # 'liver tumour', though a tumour is also a term of its own
            items.append(Item(found[0], found[1], position, position + length))
            position += length
        return items

    def _affirmed(self, prompt: str, words: list[Word], items: list[Item]) -> str:
        """The prompt without the clauses that deny something."""
        clauses: list[list[Item]] = [[]]
        for item in items:
            if item.kind in ("split", "comma", "contrast"):
                clauses.append([])
            elif item.kind in ("not", "except") and clauses[-1]:
                clauses.append([item])
            else:
                clauses[-1].append(item)
        kept = [
            clause
            for clause in clauses
            if clause and not any(item.kind in ("not", "except", "absent") for item in clause)
        ]
        if len(kept) == sum(bool(clause) for clause in clauses):
            return prompt
        return ", ".join(
            prompt[words[clause[0].start].start : words[clause[-1].end - 1].end] for clause in kept
        )


@lru_cache(maxsize=8)
def request_reader(structures: Structures) -> RequestReader:
    """The reader of prompts about the structures of a network and about all else that has a name."""
    findings = {}
    for one in structures:
        report = templates().get(one.words.get("reports", ""), {})
        if "findings" in report:
            findings[one.name] = report["findings"]
    return RequestReader(all_terms(structures).values(), [one.name for one in structures], findings)


@lru_cache(maxsize=1)
def _everyday_words() -> frozenset[str]:
    content = everyday()
    phrases = [*content["words"], *content["sentences"], *content["held_out"]]
    return frozenset(word for phrase in phrases for word in folded(str(phrase)))


def _names_a_thing(word: str) -> bool:
    """Whether a word that is not known ends as names of diseases and operations do."""
    return len(word) > 5 and word.endswith(tuple(grammar()["thing_endings"]))


def _as_written(prompt: str, words: list[Word], spans: list[tuple[int, int]]) -> tuple[str, ...]:
    """The parts of a prompt at spans of its words, neighbours joined, each once."""
    joined: list[list[int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    return tuple(dict.fromkeys(prompt[words[start].start : words[end - 1].end] for start, end in joined))
