"""Whether a text that lies beside an image reads like a prompt, or was left there by a program for another purpose."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache

from bundle.cases.structures import Structures
from bundle.wording.terms import all_terms

_WORD = re.compile(r"[^\W\d_]{2,}")
_FIELD = re.compile(r"\s*[\"']?([^\W\d][\w ./()&-]{0,40}?)[\"']?\s*[:=]\s*\S")
#: Headings of reports, after which findings stand, as in 'Impression: ...'.
_HEADINGS = frozenset(
    ("prompt", "text", "report", "task", "segment", "find", "findings", "finding", "impression", "conclusion")
    + ("history", "clinical history", "indication", "reason for exam", "technique", "comparison", "exam")
    + ("examination", "result", "results", "diagnosis", "assessment", "comment", "summary", "observations")
)
#: What a prompt or a report may speak of beside the terms: sides, zones, findings, and requests for all.
_SPEAKING = frozenset(
    ("left", "right", "bilateral", "bilaterally", "unilateral", "zone", "zones", "lobe", "lobes", "basal")
    + ("apical", "perihilar", "opacity", "opacities", "infiltrate", "infiltrates", "effusion", "normal")
    + ("abnormality", "abnormalities", "lesion", "lesions", "organ", "organs", "structure", "structures")
    + ("everything", "anything", "nothing", "segment", "outline", "tumor", "tumour", "chest", "abdomen")
)
_SHORTEST_MISSPELT = 5
_ALIKE = 0.8  # of difflib's ratio: one wrong letter of five


def reads_like_prompt(text: str, structures: Structures | None = None) -> bool:
    """Whether a text is written in words about what images show.

    It is not where most of its lines are figures (boxes, polygons, tables) or fields ('Width: 224'), where it is
    markup, and where no word of it is known.

    Args:
        text: of a file that nobody named.
        structures: of the network, whose words count too; None for those of the shipped one.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if text.lstrip().startswith(("<", "{")) or not lines:
        return False
    terms = _pattern(structures)
    if 2 * sum(_is_data(line, terms) for line in lines) >= len(lines):
        return False
    spelled = _spelled(text)
    if terms.search(spelled):
        return True
    words = set(spelled.split())
    if words & _SPEAKING:
        return True
    known = _single_words(structures)
    return any(
        len(word) >= _SHORTEST_MISSPELT and difflib.get_close_matches(word, known, 1, _ALIKE)
        for word in list(words)[:50]
    )


def _spelled(text: str) -> str:
    """Its words in small letters with single spaces between them."""
    return " ".join(re.split(r"[\W\d_]+", text.lower())).strip()


def _is_data(line: str, terms: re.Pattern[str]) -> bool:
    field = _FIELD.match(line)
    if field and (key := _spelled(field[1])) not in _HEADINGS and not terms.search(key):
        return True
    tokens = re.split(r"[\s,;|]+", line.strip())
    figures = sum(any(letter.isdigit() for letter in token) for token in tokens)
    return figures > len(tokens) - figures


@lru_cache(maxsize=8)
def _pattern(structures: Structures | None) -> re.Pattern[str]:
    """Any term in any of its phrasings, in the singular or plural."""
    phrases = {
        _spelled(phrase)
        for term in all_terms(structures).values()
        for phrase in (*term.phrasings, *term.held_out)
    }
    longest_first = sorted(filter(None, phrases), key=lambda phrase: (-len(phrase), phrase))
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})(?:s|es)?\b")


@lru_cache(maxsize=8)
def _single_words(structures: Structures | None) -> list[str]:
    phrases = (phrase.lower() for term in all_terms(structures).values() for phrase in term.phrasings)
    return sorted({phrase for phrase in phrases if _WORD.fullmatch(phrase)})
