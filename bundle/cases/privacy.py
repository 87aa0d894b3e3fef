"""How cases are named where others read it: nothing that a study's headers give as a patient's name, number or date.

DICOM objects that are written keep the patient's data, with which an archive finds the study; this is about case ids,
prompts, paths and messages.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

_SHORTEST_NAME = 2
_SHORTEST_NUMBER = 4  # in a text, where shorter ones are sizes and counts
_SHORTEST_SIGN = 3  # anywhere in the name of a file
_NAME, _NUMBER, _DATE = "[name]", "[number]", "[date]"
_TRANSCRIPTIONS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "oe", "å": "aa"})
# Scripts that write without spaces between words.
_UNSPACED = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_DAY_ENDING = r"(?:st|nd|rd|th|\.|er|º)?"
_LETTER = r"[^\W\d_]"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    """One line that any UTF-8 terminal or file takes, whatever bytes a file name is made of."""
    return _CONTROL.sub(" ", text).encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Identity:
    """What names a patient or a visit.

    Attributes:
        names: parts of names, as family name and given name.
        numbers: of patient and visit.
        births: dates of birth, YYYYMMDD.
        visits: dates of studies, YYYYMMDD; kept out of names of cases, not out of texts.
    """

    names: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    births: frozenset[str] = frozenset()
    visits: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, names: Iterable[str], numbers: Iterable[str], births: Iterable[str], visits: Iterable[str]
    ) -> Identity:
        """From values as headers have them: 'Family^Given^Middle=...', numbers, dates."""
        parts = {
            part
            for name in names
            for group in name.split("=")
            for component in group.split("^")[:3]  # prefix and suffix name nobody (PS3.5 6.2.1)
            for part in re.split(r"[\s,.\-]+", component)
        }
        return cls(
            frozenset(part for part in parts if len(part) >= _SHORTEST_NAME),
            frozenset(number for number in numbers if len(number) >= _SHORTEST_SIGN),
            frozenset(date for date in births if re.fullmatch(r"\d{8}", date)),
            frozenset(date for date in visits if re.fullmatch(r"\d{8}", date)),
        )

    @classmethod
    def union(cls, identities: Iterable[Identity]) -> Identity:
        """Of all of them; a run may have as many as it has cases."""
        each = list(identities)
        return cls(*(frozenset().union(*(getattr(one, part.name) for one in each)) for part in fields(cls)))

    def hidden(self, text: str) -> str:
        """The text with names, numbers and dates of birth replaced by words in brackets."""
        for word, pattern in (
            (_DATE, self._dates_in(text)),
            (_NUMBER, self._numbers_in(text)),
            (_NAME, self._names_in(text)),
        ):
            if pattern:
                text = re.sub(pattern, word, text, flags=re.IGNORECASE)
        return text

    # Each pattern is made of what the text can hold at all: of thousands of patients, it would be long otherwise.

    def _dates_in(self, text: str) -> str:
        possible = sorted(date for date in self.births if date[2:4] in text)
        return "|".join(form for date in possible for form in _date_forms(date))

    def _numbers_in(self, text: str) -> str:
        squeezed = _squeezed(text)
        possible = (
            one for one in self.numbers if len(one) >= _SHORTEST_NUMBER and _squeezed(one) in squeezed
        )
        return "|".join(map(_number_form, _longest_first(possible)))

    def _names_in(self, text: str) -> str:
        lowered = text.lower()
        possible = (name for name in self._spelled if name.lower() in lowered)
        names = "|".join(map(_name_form, _longest_first(possible)))
        # several parts in a row are one name
        return rf"(?:{names})(?:[\s,^_.-]*(?:{names}))*" if names else ""

    @cached_property
    def _spelled(self) -> set[str]:
        return _spellings(self.names)

    def is_in(self, name: str) -> bool:
        """Whether the name of a file or folder holds any of it, visits included."""
        composed = unicodedata.normalize("NFC", name)
        squeezed = _squeezed(composed)
        spelled = composed.replace("_", " ")
        return any(sign in squeezed for sign in self._signs) or self.hidden(spelled) != spelled

    @cached_property
    def _signs(self) -> list[str]:
        signs = {_squeezed(sign) for sign in self._spelled | self.numbers}
        return sorted(sign for sign in signs | self.births | self.visits if len(sign) >= _SHORTEST_SIGN)


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


def _longest_first(words: Iterable[str]) -> list[str]:
    return sorted(words, key=lambda word: (-len(word), word))


def _spellings(names: Iterable[str]) -> set[str]:
    """Each name as it is, without accents, and with its umlauts written out."""
    spelled = set()
    for name in names:
        composed = unicodedata.normalize("NFC", name)
        plain = "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))
        spelled |= {composed, plain, composed.lower().translate(_TRANSCRIPTIONS)}
    return spelled


def _name_form(name: str) -> str:
    escaped = re.escape(name)
    return escaped if _UNSPACED.search(name) else rf"(?<!{_LETTER}){escaped}(?!{_LETTER})"


def _number_form(number: str) -> str:
    parts = [re.escape(part) for part in re.split(r"[\W_]+", number) if part] or [re.escape(number)]
    spelled = r"[\W_]?".join(parts)
    return rf"(?<![^\W_]){spelled}(?![^\W_])"


def _date_forms(date: str) -> list[str]:
    """A date in the order of any country, with digits or the month's name in any language of Latin letters."""
    year, month, day = date[:4], date[4:6], date[6:]
    short = rf"(?:{year}|'?{year[2:]})"
    d, m = (rf"0?{int(part)}" for part in (day, month))
    gap = r"[\s./_-]{1,2}"
    word = rf"{_LETTER}{{3,10}}\.?"
    forms = [
        rf"{year}{gap}{m}{gap}{d}",
        date,
        rf"{d}{gap}{m}{gap}{short}",
        rf"{m}{gap}{d}{gap}{short}",
        f"{day}{month}{year}",
        f"{month}{day}{year}",
        rf"{d}{_DAY_ENDING}[\s-]*(?:of |de )?{word},?[\s-]*(?:de )?{year}",
        rf"{word}\s*{d}{_DAY_ENDING},?\s+{year}",
        rf"{year}年\s*{m}月\s*{d}日",
    ]
    return [rf"(?<!\d){form}(?!\d)" for form in forms]


@dataclass(frozen=True)
class Naming:
    """What is written of where a case lies.

    Attributes:
        hide: False writes everything as it is.
        roots: absolute folders that the user named, the longest first; what is written is relative to them.
        identity: of the study, or of all studies of a run for what belongs to none.
        salt: goes into hashes of names, so that they cannot be guessed from a list of names.
    """

    hide: bool = False
    roots: tuple[str, ...] = ()
    identity: Identity = field(default=Identity(), repr=False)
    salt: str = field(default="", repr=False)

    def path(self, path: Path | str) -> str:
        """A path relative to what the user named, each part of it that names a patient as a hash."""
        if not self.hide:
            return printable(str(path))
        return printable("/".join(self._part(part) for part in self._relative(str(path)).split(os.sep)))

    def text(self, sentence: str, paths: Iterable[Path] = ()) -> str:
        """A sentence with its paths as `path` writes them and without names, numbers and dates of birth.

        Args:
            paths: that it may hold.
        """
        sentence = printable(sentence)
        if not self.hide:
            return sentence
        for path in sorted(map(str, paths), key=len, reverse=True):
            sentence = sentence.replace(printable(path), self.path(path))
        for root in filter(None, map(printable, self.roots)):
            sentence = sentence.replace(root + os.sep, "")
            # the folder itself, not one whose name goes on; a name is no pattern, whatever it is made of
            name = printable(self.name(Path(root).name)).replace("\\", r"\\")
            sentence = re.sub(rf"{re.escape(root)}(?=$|[\s:;,.)'\"])", name, sentence)
        return self.identity.hidden(sentence)

    def name(self, name: str) -> str:
        """The name of a file or folder, or a hash where it names a patient."""
        return self._part(name) if self.hide else name

    def _relative(self, path: str) -> str:
        for root in self.roots:
            if path.startswith(root + os.sep):
                return path[len(root) + 1 :]
        return Path(path).name

    def _part(self, part: str) -> str:
        if not self.identity.is_in(part):
            return part
        return hashlib.sha256(f"{self.salt} {part}".encode("utf-8", "surrogateescape")).hexdigest()[:8]
