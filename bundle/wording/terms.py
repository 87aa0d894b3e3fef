"""The words for what clinical images show, read from terms.yaml, templates.yaml and everyday.yaml beside this file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

SIDES = ("left", "right")
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
        opposite: name of the same thing on the other side of the body, if there is one.
    """

    name: str
    modality: str
    parts: frozenset[str]
    phrasings: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    opposite: str | None = None


@lru_cache(maxsize=1)
def vocabulary() -> Mapping[str, Any]:
    """The content of terms.yaml."""
    return _read("terms.yaml")


@lru_cache(maxsize=1)
def templates() -> Mapping[str, Any]:
    """The content of templates.yaml."""
    return _read("templates.yaml")


@lru_cache(maxsize=1)
def everyday() -> Mapping[str, Any]:
    """The content of everyday.yaml."""
    return _read("everyday.yaml")


@lru_cache(maxsize=1)
def all_terms() -> Mapping[str, Term]:
    """Name -> term, pairs of organs as three."""
    terms: list[Term] = []
    for entry in vocabulary()["structures"]:
        terms.extend(_paired(entry) if entry.get("paired") else [_single(entry)])
    return {term.name: term for term in terms}


@lru_cache(maxsize=1)
def _held_out_pattern() -> re.Pattern[str]:
    phrases = sorted({phrase for term in all_terms().values() for phrase in term.held_out})
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, phrases))})\b", re.IGNORECASE)


def is_held_out(text: str) -> bool:
    """Whether a held-out phrasing occurs anywhere in a text."""
    return _held_out_pattern().search(" ".join(text.split())) is not None


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


def _single(entry: Mapping[str, Any]) -> Term:
    known, held_out = _split(entry["synonyms"])
    heads = vocabulary()["heads"][entry["kind"]]
    derived = [f"{adjective} {head}" for adjective in entry["adjectives"] for head in heads]
    return Term(
        name=entry["name"],
        modality=entry["modality"],
        parts=frozenset({entry["name"]}),
        phrasings=_distinct([entry["name"], *known, *derived, *entry["described"]], held_out),
        held_out=tuple(held_out),
    )


def _paired(entry: Mapping[str, Any]) -> list[Term]:
    heads = vocabulary()["heads"][entry["kind"]]
    adjectives, singular, plural = entry["adjectives"], entry["name"], entry["plural"]
    known, held_out = _split(entry["synonyms"])
    terms = []
    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        derived = [
            phrase
            for adjective in adjectives
            for head in heads
            for phrase in (f"{side} {adjective} {head}", f"{adjective} {head} on the {side}")
        ]
        named = [phrase.replace("{side}", side) for phrase in [*known, *entry["described"]]]
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
        )
    )
    return terms
