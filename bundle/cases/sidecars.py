"""Prompts that lie beside an image: NAME.txt or NAME.json, and prompt.txt or report.txt in a series' folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from bundle.cases.errors import CaseError
from bundle.cases.files import image_suffix, read_text

_KEYS = ("prompt", "text", "report")


def sidecar_prompt(
    image: Path, is_series: bool = False, reads_like_prompt: Callable[[str], bool] = bool
) -> tuple[str, list[str]]:
    """The prompt beside an image.

    Programs leave files of the image's name beside it: boxes, notes of an export, headers. A JSON file counts where it
    is an object that has a string under 'prompt', 'text' or 'report'. What is not called a prompt, by its file or its
    key, must read like one.

    Args:
        image: the image file, or the folder of a series.
        is_series: whether it is a folder.
        reads_like_prompt: of a text.

    Returns:
        The prompt, empty where there is none; and what a reader should know.
    """
    notes = []
    for path in sidecars_of(image, is_series):
        if not os.path.isfile(path):
            continue
        try:
            prompt, is_called_so = _prompt_of(path)
        except CaseError as error:
            return "", [f"The prompt beside the image was not read: {path.name} {error.problem}."]
        if prompt and (is_called_so or reads_like_prompt(prompt)):
            return prompt, []
        if prompt:
            notes.append(
                f"{path.name} beside the image does not read like a prompt and was not taken for one; "
                "text_beside True takes it."
            )
    return "", notes


def sidecars_of(image: Path, is_series: bool = False) -> Iterable[Path]:
    """The files that may hold its prompt, whether there or not."""
    if is_series:
        for name in ("prompt", "report", image.name):
            yield from (image / f"{name}{suffix}" for suffix in (".txt", ".json"))
        yield from (image.parent / f"{image.name}{suffix}" for suffix in (".txt", ".json"))
        return
    suffix = image_suffix(image) or image.suffix
    name = image.name[: len(image.name) - len(suffix)]
    yield from (image.parent / f"{name}{suffix}" for suffix in (".txt", ".json"))


def _prompt_of(path: Path) -> tuple[str, bool]:
    """Its text, and whether it is called a prompt."""
    text = read_text(path).strip()
    if path.suffix != ".json":
        return text, path.stem == "prompt"
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return "", False
    if not isinstance(content, dict):
        return "", False
    given = ((content[key], key) for key in _KEYS if isinstance(content.get(key), str) and content[key])
    prompt, key = next(given, ("", ""))
    return prompt, key == "prompt"
