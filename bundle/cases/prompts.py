"""Prompts from a file: text for all cases, or JSON with one a case. Their content is never interpreted."""

from __future__ import annotations

import json
from pathlib import Path

from bundle.cases.errors import CaseError
from bundle.cases.files import os_problem

MAX_BYTES = 1_000_000


def read_prompts(path: Path) -> str | dict[str, str]:
    """Read one prompt for all cases, or a prompt a case.

    Args:
        path: UTF-8; '.json' is a mapping of case id -> prompt, anything else is the prompt itself.

    Returns:
        The prompt, without line ends after its last line; or the mapping.

    Raises:
        CaseError: the file cannot be read, is larger than 1 MB, is not UTF-8, or is JSON of another form.
    """
    text = read_text(path)
    if path.suffix.lower() != ".json":
        return text.rstrip("\r\n")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise CaseError(path, f"is not valid JSON ({where})", "correct it") from error
    except RecursionError as error:
        raise CaseError(path, "is nested too deeply for prompts", "map case ids to prompts") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise CaseError(path, "is not a JSON object of strings", "map case ids to prompts")
    return content


def read_text(path: Path) -> str:
    """A text file of at most `MAX_BYTES`, in UTF-8.

    Raises:
        CaseError: it cannot be read, is larger, or is not UTF-8.
    """
    try:
        if path.is_dir():
            raise CaseError(path, "is a folder", "name a text or JSON file with prompts")
        with open(path, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise CaseError(path, os_problem(error), "check the path and its permissions") from error
    if len(content) > MAX_BYTES:
        raise CaseError(path, f"is larger than {MAX_BYTES:,} bytes", "shorten the prompts")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaseError(path, "is not UTF-8 text", "save it as UTF-8") from error
