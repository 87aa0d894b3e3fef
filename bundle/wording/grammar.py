"""How the phrases of a prompt are read from left to right: what is wanted, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bundle.cases.structures_file import SIDES
from bundle.wording.terms import Term, grammar

_BEFORE_COLON = ("not", "except", "unwanted", "nothing")


@dataclass(frozen=True)
class Item:
    """A phrase of a prompt: its kind, what it means, and where it stands."""

    kind: str
    value: Any
    start: int
    end: int


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
    sides: tuple[str, ...] = ()  # that stand right before an organ
    thing: tuple[int, int] | None = None  # a thing whose organ may follow
    reported: bool = False  # a finding was named: organs are places
    clause: set[str] = field(default_factory=set)  # named since the last mark

    def take(self, items: list[Item], position: int, item: Item) -> None:
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
        elif kind == "unwanted" or (kind == "not" and self.clause and _ends_here(following)):
            self._take_back(items, position)
        elif kind in ("not", "except", "free", "nothing"):
            self._negate("except" if kind == "except" else "not", items, position)
        elif kind == "quantifiers":
            self.implied = self.implied or (
                self.scope is None and _ends_here(_following(items, position, "transparent", "verbs"))
            )
            self.decided = self.decided or self.implied
        elif kind == "contrast" and _is_but_of_everything(items, position, following):
            self._negate("except", items, position)
        elif kind in ("contrast", "only", "verbs"):
            self.scope, self.pair_is_new = None, kind == "only" and self.pair_is_new
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
        elif kind == "unknown":
            self._miss(item.start, item.end)
        if kind in ("split", "comma", "contrast"):
            self.clause = set()
        if kind in ("and", "term", "things"):
            self.pair_is_new = kind == "term"

    def _negate(self, kind: str, items: list[Item], position: int) -> None:
        self.scope = kind
        self.pair_is_new = False
        wanted = any(item.kind in ("term", "everything") for item in items[:position])
        # 'without the aorta': of everything
        if kind == "except" and not wanted and any(item.kind == "term" for item in items[position:]):
            self.implied = self.decided = True

    def _take_back(self, items: list[Item], position: int) -> None:
        """'the liver is not needed'; before what it speaks of it is a negation: 'not needed: the liver'."""
        if not self.clause:
            self._negate("not", items, position)
        self.named -= self.clause
        self.excluded |= self.clause - self.findings
        self.clause = set()

    def _everything(self, item: Item, following: Item | None) -> None:
        if self.scope == "except" and self.excluded:  # 'except for the lungs, everything'
            self.scope = None
        if self.scope is not None or (
            following is not None and following.kind in ("term", "adjective", "side")
        ):
            return
        self.everything = self.decided = True

    def _term(self, item: Item, items: list[Item], position: int) -> None:
        term: Term = item.value
        self.decided = True
        noun = term.name.split(" ", 1)[1] if term.opposite is not None else _noun_of(term, self.pairs)
        self.pair = noun or self.pair
        if self._is_place(items, position, item):
            return
        wanted = set(term.parts)
        if self.sides and noun is not None and noun in self.pairs and len(wanted) == 2:
            wanted = {self.pairs[noun][side] for side in self.sides}
        self.sides = ()
        if term.name in self.findings:
            self.reported = True
            self.named &= self.findings | (self.clause if _is_listed(items, position) else set())
        elif self.reported and not _is_listed(items, position):
            return
        if self.scope == "not" and term.name in self.findings:
            return  # denied of one place, it may still be affirmed of another
        if self.scope is not None:
            self.excluded |= wanted
        else:
            self.named |= wanted
            self.clause |= wanted
            self.excluded -= wanted

    def _is_place(self, items: list[Item], position: int, item: Item) -> bool:
        """Whether a term only says of what, or where, something else is."""
        before = _before(items, position)
        if before is not None and before.kind == "near":
            self._miss(before.start, item.end)
            return True
        if before is not None and before.kind == "of" and self.thing is not None:
            self._miss(self.thing[0], item.end)
            return True
        after = items[position + 1] if position + 1 < len(items) else None
        if after is not None and after.kind == "filler" and position + 2 < len(items):
            after = items[position + 2] if _is_genitive(items[position + 1], items) else after
        if after is not None and after.kind == "things":
            self._miss(item.start, after.end)
            return True
        if before is not None and before.kind == "of":
            ahead = [one for one in items[: position - 1] if one.kind not in ("filler", "transparent")]
            return bool(ahead) and ahead[-1].kind == "term" and ahead[-1].value.name != item.value.name
        return False

    def _adjective(self, item: Item, following: Item | None) -> None:
        self.decided = True
        end = following.end if following is not None and following.kind in ("things", "unknown") else item.end
        self._miss(item.start, end)

    def _thing(self, item: Item) -> None:
        self.thing = (item.start, item.end)
        self.decided = True
        self._miss(item.start, item.end)

    def _side(self, item: Item, items: list[Item], position: int) -> None:
        side: str = item.value
        sides = SIDES if side == "both" else (side,)
        before = _before(items, position)
        joined = before is not None and before.kind == "and"
        if side == "both" and self.sides and before is not None and before.kind == "of":
            return  # 'the left one of both kidneys'
        ahead = next((one for one in items[position + 1 :] if one.kind in ("term", "split")), None)
        after = _following(items, position)
        if after is not None and after.kind == "of" and side != "both":
            rest = (one for one in items[position + 1 :] if one.kind not in ("filler", "of"))
            after = next((one for one in rest if (one.kind, one.value) != ("side", "both")), None)
        if after is not None and after.kind == "term" and _noun_of(after.value, self.pairs) is not None:
            self.sides = sides
            return
        noun = self.pair
        coming = None
        if ahead is not None and ahead.kind == "term":
            term: Term = ahead.value
            coming = term.name.split(" ", 1)[1] if term.opposite is not None else _noun_of(term, self.pairs)
        if noun is None or (
            not self.pair_is_new and self.scope is None and coming is not None and not joined
        ):
            noun = coming or noun
            if noun is None:
                return
        if noun not in self.pairs or self.reported:
            return
        names = {self.pairs[noun][one] for one in sides}
        self.decided = True
        if self.scope is not None:
            self.excluded |= names
        elif self.pair_is_new and not joined:  # 'kidneys, left', 'both kidneys but only the left'
            self.named -= set(self.pairs[noun].values()) - names
            self.named |= names
        else:
            self.named |= names
            self.excluded -= names

    def _miss(self, start: int, end: int) -> None:
        self.not_understood.append((start, end))


def _noun_of(term: Term, pairs: Mapping[str, Any]) -> str | None:
    """'kidney' of 'kidneys'; None of what has no sides."""
    nouns = {part.split(" ", 1)[1] for part in term.parts if part.split(" ", 1)[0] in SIDES and " " in part}
    return next((noun for noun in nouns if noun in pairs), None) if len(term.parts) == 2 else None


def _following(items: list[Item], position: int, *passed: str) -> Item | None:
    kinds = ("filler", *passed)  # by index: a copy of the rest for each word would make long prompts slow
    return next((items[i] for i in range(position + 1, len(items)) if items[i].kind not in kinds), None)


def _ends_here(following: Item | None) -> bool:
    """Whether nothing follows that a word could go with."""
    return following is None or following.kind in ("split", "comma", "except", "not", "contrast", "only")


def _before(items: list[Item], position: int) -> Item | None:
    passed = ("filler", "transparent", "side")
    return next((items[i] for i in range(position - 1, -1, -1) if items[i].kind not in passed), None)


def _is_listed(items: list[Item], position: int) -> bool:
    """Whether a thing stands right beside another: 'liver and infection', not 'infection of liver and spleen'."""
    before = [item.kind for item in items[:position] if item.kind not in ("filler", "transparent", "side")]
    return before[-2:] == ["term", "and"] and before[-3:-2] not in (["of"], ["near"])


def _is_but_of_everything(items: list[Item], position: int, following: Item | None) -> bool:
    """'everything else but the liver'."""
    before = _before(items, position)
    return (
        before is not None
        and before.kind in ("everything", "quantifiers")
        and following is not None
        and following.kind in ("term", "side")
    )


def apart(items: list[Item], words: list[str]) -> list[Item]:
    """The items of a prompt, those that only mean something together read so.

    'leave the liver out' is an exception, and 'nothing apart from the liver' is only the liver.

    Args:
        words: of the prompt.
    """
    found = grammar()["apart"]
    read = list(items)
    for position, item in enumerate(items):
        word = words[item.start] if item.end == item.start + 1 else ""
        if word in found["verbs"]:
            for later in range(position + 1, len(items)):
                if items[later].kind in ("split", "comma", "contrast", "verbs"):
                    break
                if words[items[later].start] in found["particles"]:
                    read[position] = replace(item, kind="except")
                    read[later] = replace(items[later], kind="filler")
                    break
        if item.kind == "except":
            ahead = [one for one in range(position) if items[one].kind != "filler"]
            last = ahead[-1] if ahead else None
            if last is not None and (items[last].kind in ("not", "nothing")):
                read[position] = replace(item, kind="only")
                read[last] = replace(items[last], kind="filler")
    return read


def _is_genitive(item: Item, items: list[Item]) -> bool:
    return item.end - item.start == 1 and item.kind == "filler"


def _list_goes_on(items: list[Item], position: int) -> bool:
    """Whether the list that a comma stands in ends with 'or', 'nor' or 'and' before anything else begins."""
    for item in items[position + 1 :]:
        if item.kind == "and":
            return True
        if item.kind in ("split", "contrast", "only", "not", "except", "everything"):
            return False
    return False
