"""What of a prompt guides a mask: the clauses that deny something left out, sides spelt out, typing errors mended."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product

from bundle.cases.structures_file import SIDES
from bundle.wording.phrases import Item, Phrases
from bundle.wording.spelling import Word, fold, folded
from bundle.wording.terms import ZONES, grammar, templates, vocabulary

#: Kinds of phrases that deny what a clause says.
DENYING = ("not", "nothing", "except", "free", "absent", "unwanted")
_PLACING = ("of", "part", "portion", "half", "third", "segment", "field", "hilum", "hilar")
_EVERYWHERE = frozenset(product(SIDES, ZONES))


def affirmed(
    prompt: str, words: list[Word], items: Phrases, read_as: Mapping[str, str], findings: Collection[str]
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
    clauses = _clauses(words, items, findings)
    told = _in_taught_words(words, items, read_as)
    denying = [clause for clause in clauses if clause.denies]
    found = any(clause.has_finding and not clause.denies for clause in clauses)
    wanted = [clause for clause in clauses if clause.has_finding or not (found and clause.of_other)]
    if not denying and len(wanted) == len(clauses):
        return _told(prompt, words, 0, len(words), told, whole=True)
    clauses = wanted
    denied_in = {clause.sentence for clause in denying}
    affirming = {
        clause.sentence
        for clause in clauses
        if not clause.denies
        and (not clause.is_heading or (clause.has_finding and clause.sentence not in denied_in))
    }
    kept = [clause for clause in clauses if not clause.denies and clause.sentence in affirming]
    headings = {clause.sentence: clause.items for clause in clauses if clause.is_heading}
    places = _zones(words, [_placed(one, headings) for one in kept if not one.is_heading])
    denied = _zones(
        words, [_placed(one, headings) for one in denying if _may_place(words, one.items, findings)]
    )
    if found:
        zones = places or _EVERYWHERE
        if zones & denied and (left := zones - denied):
            return f"pulmonary infection, {_places(left)}"
    elif places and any(one.has_finding for one in denying) and any(clause.contrasts for clause in kept):
        return (
            f"pulmonary infection, {_places(places)}"  # 'no opacity on the left, but in the right lower zone'
        )
    parts: list[str] = []
    for clause in kept:
        parts.append(_told(prompt, words, clause.items[0].start, clause.items[-1].end, told))
        parts.append(": " if clause.is_heading else ", ")
    return "".join(parts[:-1])


@dataclass
class _Clause:
    """A part of a sentence that affirms or denies something.

    Attributes:
        sentence: number of the one that it is from.
        contrasts: with what is said before it.
    """

    sentence: int
    contrasts: bool = False
    items: list[Item] = field(default_factory=list)
    is_heading: bool = False
    denies: bool = False
    has_finding: bool = False
    has_words: bool = False
    of_other: bool = False  # findings than those that are looked for

    def add(self, words: list[Word], item: Item, findings: Collection[str]) -> None:
        self.items.append(item)
        self.denies |= item.kind in DENYING
        self.has_words |= item.kind != "filler"
        if item.kind == "term":
            self.has_finding |= item.value.name in findings
            self.of_other |= item.value.modality == "X-ray" and item.value.name not in findings
        elif item.kind == "things":
            self.of_other |= not {word.folded for word in words[item.start : item.end]} <= _placing_words()


def _clauses(words: list[Word], items: Phrases, findings: Collection[str]) -> list[_Clause]:
    clauses = [_Clause(0)]
    for position, item in enumerate(items):
        clause = clauses[-1]
        if item.kind in ("split", "comma", "contrast"):
            bracket = words[item.start].text in ("(", "[")
            clauses.append(_Clause(clause.sentence + (item.kind == "split"), item.kind == "contrast"))
            clauses[-1].of_other = bracket and clause.of_other and not clause.has_finding
        elif item.kind == "colon" and not clause.denies:  # 'left lung: clear'
            clause.is_heading = True
            clauses.append(_Clause(clause.sentence))
        elif item.kind in ("and", "with") and clause.has_finding and _leaves_free(items, position):
            clauses.append(_Clause(clause.sentence))
        elif item.kind in ("not", "nothing", "except") and clause.has_words:
            ahead = items.next_of(position, "term", "split", "comma", "contrast")
            of_place = (
                ahead is not None and items.kind(ahead) == "term" and items[ahead].value.name in findings
            )
            if clause.has_finding or not of_place:  # else as in 'the right lung shows no opacity'
                clauses.append(_Clause(clause.sentence))
            clauses[-1].add(words, item, findings)
        else:
            clause.add(words, item, findings)
    return [clause for clause in clauses if clause.items]


def _placed(clause: _Clause, headings: Mapping[int, list[Item]]) -> list[Item]:
    """The phrases of a clause, with those of the heading before it where the clause itself names no side."""
    if any(item.kind == "side" for item in clause.items):
        return clause.items
    return [*headings.get(clause.sentence, []), *clause.items]


def _leaves_free(items: Phrases, position: int) -> bool:
    """Whether what follows says of a place that it is clear: 'opacity on the left and the right lung is clear'."""
    ahead = items.next_of(
        position, "absent", "split", "comma", "contrast", "unwanted", "not", "nothing", "except"
    )
    return items.kind(ahead) == "absent"


def _in_taught_words(words: list[Word], items: Phrases, read_as: Mapping[str, str]) -> dict[int, str]:
    """Index of a word -> what a network is told instead of it: in full, without errors, sides spelt out."""
    told = {
        index: read_as.get(word.text, word.folded) for index, word in enumerate(words) if _is_mended(word)
    }
    for item in items:
        if item.kind == "side" and item.value in SIDES and item.end == item.start + 1:
            told[item.start] = item.value
        elif item.kind == "side" and item.end > item.start + 1 and len(words[item.start].text) == 1:
            told |= {item.start: "bilateral"} | dict.fromkeys(
                range(item.start + 1, item.end), ""
            )  # 'b/l', 'L and R'
    return told


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
def _placing_words() -> frozenset[str]:
    return zone_words() | {fold(word) for word in (*grammar()["report"], *_PLACING)}


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
    parts: list[str] = []
    for index in range(start, end):
        word = words[index]
        same = word.text.lower() == told.get(index, word.text.lower())
        parts.append(
            prompt[place : word.start] if place <= word.start else " "
        )  # one word stands for several
        parts.append(word.text if same else told[index])
        place = word.end
    return "".join(parts) + (prompt[place:] if whole else "")
