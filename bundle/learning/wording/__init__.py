"""Wording of prompts, reports and notes, written for this project, to train and test text encoders with."""

from bundle.learning.wording.sentences import (
    Infection,
    Meaning,
    Nuclei,
    Organ,
    Pair,
    SentenceGenerator,
    Structures,
    Unrelated,
)
from bundle.learning.wording.terms import Term, all_terms, is_held_out

__all__ = [
    "Infection",
    "Meaning",
    "Nuclei",
    "Organ",
    "Pair",
    "SentenceGenerator",
    "Structures",
    "Term",
    "Unrelated",
    "all_terms",
    "is_held_out",
]
