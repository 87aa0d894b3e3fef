"""The journal of a run: what became of each case, a line a case, in a file that only ever grows while it runs.

A killed run may leave its last line torn; every line before it stands.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from bundle.atomic import remove_leftovers, write_atomically
from bundle.cases import CaseError
from bundle.cases.files import os_problem
from bundle.networks.weights import file_sha256

NAME = "journal.jsonl"
_SETTINGS = "settings"


class Journal:
    """Writes the journal in a run's folder.

    Args:
        output_dir: of the run.
    """

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / NAME
        self._stream: TextIO | None = None

    def start(self, settings: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> None:
        """Begin with the settings and the entries that stand, in place of an older journal.

        Raises:
            OSError: naming the file, when it cannot be written.
        """
        remove_leftovers(self.path)
        with write_atomically(self.path) as temporary, temporary.open("w", encoding="ascii") as stream:
            stream.writelines(_line(content) for content in ({_SETTINGS: dict(settings)}, *entries))
        self._stream = self.path.open("a", encoding="ascii")

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write one case so that it outlives the process and the machine.

        Raises:
            OSError: it cannot be written.
        """
        assert self._stream is not None, "the journal has not been started"
        self._stream.write(_line(entry))
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, default=str) + "\n"


def read_journal(output_dir: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The settings and the last entry of each case; nothing where there is no journal.

    Raises:
        CaseError: the journal cannot be read.
    """
    try:
        lines = (output_dir / NAME).read_bytes().splitlines()
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        raise CaseError(
            output_dir / NAME, os_problem(error), "check the folder and its permissions"
        ) from error
    settings: dict[str, Any] = {}
    entries: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(content, dict):
            continue
        if isinstance(content.get(_SETTINGS), dict):
            settings = content[_SETTINGS]
        elif isinstance(content.get("id"), str):
            entries[content["id"]] = content
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
