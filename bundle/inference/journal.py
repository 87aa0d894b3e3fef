"""The journal of a run: what became of each case, a line a case, in a file that only ever grows while it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from bundle.atomic import remove_leftovers, write_atomically
from bundle.cases import CaseError
from bundle.cases.files import os_problem
from bundle.json_lines import append_json, json_line, read_json_lines
from bundle.networks.weights import file_sha256

NAME = "journal.jsonl"
_SETTINGS, _IDS = "settings", "ids"


class RunJournal:
    """Writes the journal in a run's folder, or in that of one of its parts.

    Args:
        folder: that it lies in.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def start(
        self,
        settings: Mapping[str, Any],
        entries: Iterable[Mapping[str, Any]],
        ids: Collection[str] | None = None,
    ) -> None:
        """Begin with the settings and the entries that stand, in place of an older journal.

        Args:
            ids: of all cases of a part, so that those are known which it does not come to.

        Raises:
            OSError: naming the file, when it cannot be written.
        """
        remove_leftovers(self.path)
        head = {_SETTINGS: dict(settings), **({} if ids is None else {_IDS: sorted(ids)})}
        with write_atomically(self.path) as temporary, temporary.open("w", encoding="ascii") as stream:
            stream.writelines(json_line(content) for content in (head, *entries))

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write one case; see `append_json`."""
        append_json(self.path, entry)


class Journalled(NamedTuple):
    """What a journal holds.

    Attributes:
        settings: results were made with.
        entries: the last one of each case.
        ids: of all cases of a part; empty of a whole run.
    """

    settings: dict[str, Any]
    entries: list[dict[str, Any]]
    ids: frozenset[str] = frozenset()


def read_journal(output_dir: Path) -> Journalled:
    """The journal in a folder; nothing where there is none.

    Raises:
        CaseError: the journal cannot be read.
    """
    settings: dict[str, Any] = {}
    ids: frozenset[str] = frozenset()
    entries: dict[str, dict[str, Any]] = {}
    try:
        for content in read_json_lines(output_dir / NAME):
            if isinstance(content.get(_SETTINGS), dict):
                settings = content[_SETTINGS]
                named = content.get(_IDS)
                ids = frozenset(map(str, named)) if isinstance(named, list) else frozenset()
            elif isinstance(content.get("id"), str):
                entries[content["id"]] = content
    except FileNotFoundError:
        return Journalled({}, [])
    except OSError as error:
        raise CaseError(
            output_dir / NAME, os_problem(error), "check the folder and its permissions"
        ) from error
    return Journalled(settings, list(entries.values()), ids)


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
