"""What of a prompt guides a mask: the clauses that deny something left out, sides spelt out, typing errors mended."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from itertools import product

from bundle.cases.structures_file import SIDES
from bundle.wording.grammar import Item
from bundle.wording.spelling import Word, fold, folded
from bundle.wording.terms import ZONES, grammar, templates, vocabulary

#: Kinds of phrases that deny what a clause says.
DENYING = ("not", "nothing", "except", "free", "absent", "unwanted")
_EVERYWHERE = frozenset(product(SIDES, ZONES))


def affirmed(
    prompt: str, words: list[Word], items: list[Item], read_as: Mapping[str, str], findings: Collection[str]
) -> str:
    """The prompt without the clauses that deny something.

    Where a report denies zones of those that it names, as in 'all zones except the left upper', its zones are said in
    the words of text-guided chest X-ray data.

    Args:
        words: of the prompt.
        items: its phrases.
        read_as: words with typing errors -> what they were read as.
        findings: names of terms that are reported with their place.
    """
    clauses: list[list[Item]] = [[]]
    for item in items:
        if item.kind in ("split", "comma", "contrast"):
            clauses.append([])
        elif item.kind in ("not", "nothing", "except") and any(one.kind != "filler" for one in clauses[-1]):
            clauses.append([item])
        else:
            clauses[-1].append(item)
    clauses = [clause for clause in clauses if clause]
    kept = [clause for clause in clauses if not any(item.kind in DENYING for item in clause)]
    told = {
        index: read_as.get(word.text, word.folded) for index, word in enumerate(words) if _is_mended(word)
    }
    told |= {
        item.start: item.value
        for item in items
        if item.kind == "side" and item.value in SIDES and item.end == item.start + 1
    }
    if len(kept) == len(clauses):
        return _told(prompt, words, 0, len(words), told, whole=True)
    denied = [clause for clause in clauses if clause not in kept and _may_place(words, clause, findings)]
    found = any(item.kind == "term" and item.value.name in findings for clause in kept for item in clause)
    zones = _zones(words, kept) or _EVERYWHERE
    if found and zones & _zones(words, denied) and (left := zones - _zones(words, denied)):
        return f"pulmonary infection, {_places(left)}"
    return ", ".join(_told(prompt, words, clause[0].start, clause[-1].end, told) for clause in kept)


def zone_words() -> frozenset[str]:
    """Words that say where in a lung something is, without the endings of plurals."""
    return frozenset().union(*_levels().values(), ("throughout",))


@cache
def report_words() -> frozenset[str]:
    """Words of reports that say how or where a finding is: no one asks for what they name."""
    said = [templates()[key] for key in ("infection", "nuclei", "notes")]
    words = {*grammar()["report"], *vocabulary()["counts"]}
    while said:
        one = said.pop()
        if isinstance(one, str):
            words |= set(folded(one))
        else:
            said += one.values() if isinstance(one, Mapping) else one
    return zone_words() | {fold(word) for word in words}


@cache
def _levels() -> Mapping[str, frozenset[str]]:
    return {
        level: frozenset(word for phrases in said.values() for phrase in phrases for word in folded(phrase))
        for level, said in vocabulary()["zones"].items()
    }


def _is_mended(word: Word) -> bool:
    return word.folded != fold(word.text.lower())


def _may_place(words: list[Word], clause: list[Item], findings: Collection[str]) -> bool:
    """Whether nothing but findings and lungs is spoken of: 'sparing the right lung', but no 'effusion'."""
    for item in clause:
        if item.kind == "things" and words[item.start].folded not in zone_words():
            return False
        if item.kind == "term" and item.value.name not in findings and not item.value.name.endswith("lung"):
            return False
    return True


def _zones(words: list[Word], clauses: list[list[Item]]) -> frozenset[tuple[str, str]]:
    """(side, level) of all places that clauses name."""
    zones: set[tuple[str, str]] = set()
    for clause in clauses:
        said = {word.folded for item in clause for word in words[item.start : item.end]}
        named = {item.value for item in clause if item.kind == "side"}
        sides = SIDES if "both" in named else [side for side in SIDES if side in named or side in said]
        own = {
            level: known.difference(*(other for name, other in _levels().items() if name != level))
            for level, known in _levels().items()
        }
        levels = [level for level in ZONES if own[level] & said]
        if sides or levels:
            zones |= set(product(sides or SIDES, levels or ZONES))
    return frozenset(zones)


def _places(zones: frozenset[tuple[str, str]]) -> str:
    """Zones in words: 'middle lower left lung and all right lung'."""
    parts = []
    for side in SIDES:
        levels = [level for level in ZONES if (side, level) in zones]
        if levels:
            parts.append(f"{'all' if len(levels) == len(ZONES) else ' '.join(levels)} {side} lung")
    return " and ".join(parts)


def _told(
    prompt: str, words: list[Word], start: int, end: int, told: Mapping[int, str], whole: bool = False
) -> str:
    """Words of a prompt, or all of it, some of them replaced."""
    place = 0 if whole else words[start].start
    text = ""
    for index in range(start, end):
        word = words[index]
        same = word.text.lower() == told.get(index, word.text.lower())
        text += prompt[place : word.start] + (word.text if same else told[index])
        place = word.end
    return text + prompt[place:] if whole else text
