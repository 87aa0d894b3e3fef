"""The journal of a run: what became of each case, a line a case, in a file that only ever grows while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bundle.atomic import remove_leftovers, write_atomically
from bundle.cases import CaseError
from bundle.cases.files import os_problem
from bundle.json_lines import append_json, json_line, read_json_lines
from bundle.networks.weights import file_sha256

NAME = "journal.jsonl"
_SETTINGS = "settings"


class RunJournal:
    """Writes the journal in a run's folder.

    Args:
        output_dir: of the run.
    """

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / NAME

    def start(self, settings: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> None:
        """Begin with the settings and the entries that stand, in place of an older journal.

        Raises:
            OSError: naming the file, when it cannot be written.
        """
        remove_leftovers(self.path)
        with write_atomically(self.path) as temporary, temporary.open("w", encoding="ascii") as stream:
            stream.writelines(json_line(content) for content in ({_SETTINGS: dict(settings)}, *entries))

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write one case; see `append_json`."""
        append_json(self.path, entry)


def read_journal(output_dir: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The settings and the last entry of each case; nothing where there is no journal.

    Raises:
        CaseError: the journal cannot be read.
    """
    settings: dict[str, Any] = {}
    entries: dict[str, dict[str, Any]] = {}
    try:
        for content in read_json_lines(output_dir / NAME):
            if isinstance(content.get(_SETTINGS), dict):
                settings = content[_SETTINGS]
            elif isinstance(content.get("id"), str):
                entries[content["id"]] = content
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        raise CaseError(
            output_dir / NAME, os_problem(error), "check the folder and its permissions"
        ) from error
    return settings, list(entries.values())


def checks_of(output_dir: Path, files: Iterable[str]) -> dict[str, list[Any]]:
    """Size in bytes and SHA-256 of each file, by which `is_whole` knows it again.

    Args:
        files: names relative to `output_dir`.

    Raises:
        OSError: one cannot be read.
    """
    return {name: _check(output_dir / name) for name in files}


def _check(path: Path) -> list[Any]:
    return [path.stat().st_size, file_sha256(path)]


def is_whole(entry: Mapping[str, Any], output_dir: Path) -> bool:
    """Whether a case was done and all its files are there as they were written."""
    files, checks = entry.get("files"), entry.get("checks")
    if entry.get("status") != "done" or not isinstance(files, list) or not files:
        return False
    if not isinstance(checks, dict) or set(checks) != set(files):
        return False
    return all(_is_as_written(output_dir, entry["id"], name, checks[name]) for name in files)


def _is_as_written(output_dir: Path, case_id: str, name: str, check: Any) -> bool:
    if PurePosixPath(name).parts[:-1] != (case_id,) or case_id in {"", ".", ".."}:
        return False  # the journal may come from a stranger
    path = output_dir / name
    try:
        # the size first: it costs nothing, and tells most of what there is to find
        return [path.stat().st_size] == check[:1] and _check(path) == check
    except (OSError, TypeError):
        return False
