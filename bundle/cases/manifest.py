"""Manifests: lists of images as other software writes them, a path a line, a CSV table, or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bundle.cases.datalist import MOST_BYTES, Entry, read_items
from bundle.cases.errors import CaseError
from bundle.cases.files import read_text

_TABLES = {".csv": ",;\t", ".tsv": "\t"}
_LINES = (".jsonl", ".ndjson")
_TEXT = ".txt"
_MOST_CELL = 1_000_000  # characters; a text of 8,192 tokens has some 50,000


def is_manifest_name(path: Path) -> bool:
    return path.suffix.lower() in (*_TABLES, *_LINES, _TEXT)


def read_manifest(path: Path, text_key: str = "text") -> list[Entry]:
    """Read the images of a manifest.

    Args:
        path: '.txt' has a path a line; '.csv' and '.tsv' have a head with 'image' and perhaps 'label', 'modality' and
            `text_key`; '.jsonl' and '.ndjson' have a path or an object with these keys a line. Empty lines, and in
            '.txt' those that begin with '#', count for nothing. Paths are relative to the manifest's folder.
        text_key: column or key of an image's text.

    Returns:
        The entries in the order of the file, each image once. Without any text in it, images have the prompts that
        lie beside them, as if they had been named one by one.

    Raises:
        CaseError: the file is no manifest, is empty, or names one image twice with different values.
    """
    suffix = path.suffix.lower()
    text = read_text(path, MOST_BYTES)
    if suffix == _TEXT:
        items = list(_paths(path, text))
    elif suffix in _TABLES:
        items = list(_table(path, text, _TABLES[suffix]))
    else:
        items = list(_json_lines(path, text))
    if not items:
        raise CaseError(path, "names no images", "write one path a line")
    entries = read_items(path, items, text_key)
    has_texts = any(isinstance(item, Mapping) and text_key in item for _, item in items)
    return entries if has_texts else [replace(entry, listed=False) for entry in entries]


def _paths(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    named = [(f"line {number}", line) for number, line in lines if line and not line.startswith("#")]
    if named and not os.path.exists(path.parent / named[0][1]):
        # not the line itself: it may be what a report says of a patient
        problem = f"{named[0][0]} names no file, so that it is no list of images"
        raise CaseError(path, problem, "write one path a line; a text beside an image need not be named")
    yield from named


def _table(path: Path, text: str, delimiters: str) -> Iterator[tuple[str, Any]]:
    head = text.partition("\n")[0]
    delimiter = max(delimiters, key=head.count)
    before = csv.field_size_limit(_MOST_CELL)
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        if "image" not in (rows.fieldnames or ()):
            raise CaseError(path, "has no column 'image'", "name its columns in the first line")
        for row in rows:
            if None in row:
                raise CaseError(path, f"line {rows.line_num} has more cells than the head", "correct it")
            yield f"line {rows.line_num}", {key: cell for key, cell in row.items() if cell}
    except csv.Error as error:
        raise CaseError(path, f"is no table ({error})", "export it as CSV again") from error
    finally:
        csv.field_size_limit(before)


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    # not splitlines: texts may hold the line ends of Unicode
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise CaseError(path, f"line {number} is not valid JSON", "correct it") from error
