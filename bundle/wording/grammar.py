"""How the phrases of a prompt are read from left to right: what is wanted, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bundle.cases.structures_file import SIDES
from bundle.wording.terms import Term


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

    def take(self, items: list[Item], position: int, item: Item) -> None:
        """Read the item at a position."""
        following = _following(items, position)
        kind = item.kind
        if kind == "split":
            self.scope, self.thing, self.pair_is_new = None, None, False
        elif kind == "comma":
            self.thing = None
            if self.scope == "not" and not _list_goes_on(items, position):
                self.scope = None
        elif kind in ("not", "except"):
            self._negate(kind, items, position)
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
        if kind in ("and", "term", "things"):
            self.pair_is_new = kind == "term"

    def _negate(self, kind: str, items: list[Item], position: int) -> None:
        self.scope = kind
        self.pair_is_new = False
        wanted = any(item.kind in ("term", "everything") for item in items[:position])
        # 'without the aorta': of everything
        if kind == "except" and not wanted and any(item.kind == "term" for item in items[position:]):
            self.implied = self.decided = True

    def _everything(self, item: Item, following: Item | None) -> None:
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
            self.named -= {name for name in self.named if name not in self.findings}
        elif self.reported:
            return
        if self.scope == "not" and term.name in self.findings:
            return  # denied of one place, it may still be affirmed of another
        if self.scope is not None:
            self.excluded |= wanted
        else:
            self.named |= wanted
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
        ahead = next((one for one in items[position + 1 :] if one.kind in ("term", "split")), None)
        after = _following(items, position)
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


def _following(items: list[Item], position: int) -> Item | None:
    return next((one for one in items[position + 1 :] if one.kind != "filler"), None)


def _before(items: list[Item], position: int) -> Item | None:
    passed = ("filler", "transparent", "side")
    return next((one for one in reversed(items[:position]) if one.kind not in passed), None)


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
