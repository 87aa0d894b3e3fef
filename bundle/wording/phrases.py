"""The phrases of a prompt in their order, and what stands before and behind each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

from bundle.wording.spelling import Word
from bundle.wording.terms import grammar

_SPLITS = frozenset(".;!?\n")
_COMMAS = frozenset(",()[]")
_DASHES = frozenset("-–—")


class Item(NamedTuple):
    """A phrase of a prompt: its kind, what it means, and the words from `start` to before `end` that it consists of."""

    kind: str
    value: Any
    start: int
    end: int


class Phrases(Sequence[Item]):
    """Phrases in their order. Each look at neighbours takes the same time, however many phrases there are.

    Args:
        items: in their order.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = tuple(items)
        self._tables: dict[tuple[str, bool, frozenset[str]], list[int]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        return self._items[index]

    def kind(self, position: int | None) -> str:
        """The kind of a phrase; '' where there is none."""
        return "" if position is None else self._items[position].kind

    def next_but(self, position: int, *passed: str) -> int | None:
        """Where the next phrase behind a position stands that is of none of these kinds."""
        found = self._forward(frozenset(passed), False)[position + 1]
        return found if found < len(self) else None

    def next_of(self, position: int, *kinds: str) -> int | None:
        """Where the next phrase behind a position stands that is of one of these kinds."""
        found = self._forward(frozenset(kinds), True)[position + 1]
        return found if found < len(self) else None

    def last_but(self, position: int, *passed: str) -> int | None:
        """Where the last phrase before a position stands that is of none of these kinds."""
        found = self._backward(frozenset(passed), False)[position]
        return found if found >= 0 else None

    def last_of(self, position: int, *kinds: str) -> int | None:
        """Where the last phrase before a position stands that is of one of these kinds."""
        found = self._backward(frozenset(kinds), True)[position]
        return found if found >= 0 else None

    def _forward(self, kinds: frozenset[str], wanted: bool) -> list[int]:
        """Position -> the first one from there on whose phrase is, or is not, of the kinds."""
        key = ("forward", wanted, kinds)
        if key not in self._tables:
            table = [len(self)] * (len(self) + 1)
            for position in range(len(self) - 1, -1, -1):
                fits = (self._items[position].kind in kinds) == wanted
                table[position] = position if fits else table[position + 1]
            self._tables[key] = table
        return self._tables[key]

    def _backward(self, kinds: frozenset[str], wanted: bool) -> list[int]:
        """Position -> the last one before it whose phrase is, or is not, of the kinds."""
        key = ("backward", wanted, kinds)
        if key not in self._tables:
            table = [-1] * (len(self) + 1)
            for position in range(len(self)):
                fits = (self._items[position].kind in kinds) == wanted
                table[position + 1] = position if fits else table[position]
            self._tables[key] = table
        return self._tables[key]


def _is_abbreviated(words: list[Word], position: int) -> bool:
    """Whether a full stop belongs to a word such as 'Rt.' or 'excl.'."""
    before = words[position - 1] if position else None
    if position > 1 and words[position - 2].text == "." and words[position - 1].folded in ("e", "g"):
        return True  # 'i.e.'
    return (
        before is not None
        and before.end == words[position].start
        and before.folded in grammar()["abbreviations"]
    )


def _is_inside(words: list[Word], position: int) -> bool:
    """Whether a full stop parts no sentences, as in 'left.kidney'."""
    if not 0 < position < len(words) - 1:
        return False
    before, after = words[position - 1], words[position + 1]
    close = before.end == words[position].start and after.start == words[position].end
    return close and before.text[-1].isalpha() and after.text[0].islower()


def kind_alone(words: list[Word], position: int) -> str:
    """The kind of a word or mark that is part of no known phrase."""
    text = words[position].folded
    if text == "." and (_is_abbreviated(words, position) or _is_inside(words, position)):
        return "filler"
    kinds = (
        ("and", ("/", "&", "+")),
        ("dash", _DASHES),
        ("colon", (":",)),
        ("split", _SPLITS),
        ("comma", _COMMAS),
    )
    for kind, marks in kinds:
        if text in marks:
            return kind
    if text.strip("-–—") == "":
        return "comma"
    return "things" if _names_a_thing(text) else "unknown"


def _names_a_thing(word: str) -> bool:
    """Whether a word that is not known ends as names of diseases and operations do."""
    return len(word) > 5 and word.endswith(tuple(grammar()["thing_endings"]))
