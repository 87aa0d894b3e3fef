"""Prompts from a file: text for all cases, or JSON with one a case. Their content is never interpreted."""

from __future__ import annotations

from pathlib import Path

from bundle.cases.errors import CaseError
from bundle.cases.files import read_json, read_text


def read_prompts(path: Path) -> str | dict[str, str]:
    """Read one prompt for all cases, or a prompt a case.

    Args:
        path: UTF-8; '.json' is a mapping of case id -> prompt, anything else is the prompt itself.

    Returns:
        The prompt, without line ends after its last line; or the mapping.

    Raises:
        CaseError: the file cannot be read, is larger than 1 MB, is not UTF-8, or is JSON of another form.
    """
    if path.suffix.lower() != ".json":
        return read_text(path).rstrip("\r\n")
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise CaseError(path, "is not a JSON object of strings", "map case ids to prompts")
    return content
