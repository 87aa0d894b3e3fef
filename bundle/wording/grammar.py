"""How the phrases of a prompt are read from left to right: what is wanted, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bundle.cases.structures_file import SIDES
from bundle.wording.phrases import Item, Phrases
from bundle.wording.terms import Term

#: Kinds of phrases that hardly part what stands on both sides of them.
_LIGHT = ("filler", "transparent", "side")
_OF_BODIES = ("CT", "X-ray")  # where organs can be the places of findings
_BEFORE_COLON = ("not", "except", "unwanted", "nothing")


@dataclass
class Reading:
    """What has been read so far, from left to right."""

    pairs: Mapping[str, Mapping[str, str]]
    findings: frozenset[str]
    named: set[str] = field(default_factory=set)
    excluded: set[str] = field(default_factory=set)
    everything: bool = False
    implied: bool = False  # everything, unless something is named
    decided: bool = False
    not_understood: list[tuple[int, int]] = field(default_factory=list)
    scope: str | None = None  # 'not' or 'except' while what is named is taken out
    pair: str | None = None  # the organ that a side alone speaks of
    pair_is_new: bool = False  # nothing stands between it and what comes
    fresh: set[str] = field(default_factory=set)  # that the last term added
    sides: tuple[str, ...] = ()  # that stand right before an organ
    thing: tuple[int, int] | None = None  # a thing whose organ may follow
    thing_has_place: bool = False  # and the last term was one
    reported: bool = False  # a finding was named: organs are places
    elsewhere: frozenset[str] = frozenset()  # named, and no place of a finding
    clause: set[str] = field(default_factory=set)  # named since the last mark
    last_clause: set[str] = field(default_factory=set)
    scope_goes_on: bool = False  # behind a mark
    taken_out: set[str] = field(default_factory=set)  # since the last mark
    just_denied: frozenset[str] = frozenset()  # findings, in this sentence
    denied: frozenset[str] = frozenset()  # and those that a contrast to it may affirm

    def take(self, items: Phrases, position: int, item: Item) -> None:
        """Read the item at a position."""
        following = _following(items, position)
        kind = item.kind
        if kind == "split":
            self.scope, self.thing, self.pair_is_new = None, None, False
        elif kind == "comma" or (
            kind == "colon" and position and items[position - 1].kind not in _BEFORE_COLON
        ):
            self.thing = None
            if kind == "colon" or (self.scope == "not" and not _list_goes_on(items, position)):
                self.scope = None
        elif kind == "unwanted" or (_answers(items, position) and self.clause and _ends_here(following)):
            self._take_back(items, position)
        elif kind == "wanted":
            self._want_after_all()
        elif kind in ("not", "except", "free", "nothing"):
            self._negate("except" if kind == "except" else "not", items, position)
        elif kind == "quantifiers":
            self.implied = self.implied or (
                self.scope is None and _ends_here(_following(items, position, "transparent", "verbs"))
            )
            self.decided = self.decided or self.implied
        elif kind == "contrast" and (
            self._is_but_of_both(items, position)
            or (following is not None and following.kind == "term" and following.value.parts <= self.clause)
        ):
            self._negate("except", items, position)
        elif kind in ("contrast", "only", "verbs"):
            kept = kind == "only" or (following is not None and following.kind == "only")
            self.scope, self.pair_is_new = None, kept and self.pair_is_new
        elif kind == "everything":
            self._everything(item, following)
        elif kind == "side":
            self._side(item, items, position)
        elif kind == "term":
            self._term(item, items, position)
        elif kind == "adjective":
            self._adjective(item, following)
        elif kind == "things":
            self._thing(item)
        elif kind in ("unknown", "whichever"):
            self._miss(item.start, item.end)
        if kind in ("split", "comma", "contrast"):
            self.last_clause, self.clause, self.taken_out = self.clause, set(), set()
            self.scope_goes_on = self.scope is not None
        if kind in ("split", "contrast"):
            self.denied = self.just_denied if kind == "contrast" else frozenset()
            self.just_denied = frozenset()
        if kind in ("and", "term", "things"):
            self.pair_is_new = kind == "term"

    def _negate(self, kind: str, items: Phrases, position: int) -> None:
        self.scope, self.scope_goes_on = kind, False
        self.pair_is_new = False
        wanted = items.last_of(position, "term", "everything") is not None
        # 'without the aorta': of everything
        of_all = items[position].value == "all"  # 'everything but'
        if kind == "except" and (of_all or (not wanted and items.next_of(position, "term") is not None)):
            self.implied = self.decided = True

    def _take_back(self, items: Phrases, position: int) -> None:
        """'the liver is not needed'; before what it speaks of it is a negation: 'not needed: the liver'."""
        before = items.last_but(position, "filler")
        if not self.clause and items.kind(before) == "comma" and _ends_here(_following(items, position)):
            self.clause = self.last_clause  # 'pneumonia - negative'
        if not self.clause:
            self._negate("not", items, position)
        self.named -= self.clause
        self.excluded |= self.clause - self.findings
        self.clause = set()

    def _want_after_all(self) -> None:
        """'no lungs, the liver is enough': what the clause names is wanted, though an exception goes on."""
        if self.scope is not None and self.scope_goes_on:
            self.named |= self.taken_out
            self.excluded -= self.taken_out
            self.scope = None

    def _is_but_of_both(self, items: Phrases, position: int) -> bool:
        """'both kidneys but the left'."""
        both = set(self.pairs.get(self.pair or "", {}).values())
        end = items.next_of(position, "split", "comma", "contrast", "only", "term")
        return (
            self.pair_is_new
            and bool(both)
            and both <= self.clause
            and items.kind(items.next_but(position, "filler")) == "side"
            and items.kind(end) not in ("only", "term")
        )

    def _everything(self, item: Item, following: Item | None) -> None:
        if self.scope == "except" and self.excluded:  # 'except for the lungs, everything'
            self.scope = None
        if self.scope is not None or (
            following is not None and following.kind in ("term", "adjective", "side")
        ):
            return
        self.everything = self.decided = True

    def _term(self, item: Item, items: Phrases, position: int) -> None:
        term: Term = item.value
        self.decided = True
        noun = _sided(term) or _noun_of(term, self.pairs)
        self.pair = noun or self.pair
        if self._is_place(items, position, item):
            return
        wanted = set(term.parts)
        if self.sides and noun is not None and noun in self.pairs and len(wanted) == 2:
            wanted = {self.pairs[noun][side] for side in self.sides}
        self.sides = ()
        if term.name in self.findings:
            self.reported = True
            listed = self.clause if _is_listed(items, position) else set()
            self.named &= self.findings | self.elsewhere | listed
        elif self.reported and term.modality in _OF_BODIES and not _is_listed(items, position):
            return
        of_a_place = self.scope == "not" or (self.scope == "except" and wanted <= self.named)
        if of_a_place and term.name in self.findings:
            self.just_denied = self.just_denied | wanted
            return  # denied of one place, it may still be affirmed of another
        self.fresh = wanted - self.named or wanted
        if self.scope is not None:
            self.excluded |= wanted
            self.taken_out |= wanted
        else:
            self.named |= wanted
            self.clause |= wanted
            self.excluded -= wanted
            self.elsewhere |= wanted if term.modality not in _OF_BODIES else frozenset()

    def _is_place(self, items: Phrases, position: int, item: Item) -> bool:
        """Whether a term only says of what, or where, something else is."""
        before = _before(items, position)
        kind = items.kind(before)
        if before is not None and kind == "near":
            self._miss(items[before].start, item.end)
            return True
        if self.thing is not None and (kind == "of" or (kind == "and" and self.thing_has_place)):
            self._miss(self.thing[0], item.end)
            self.thing_has_place = True
            return True
        self.thing_has_place = False
        beside = items[position - 1] if position else None
        if beside is not None and beside.kind == "things" and item.value.modality == "CT":
            self._miss(beside.start, item.end)  # 'transplant kidney'
            return True
        following = position + 1 if position + 1 < len(items) else None
        if following is not None and _is_genitive(items[following]):
            following = following + 1 if following + 1 < len(items) else following
        if following is not None and items.kind(following) == "things":
            self._miss(item.start, items[following].end)
            return True
        if self._on_a_side_unknown(items, position, item):
            return True
        if before is not None and kind == "of":
            of = items.last_but(before, "filler", "transparent")
            return of is not None and items.kind(of) == "term" and items[of].value.name != item.value.name
        return False

    def _on_a_side_unknown(self, items: Phrases, position: int, item: Item) -> bool:
        """'the contralateral kidney', 'the kidney of the affected side': only who sees the image knows which."""
        if len(item.value.parts) != 2 or item.value.name in self.findings:
            return False
        for beside in (_before(items, position), items.next_but(position, "filler", "transparent", "of")):
            if beside is not None and items.kind(beside) == "whichever":
                self._miss(min(item.start, items[beside].start), max(item.end, items[beside].end))
                return True
        return False

    def _adjective(self, item: Item, following: Item | None) -> None:
        self.decided = True
        end = following.end if following is not None and following.kind in ("things", "unknown") else item.end
        self._miss(item.start, end)

    def _thing(self, item: Item) -> None:
        self.thing = (item.start, item.end)
        self.decided = True
        self._miss(item.start, item.end)

    def _side(self, item: Item, items: Phrases, position: int) -> None:
        side: str = item.value
        sides = SIDES if side == "both" else (side,)
        before = _before(items, position)
        joined = items.kind(before) == "and" or _is_next_side(items, before)
        if side == "both" and self.sides and items.kind(before) == "of":
            return  # 'the left one of both kidneys'
        if self.denied and not self.clause:  # 'no opacity on the left, but on the right'
            self.named |= self.denied
            self.reported = True
        after = self._that_it_stands_before(items, position, side)
        if after is not None and _noun_of(after.value, self.pairs) is not None:
            self.sides = sides
            return
        coming = None
        ahead = items.next_of(position, "term", "split")
        if ahead is not None and items.kind(ahead) == "term":
            term: Term = items[ahead].value
            coming = _sided(term) or _noun_of(term, self.pairs)
        noun = self.pair
        if noun is None or (
            not self.pair_is_new and self.scope is None and coming is not None and not joined
        ):
            noun = coming or noun
        if noun is None or noun not in self.pairs or self.reported:
            return
        names = {self.pairs[noun][one] for one in sides}
        self.decided = True
        if self.scope is not None:
            self.excluded |= names
            return
        if self.pair_is_new and not joined:  # 'kidneys, left', 'both kidneys but only the left'
            self.named -= self.fresh - names
        else:
            self.excluded -= names
        self.named |= names
        self.clause |= names

    def _that_it_stands_before(self, items: Phrases, position: int, side: str) -> Item | None:
        """The term that a side goes with, also in 'the left one of both kidneys' and 'right (R) kidney'."""
        after = items.next_but(position, "filler", "colon")
        if after is not None and items[after].kind == "side" and items[after].value == side:
            after = items.next_but(after, "filler")
        if items.kind(after) == "of" and side != "both":
            after = items.next_but(position, "filler", "of")
            if after is not None and (items[after].kind, items[after].value) == ("side", "both"):
                after = items.next_but(after, "filler", "of")
        return items[after] if after is not None and items.kind(after) == "term" else None

    def _miss(self, start: int, end: int) -> None:
        self.not_understood.append((start, end))


def _sided(term: Term) -> str | None:
    """'kidney' of 'left kidney'."""
    return term.name.split(" ", 1)[1] if term.opposite is not None else None


def _answers(items: Phrases, position: int) -> bool:
    """'the liver no', 'consolidation: none'."""
    kind = items[position].kind
    return kind == "not" or (kind == "nothing" and position > 0 and items[position - 1].kind == "colon")


def _is_next_side(items: Phrases, comma: int | None) -> bool:
    """'kidneys: left, right'."""
    if comma is None or items.kind(comma) != "comma":
        return False
    return items.kind(items.last_but(comma, "filler")) == "side"


def _noun_of(term: Term, pairs: Mapping[str, Any]) -> str | None:
    """'kidney' of 'kidneys'; None of what has no sides."""
    nouns = {part.split(" ", 1)[1] for part in term.parts if part.split(" ", 1)[0] in SIDES and " " in part}
    return next((noun for noun in nouns if noun in pairs), None) if len(term.parts) == 2 else None


def _ends_here(following: Item | None) -> bool:
    """Whether nothing follows that a word could go with."""
    return following is None or following.kind in ("split", "comma", "except", "not", "contrast", "only")


def _following(items: Phrases, position: int, *passed: str) -> Item | None:
    found = items.next_but(position, "filler", *passed)
    return None if found is None else items[found]


def _before(items: Phrases, position: int) -> int | None:
    return items.last_but(position, *_LIGHT)


def _is_listed(items: Phrases, position: int) -> bool:
    """Whether a thing stands right beside another: 'liver and infection', not 'infection of liver and spleen'."""
    joint = _before(items, position)
    first = None if items.kind(joint) != "and" or joint is None else _before(items, joint)
    if first is None or items.kind(first) != "term":
        return False
    return items.kind(_before(items, first)) not in ("of", "near")


def _is_genitive(item: Item) -> bool:
    return item.end - item.start == 1 and item.kind == "filler"


def _list_goes_on(items: Phrases, position: int) -> bool:
    """Whether the list that a comma stands in ends with 'or', 'nor' or 'and' before anything else begins."""
    found = items.next_of(position, "and", "split", "contrast", "only", "not", "except", "everything")
    return items.kind(found) == "and"
