"""Files of structures, read and checked before anything is made of them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from bundle.cases.errors import CaseError
from bundle.cases.files import os_problem
from bundle.cases.modality import MODALITIES

CATEGORIES = ("anatomical structure", "abnormal structure", "tissue")
SIDES = ("left", "right")
#: Report sentences of bundle/wording/templates.yaml that a structure can be the subject of.
REPORTS = ("infection", "nuclei")
#: Keys of an entry on what its name means, and those on how its mask is cleaned.
WORDS = ("kind", "synonyms", "adjectives", "described", "known_by", "also_read", "pair", "reports")
CLEANING = ("one_piece", "least_piece", "least_end")

_MOST = 255  # values of a uint8 mask beside the background
_NAME = {"type": "string", "pattern": r"\S"}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_CONCEPT = {"type": "array", "items": _NAME, "minItems": 2, "maxItems": 2}
_HELD_OUT = {
    "type": "object",
    "properties": {"text": _NAME, "held_out": {"type": "boolean"}},
    "required": ["text", "held_out"],
    "additionalProperties": False,
}
_PHRASES = {"type": "array", "items": {"anyOf": [_NAME, _HELD_OUT]}}
_BOUNDS = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_NAMES = {"type": "array", "items": _NAME}
_PLAUSIBLE = {
    "type": "object",
    "properties": {
        "volume_ml": _BOUNDS,
        "hu": _BOUNDS,
        "most_of_image": _SHARE,
        "side": {"enum": list(SIDES)},
        "below_chest": {"type": "boolean"},
        "not_above": _NAMES,
        "beside": _NAMES,
    },
    "additionalProperties": False,
}
_WORDING = {
    "kind": _NAME,
    "synonyms": _PHRASES,
    "adjectives": _PHRASES,
    "described": _PHRASES,
    "known_by": _NAMES,
    "also_read": _NAMES,
}
_PAIR = {"name": _NAME, "pair_name": _NAME, "plural": _NAME, "latin": {"type": "object"}, "both": _PHRASES}
_ENTRY = {
    "type": "object",
    "properties": {
        "name": _NAME,
        "value": {"type": "integer", "minimum": 1, "maximum": _MOST},
        "modality": {"enum": list(MODALITIES)},
        "colour": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 255},
            "minItems": 3,
            "maxItems": 3,
        },
        "code": {
            "type": "object",
            "properties": {
                "category": {"enum": list(CATEGORIES)},
                "type": _CONCEPT,
                "laterality": {"enum": list(SIDES)},
                "region": _CONCEPT,
            },
            "required": ["type"],
            "additionalProperties": False,
        },
        "one_piece": {"type": "boolean"},
        "least_piece": _SHARE,
        "least_end": _SHARE,
        "plausible": _PLAUSIBLE,
        **_WORDING,
        "pair": {
            "type": "object",
            "properties": {**_WORDING, **_PAIR},
            "required": ["name", "pair_name", "plural"],
            "additionalProperties": False,
        },
        "reports": {"enum": list(REPORTS)},
    },
    "required": ["name", "modality"],
    "additionalProperties": False,
}


def read_entries(path: Path) -> list[Any]:
    """The entries of a YAML file, not yet checked.

    Raises:
        CaseError: the file cannot be read, or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CaseError(path, os_problem(error), "name a file of structures") from error
    except UnicodeDecodeError as error:
        raise CaseError(path, "is not UTF-8 text", "save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise CaseError(path, f"is not valid YAML{where}", "correct it") from error
    if not isinstance(content, list):
        raise CaseError(
            path, "is no list of structures", "write entries such as - {name: cyst, modality: CT}"
        )
    return content


def checked_entries(entries: Any, source: str) -> list[dict[str, Any]]:
    """Entries that can be meant, each with its value, in the order of the values.

    Args:
        source: how messages name where the entries stand.

    Raises:
        CaseError: names the source, the entry, what is wrong and what to do.
    """
    checked = []
    for number, entry in enumerate(entries, start=1):
        entry = {"value": number, **entry} if isinstance(entry, Mapping) else entry
        error = jsonschema.exceptions.best_match(jsonschema.Draft7Validator(_ENTRY).iter_errors(entry))
        if error is not None:
            name = entry.get("name") if isinstance(entry, Mapping) else None
            title = f"entry {number}" + (f" ({name!r})" if name else "")
            place = "".join(f" {part}:" for part in error.absolute_path if isinstance(part, str))
            raise CaseError(source, f"{title}:{place} {_problem(error)}", "see configs/structures.yaml")
        checked.append(entry)
    _check_together(checked, source)
    return sorted(checked, key=lambda entry: int(entry["value"]))


def hint(wrong: object, known: Iterable[str]) -> str:
    """' (did you mean ...?)', where something known is like what was written."""
    close = difflib.get_close_matches(str(wrong).lower(), {one.lower(): one for one in known}, n=1)
    return f" (did you mean {next(o for o in known if o.lower() == close[0])!r}?)" if close else ""


def _problem(error: jsonschema.ValidationError) -> str:
    schema: Any = error.schema
    wrong: Any = error.instance
    if error.validator == "additionalProperties":
        unknown = next(key for key in wrong if key not in schema["properties"])
        return f"unknown key {unknown!r}{hint(unknown, schema['properties'])}"
    if error.validator == "enum":
        return f"{wrong!r} is not one of {', '.join(schema['enum'])}{hint(wrong, schema['enum'])}"
    return str(error.message)[:200]


def _check_together(entries: Collection[Mapping[str, Any]], source: str) -> None:
    if len(entries) > _MOST:
        raise CaseError(source, f"has {len(entries)} structures", f"a uint8 mask has room for {_MOST}")
    for key in ("name", "value"):
        seen: dict[Any, Mapping[str, Any]] = {}
        for entry in entries:
            other = seen.setdefault(entry[key], entry)
            if other is not entry:
                problem = f"{other['name']!r} and {entry['name']!r} have the same {key} {entry[key]!r}"
                raise CaseError(source, problem, f"give each a {key} of its own")
    for entry in entries:
        pair = entry.get("pair")
        if pair and entry["name"] not in (*(f"{side} {pair['name']}" for side in SIDES), pair["pair_name"]):
            problem = (
                f"{entry['name']!r} is none of its pair, left or right {pair['name']} or {pair['pair_name']}"
            )
            raise CaseError(source, problem, "give it the pair of its own name")
    missing = set(range(1, len(entries) + 1)) - {entry["value"] for entry in entries}
    if missing:
        problem = f"numbers {len(entries)} structures, but none has the value {min(missing)}"
        raise CaseError(source, problem, f"use each value from 1 to {len(entries)} once")
