"""Prompts that lie beside an image: NAME.txt or NAME.json, and prompt.txt or report.txt in a series' folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from bundle.cases.errors import CaseError
from bundle.cases.files import image_suffix, read_text

_KEYS = ("prompt", "text", "report")


def sidecar_prompt(image: Path, is_series: bool = False) -> tuple[str, list[str]]:
    """The prompt beside an image.

    A JSON file counts where it is an object that has a string under 'prompt', 'text' or 'report': converters leave
    others of that name beside images.

    Args:
        image: the image file, or the folder of a series.
        is_series: whether it is a folder.

    Returns:
        The prompt, empty where there is none; and what a reader should know.
    """
    for path in _candidates(image, is_series):
        if not os.path.isfile(path):
            continue
        try:
            prompt = _prompt_of(path)
        except CaseError as error:
            return "", [f"The prompt beside the image was not read: {path.name} {error.problem}."]
        if prompt:
            return prompt, []
    return "", []


def _candidates(image: Path, is_series: bool) -> Iterable[Path]:
    if is_series:
        for name in ("prompt", "report", image.name):
            yield from (image / f"{name}{suffix}" for suffix in (".txt", ".json"))
        yield from (image.parent / f"{image.name}{suffix}" for suffix in (".txt", ".json"))
        return
    suffix = image_suffix(image) or image.suffix
    name = image.name[: len(image.name) - len(suffix)]
    yield from (image.parent / f"{name}{suffix}" for suffix in (".txt", ".json"))


def _prompt_of(path: Path) -> str:
    text = read_text(path).strip()
    if path.suffix != ".json":
        return text
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return ""
    if not isinstance(content, dict):
        return ""
    return next((content[key] for key in _KEYS if isinstance(content.get(key), str) and content[key]), "")
