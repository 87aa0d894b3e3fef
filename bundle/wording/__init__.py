"""Wording of prompts, reports and notes, written for this project, to train and test what reads them."""

from bundle.wording.requests import Request, RequestReader, names_a_side, request_reader
from bundle.wording.sentences import (
    Infection,
    Meaning,
    NamedStructures,
    NucleiDistribution,
    Organ,
    Pair,
    SentenceGenerator,
    Unrelated,
    exchange_sides,
)
from bundle.wording.terms import Term, all_terms, everyday, is_held_out, templates

__all__ = [
    "Infection",
    "Meaning",
    "NamedStructures",
    "NucleiDistribution",
    "Organ",
    "Pair",
    "Request",
    "RequestReader",
    "SentenceGenerator",
    "Term",
    "Unrelated",
    "all_terms",
    "everyday",
    "exchange_sides",
    "is_held_out",
    "names_a_side",
    "request_reader",
    "templates",
]
