"""Words of a prompt: cut out of it, without the endings of plurals, and with typing errors mended."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

_TOKEN = re.compile(
    r"[^\W_]+(?:['’](?!s\b)[^\W_]+)?|['’]s\b|[,;.:!?()\[\]\n/&+]|(?<!\S)[-–—]+(?!\S)"  # a dash with space around it
)
_CASED = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ARTICLES = frozenset(("the", "a", "an"))
_SHORT, _LONG = 4, 8  # letters from which one and two typing errors are forgiven
_LONGEST = 64  # letters of what may be a word


class Word(NamedTuple):
    """A word or mark of a text: as written, without the ending of a plural, and where it stands."""

    text: str
    folded: str
    start: int
    end: int


def tokens(text: str) -> list[Word]:
    """Words and marks of a text, articles left out, each with its place in the text."""
    plain = text if text.isascii() else "".join(map(_without_accent, text))
    words = [
        Word(text[found.start() : found.end()], fold(found[0].lower()), found.start(), found.end())
        for found in _TOKEN.finditer(plain.replace("’", "'"))
    ]
    return [word for word in words if word.folded not in _ARTICLES]


@lru_cache(maxsize=4096)
def _without_accent(letter: str) -> str:
    """One letter for one letter, so that places stay as they are."""
    plain = unicodedata.normalize("NFKD", letter)[:1]
    return plain or letter


def fold(word: str) -> str:
    """A word without the ending of its plural."""
    return _fold(word) if len(word) <= _LONGEST else word


@lru_cache(maxsize=65536)
def _fold(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def folded(phrase: str) -> tuple[str, ...]:
    return tuple(word.folded for word in tokens(phrase))


class Spelling:
    """Mends typing errors in words that are close to exactly one known word.

    Args:
        names: words that others are corrected to, as they are spelt.
        right: words that stay as they are, without the endings of plurals.
        pairs: names of two words.
        stands_for: shorthand -> words in full.
    """

    def __init__(
        self,
        names: Iterable[str],
        right: Iterable[str],
        pairs: Iterable[str] = (),
        stands_for: Mapping[str, str] | None = None,
    ) -> None:
        self.names = sorted(word for word in set(names) if len(word) >= _SHORT and word.isalpha())
        self._right = frozenset(right)
        self._near = _Near(self.names)
        self._pairs = {phrase.replace(" ", ""): phrase for phrase in pairs}
        self._near_pairs = _Near(self._pairs)
        self._stands_for = stands_for or {}
        self._closest = lru_cache(maxsize=65536)(self._meant)
        self._closest_pair = lru_cache(maxsize=65536)(self._pair_meant)

    def in_full(self, words: list[Word], single: Container[str]) -> list[Word]:
        """Words with shorthand, contracted forms and words written as one ('RLL', "don't", 'kidneyLeft') told apart.

        Args:
            single: names of one word, and sides, that may be written as one with another word.
        """
        full: list[Word] = []
        for word in words:
            parts = self._parts(word, single)
            full += [Word(word.text, fold(part), word.start, word.end) for part in parts] if parts else [word]
        return full

    def _parts(self, word: Word, single: Container[str]) -> list[str]:
        lower = word.text.lower().replace("’", "'")
        if lower in self._stands_for:
            return self._stands_for[lower].split()
        if lower.endswith("n't"):
            return [lower[:-3], "not"]
        if word.folded in self._right or not 2 * _SHORT - 2 <= len(word.text) <= _LONGEST:
            return []
        cased = [part.lower() for part in _CASED.findall(word.text)]
        known = (
            len(cased) > 1 and "".join(cased) == lower and all(fold(part) in self._right for part in cased)
        )
        if known and any(fold(part) in single for part in cased):
            return cased
        for cut in range(_SHORT, len(lower) - _SHORT + 1):
            if fold(lower[:cut]) in single and fold(lower[cut:]) in single:
                return [lower[:cut], lower[cut:]]
        return []

    def joined(self, words: list[Word], text: str) -> tuple[list[Word], dict[str, str]]:
        """Names that a space has cut, or that were written in two words with an error: 'pan creas', 'gal blader'.

        Args:
            text: that the words are from.
        """
        joined: list[Word] = []
        read_as: dict[str, str] = {}
        position = 0
        while position < len(words):
            first, second = words[position], words[position + 1] if position + 1 < len(words) else None
            meant = [] if second is None or second.start < first.end else self._of_two(first, second)
            if second is None or not meant:
                joined.append(first)
                position += 1
                continue
            if len(meant) == 1:
                written = text[first.start : second.end]
                joined.append(Word(written, fold(meant[0]), first.start, second.end))
                read_as[written] = meant[0]
            else:
                joined.append(Word(first.text, fold(meant[0]), first.start, first.end))
                joined.append(Word(second.text, fold(meant[1]), second.start, second.end))
            position += 2
        return joined, read_as

    def _of_two(self, first: Word, second: Word) -> list[str]:
        """The words of the name that two words stand for."""
        if first.folded in self._right and second.folded in self._right:
            return []
        if not (first.text.isalpha() and second.text.isalpha()) or second.end - first.start > _LONGEST:
            return []
        return self._closest_pair(first.text.lower() + second.text.lower())

    def _pair_meant(self, word: str) -> list[str]:
        if word in self._near and len(word) >= 2 * _SHORT - 2:
            return [word]
        if len(word) < _LONG:
            return []
        near = {
            self._pairs[known]
            for known in self._near_pairs(word, 2)
            if known[0] == word[0] and _edits(word, known) <= 2
        }
        return near.pop().split() if len(near) == 1 else []

    def corrected(self, words: list[Word]) -> tuple[list[Word], dict[str, str]]:
        """Words with typing errors replaced by the one known word that is closest."""
        read_as: dict[str, str] = {}
        corrected = []
        for word in words:
            known = (
                word.folded in self._right
                or not _SHORT <= len(word.folded) <= _LONGEST
                or word.folded.isdigit()
            )
            meant = None if known else self._closest(word.text.lower()) or self._closest(word.folded)
            if meant is not None:
                read_as[word.text] = meant
                word = Word(word.text, fold(meant), word.start, word.end)
            corrected.append(word)
        return corrected, read_as

    def _meant(self, word: str) -> str | None:
        allowed = 2 if len(word) >= _LONG else 1
        near = [
            (distance, known)
            for known in self._near(word, allowed)
            for distance in [_edits(word, known)]
            if distance <= (allowed if len(known) >= _LONG else 1)
            # 'long' is no error for 'lung', but 'lnug' is
            and (len(known) > _SHORT or len(word) != len(known) or sorted(word) == sorted(known))
        ]
        near.sort()
        closest = {fold(known) for distance, known in near if distance == near[0][0]}
        if len(closest) != 1:
            return None
        return near[0][1]


class _Near:
    """Known words that may be few edits away from another, found without a look at all of them."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = frozenset(words)
        self._alike: dict[tuple[str, int], list[tuple[str, int]]] = {}  # (a first letter, length)
        for word in sorted(self._words):
            for first in {word[0], word[1:2]}:
                self._alike.setdefault((first, len(word)), []).append((word, _letters(word)))

    def __contains__(self, word: object) -> bool:
        return word in self._words

    def __call__(self, word: str, allowed: int) -> Iterator[str]:
        """Those that begin alike, or with the first two letters exchanged, or but for one letter that is missing."""
        letters = _letters(word)
        for length in range(len(word) - allowed, len(word) + allowed + 1):
            for known, others in self._alike.get((word[:1], length), ()):
                if (letters ^ others).bit_count() > 2 * allowed:
                    continue
                if (
                    known[0] == word[0]
                    or known[:2] == word[1::-1]
                    or (known[1:] == word and len(word) > _SHORT)
                ):
                    yield known


def _letters(word: str) -> int:
    """The set of a word's letters as bits."""
    bits = 0
    for letter in word:
        bits |= 1 << (ord(letter) % 64)
    return bits


def _edits(first: str, second: str) -> int:
    """Letters to insert, delete, replace or exchange with their neighbour (optimal string alignment distance)."""
    before: list[int] = []
    last = list(range(len(second) + 1))
    for row, one in enumerate(first, start=1):
        now = [row]
        for column, other in enumerate(second, start=1):
            cost = min(last[column] + 1, now[-1] + 1, last[column - 1] + (one != other))
            swapped = row > 1 and column > 1 and one == second[column - 2] and first[row - 2] == other
            now.append(min(cost, before[column - 2] + 1) if swapped else cost)
        before, last = last, now
    return last[-1]
