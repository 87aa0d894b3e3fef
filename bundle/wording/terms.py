"""The words for what clinical images show: of the structures, and of the YAML files beside this one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from bundle.cases.structures import Structures, shipped_structures
from bundle.cases.structures_file import SIDES

ZONES = ("upper", "middle", "lower")
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Term:
    """One thing that a prompt can name.

    Attributes:
        name: its usual name; that of the structure in a mask where the bundle segments it.
        modality: 'CT', 'X-ray' or 'H&E'.
        parts: what it consists of: itself, or left and right for 'kidneys'.
        phrasings: all ways to name it that may be generated, the name first.
        held_out: ways to name it that are never generated.
        also_read: ways to name it that are read and never generated, such as abbreviations.
        opposite: name of the same thing on the other side of the body, if there is one.
        adjectives: words that name it beside 'tissue' and the like; beside others they name something of it.
        known_by: words that say together, in any order, what it is: 'makes bile'.
        described: paraphrases, those of its phrasings that are sentences about it.
    """

    name: str
    modality: str
    parts: frozenset[str]
    phrasings: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    also_read: tuple[str, ...] = ()
    opposite: str | None = None
    adjectives: tuple[str, ...] = ()
    known_by: tuple[str, ...] = ()
    described: tuple[str, ...] = ()


@cache
def vocabulary() -> Mapping[str, Any]:
    """The content of terms.yaml."""
    return _read("terms.yaml")


@cache
def templates() -> Mapping[str, Any]:
    """The content of templates.yaml."""
    return _read("templates.yaml")


@cache
def everyday() -> Mapping[str, Any]:
    """The content of everyday.yaml."""
    return _read("everyday.yaml")


@cache
def grammar() -> Mapping[str, Any]:
    """The content of grammar.yaml."""
    return _read("grammar.yaml")


@lru_cache(maxsize=8)
def all_terms(structures: Structures | None = None) -> Mapping[str, Term]:
    """Name -> term, pairs of organs as three: the structures first, then those of the shipped network, then terms.yaml.

    A structure whose words are not stated is named by its name alone, unless terms.yaml knows it.

    Args:
        structures: of the network; None for those of the shipped one.
    """
    shipped = shipped_structures()
    structures = shipped if structures is None else structures
    listed = {(entry["name"], entry["modality"]): entry for entry in vocabulary()["terms"]}
    entries: dict[tuple[str, str], Mapping[str, Any]] = {}
    for one in [*structures, *shipped]:
        words = one.words.get("pair") or {"name": one.name, **one.words}
        key = (words["name"], one.modality)
        entries.setdefault(
            key, {**(listed.get(key, {}) if not one.words else {}), **words, "modality": key[1]}
        )
    terms: dict[str, Term] = {}
    for entry in {**entries, **{key: entry for key, entry in listed.items() if key not in entries}}.values():
        for term in _paired(entry) if "pair_name" in entry else [_single(entry)]:
            known = terms.setdefault(term.name, term)
            if known.modality != term.modality:
                terms[f"{term.name} on {term.modality}"] = term
    return terms


@lru_cache(maxsize=8)
def _held_out_pattern(structures: Structures | None) -> re.Pattern[str]:
    phrases = sorted({phrase for term in all_terms(structures).values() for phrase in term.held_out})
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, phrases))})\b", re.IGNORECASE)


def is_held_out(text: str, structures: Structures | None = None) -> bool:
    """Whether a held-out phrasing occurs anywhere in a text."""
    return _held_out_pattern(structures).search(" ".join(text.split())) is not None


def _read(name: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = yaml.safe_load((_FOLDER / name).read_text(encoding="utf-8"))
    return content


def _split(phrasings: Iterable[str | Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Phrasings to generate, and those held out."""
    known: list[str] = []
    held_out: list[str] = []
    for phrasing in phrasings:
        if isinstance(phrasing, str):
            known.append(phrasing)
        else:
            (held_out if phrasing["held_out"] else known).append(phrasing["text"])
    return known, held_out


def _distinct(phrasings: Iterable[str], held_out: Iterable[str]) -> tuple[str, ...]:
    refused = {phrase.lower() for phrase in held_out}
    return tuple(dict.fromkeys(phrase for phrase in phrasings if phrase.lower() not in refused))


def _heads(entry: Mapping[str, Any]) -> Sequence[str]:
    kind, known = entry.get("kind", "part"), vocabulary()["heads"]
    if kind not in known:
        raise ValueError(f"structures: {entry['name']!r} has kind {kind!r}; write one of {', '.join(known)}")
    return known[kind]


def _single(entry: Mapping[str, Any]) -> Term:
    known, held_out = _split(entry.get("synonyms", []))
    heads = _heads(entry)
    derived = [f"{adjective} {head}" for adjective in entry.get("adjectives", []) for head in heads]
    return Term(
        name=entry["name"],
        modality=entry["modality"],
        parts=frozenset({entry["name"]}),
        phrasings=_distinct([entry["name"], *known, *derived, *entry.get("described", [])], held_out),
        held_out=tuple(held_out),
        also_read=tuple(entry.get("also_read", [])),
        adjectives=tuple(entry.get("adjectives", [])),
        known_by=tuple(entry.get("known_by", [])),
        described=tuple(entry.get("described", [])),
    )


def _paired(entry: Mapping[str, Any]) -> list[Term]:
    heads = _heads(entry)
    adjectives, singular, plural = entry.get("adjectives", []), entry["name"], entry["plural"]
    known, held_out = _split(entry.get("synonyms", []))
    terms = []
    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        derived = [
            phrase
            for adjective in adjectives
            for head in heads
            for phrase in (f"{side} {adjective} {head}", f"{adjective} {head} on the {side}")
        ]
        named = [phrase.replace("{side}", side) for phrase in [*known, *entry.get("described", [])]]
        refused = [phrase.replace("{side}", side) for phrase in held_out]
        latin = entry.get("latin", {}).get(side, [])
        terms.append(
            Term(
                name=f"{side} {singular}",
                modality=entry["modality"],
                parts=frozenset({f"{side} {singular}"}),
                phrasings=_distinct([f"{side} {singular}", *named, *latin, *derived], refused),
                held_out=tuple(refused),
                opposite=f"{other} {singular}",
                adjectives=tuple(f"{side} {adjective}" for adjective in adjectives),
            )
        )
    both, both_held_out = _split(entry.get("both", []))
    derived = [
        phrase
        for adjective in adjectives
        for head in heads
        for phrase in (
            f"{adjective} {head}",
            f"bilateral {adjective} {head}",
            f"{adjective} {head} of both sides",
        )
    ]
    usual = [
        entry["pair_name"],
        singular,
        plural,
        f"both {plural}",
        f"the two {plural}",
        f"left and right {singular}",
        f"right and left {singular}",
        f"{plural} on both sides",
        f"bilateral {plural}",
        f"each {singular}",
    ]
    terms.append(
        Term(
            name=entry["pair_name"],
            modality=entry["modality"],
            parts=frozenset(f"{side} {singular}" for side in SIDES),
            phrasings=_distinct([*usual, *both, *derived], both_held_out),
            held_out=tuple(both_held_out),
            also_read=tuple(entry.get("also_read", [])),
            adjectives=tuple(adjectives),
            known_by=tuple(entry.get("known_by", [])),
            described=tuple(phrase.replace("{side}", "") for phrase in entry.get("described", [])),
        )
    )
    return terms
