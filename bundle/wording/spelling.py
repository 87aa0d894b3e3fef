"""Words of a prompt: cut out of it, without the endings of plurals, and with typing errors mended."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

_TOKEN = re.compile(r"[^\W_]+(?:['’](?!s\b)[^\W_]+)?|['’]s\b|[,;.:!?()\[\]\n/&+]")
_ARTICLES = frozenset(("the", "a", "an"))
_SHORT, _LONG = 4, 8  # letters from which one and two typing errors are forgiven


@dataclass(frozen=True)
class Word:
    """A word or mark of a text: as written, without the ending of a plural, and where it stands."""

    text: str
    folded: str
    start: int
    end: int


def tokens(text: str) -> list[Word]:
    """Words and marks of a text, articles left out, each with its place in the text."""
    plain = "".join(_without_accent(letter) for letter in text)
    words = [
        Word(text[found.start() : found.end()], fold(found[0].lower()), found.start(), found.end())
        for found in _TOKEN.finditer(plain.replace("’", "'"))
    ]
    return [word for word in words if word.folded not in _ARTICLES]


def _without_accent(letter: str) -> str:
    """One letter for one letter, so that places stay as they are."""
    plain = unicodedata.normalize("NFKD", letter)[:1]
    return plain or letter


@lru_cache(maxsize=65536)
def fold(word: str) -> str:
    """A word without the ending of its plural."""
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
    """

    def __init__(self, names: Iterable[str], right: Iterable[str]) -> None:
        self.names = sorted(word for word in set(names) if len(word) >= _SHORT and word.isalpha())
        self._right = frozenset(right)

    def joined(self, first: Word, second: Word, phrases: Mapping[str, str]) -> str | None:
        """The phrase of two words that two words with an error in one of them stand for: 'gal blader'.

        Args:
            phrases: without the space -> with it.
        """
        word = first.text.lower() + second.text.lower()
        if (
            len(word) < _LONG
            or not word.isalpha()
            or (first.folded in self._right and second.folded in self._right)
        ):
            return None
        near = {
            phrase
            for known, phrase in phrases.items()
            if abs(len(known) - len(word)) <= 2 and known[0] == word[0] and _edits(word, known) <= 2
        }
        return near.pop() if len(near) == 1 else None

    def corrected(self, words: list[Word]) -> tuple[list[Word], dict[str, str]]:
        """Words with typing errors replaced by the one known word that is closest."""
        read_as: dict[str, str] = {}
        corrected = []
        for word in words:
            known = word.folded in self._right or len(word.folded) < _SHORT or word.folded.isdigit()
            meant = None if known else self._meant(word.text.lower()) or self._meant(word.folded)
            if meant is not None:
                read_as[word.text] = meant
                word = Word(word.text, fold(meant), word.start, word.end)
            corrected.append(word)
        return corrected, read_as

    def _meant(self, word: str) -> str | None:
        allowed = 2 if len(word) >= _LONG else 1
        near = [
            (distance, known)
            for known in self.names
            if abs(len(known) - len(word)) <= allowed and (known[0] == word[0] or known[:2] == word[1::-1])
            for distance in [_edits(word, known)]
            if distance <= (allowed if len(known) >= _LONG else 1)
            # 'long' is no error for 'lung', but 'lnug' is
            and (len(known) > _SHORT or len(word) != len(known) or sorted(word) == sorted(known))
        ]
        near.sort()
        if not near or (len(near) > 1 and near[0][0] == near[1][0]):
            return None
        return near[0][1]


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
