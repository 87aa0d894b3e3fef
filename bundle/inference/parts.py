"""A run in parts, which may run on different machines at the same time, and the parts joined to one run.

A part keeps its journal and its record in a folder of its own, OUT/parts/I-of-N; the cases' folders lie in OUT beside
those of the other parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.atomic import remove_leftovers
from bundle.cases import CaseError
from bundle.cases.files import read_json
from bundle.cases.ids import PARTS
from bundle.inference.journal import NAME, Journalled, read_journal
from bundle.settings import differences

RECORD = "run.json"
_WRITTEN = re.compile(r"([1-9]\d{0,8})/([1-9]\d{0,8})", re.ASCII)
_FOLDER = re.compile(r"([1-9]\d{0,8})-of-([1-9]\d{0,8})", re.ASCII)
_MOST_BYTES = 2_000_000_000  # of a record


@dataclass(frozen=True, order=True)
class Part:
    """One of the parts of a run.

    Attributes:
        number: from 1 to `count`.
        count: of the parts.
    """

    number: int
    count: int

    @classmethod
    def of(cls, text: object) -> Part:
        """As a user writes it, '3/8'.

        Raises:
            CaseError: it is written otherwise, or there is no such part.
        """
        match = _WRITTEN.fullmatch(str(text))
        part = cls(int(match[1]), int(match[2])) if match else None
        if part is None or part.number > part.count:
            raise CaseError(
                "part", f"{text!s} is no part of a run", "write I/N, from 1/N to N/N, such as 3/8"
            )
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def ids(self, every: Iterable[str]) -> set[str]:
        """The case ids of this part: of all of them sorted, every N-th."""
        return set(sorted(every)[self.number - 1 :: self.count])

    def folder(self, output_dir: Path) -> Path:
        """Of its journal and its record."""
        return output_dir / PARTS / f"{self.number}-of-{self.count}"


@dataclass(frozen=True)
class JoinedRun:
    """What the parts of a run have done.

    Attributes:
        settings: of all of them.
        entries: a case's last word, in the order of ids.
        about: what run.json holds beside the cases.
        missing: parts of which nothing is there.
        left: part -> how many of its cases it has not come to.
    """

    settings: dict[str, Any]
    entries: list[dict[str, Any]]
    about: dict[str, Any]
    missing: list[Part] = field(default_factory=list)
    left: dict[Part, int] = field(default_factory=dict)


def part_folders(output_dir: Path) -> dict[Part, Path]:
    """The folders of parts in a run's folder."""
    found = {}
    folder = output_dir / PARTS
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _FOLDER.fullmatch(path.name)
        if match and path.is_dir():
            found[Part(int(match[1]), int(match[2]))] = path
    return dict(sorted(found.items()))


def journals_in(output_dir: Path, part: Part | None = None) -> Iterator[Journalled]:
    """The journals in a run's folder: that of `part` first, the whole run's, and those of all other parts."""
    parts = part_folders(output_dir)
    own = [] if part is None else [part.folder(output_dir)]
    for folder in dict.fromkeys((*own, output_dir, *parts.values())):
        yield read_journal(folder)


def join_parts(output_dir: Path) -> JoinedRun:
    """Read what the parts of a run have left in its folder.

    Raises:
        CaseError: there are none, they are of several runs, or were made with different settings.
    """
    folders = part_folders(output_dir)
    counts = sorted({part.count for part in folders})
    if not counts:
        raise CaseError(output_dir, "holds no parts of a run", "make them with tpseg segment --part I/N")
    if len(counts) > 1:
        problem = f"holds parts of runs in {' and in '.join(map(str, counts))} parts"
        raise CaseError(output_dir / PARTS, problem, "delete the folders of those that are out of date")
    journals = {part: read_journal(folder) for part, folder in folders.items()}
    journals = {part: journal for part, journal in journals.items() if journal.settings}
    if not journals:
        raise CaseError(output_dir / PARTS, "holds no part that has begun", "run them")
    (first, journal), *others = journals.items()
    for part, other in others:
        for name, before, value in differences(journal.settings, other.settings):
            problem = f"parts {first} and {part} were made with different {name} ({before} and {value})"
            raise CaseError(output_dir, problem, "run one of them again")
    entries: dict[str, dict[str, Any]] = {}
    left = {}
    for part, other in journals.items():
        for entry in other.entries:
            # an input that was added between two parts can have moved a case from one to the other
            if entry["id"] not in entries or entry.get("status") == "done":
                entries[entry["id"]] = entry
        if unfinished := len(other.ids - {entry["id"] for entry in other.entries}):
            left[part] = unfinished
    every = {Part(number, counts[0]) for number in range(1, counts[0] + 1)}
    return JoinedRun(
        journal.settings,
        [entries[one] for one in sorted(entries)],
        _about([folders[part] for part in journals]),
        sorted(every - journals.keys()),
        left,
    )


def _about(folders: Iterable[Path]) -> dict[str, Any]:
    """Of the first part, but that it is one; begun when the first of them began."""
    records = [_record(folder) for folder in folders]
    about = {name: value for name, value in records[0].items() if name not in ("cases", "part")}
    starts = [str(record["started"]) for record in records if record.get("started")]
    return {**about, **({"started": min(starts)} if starts else {}), "parts": len(records)}


def _record(folder: Path) -> Mapping[str, Any]:
    content = read_json(folder / RECORD, _MOST_BYTES)
    if not isinstance(content, dict):
        raise CaseError(folder / RECORD, "is no record of a run", "run the part again")
    return content


def remove_parts(output_dir: Path) -> None:
    """Remove the journals and records of parts, once a whole run in their folder stands for them."""
    for folder in part_folders(output_dir).values():
        for name in (NAME, RECORD):
            remove_leftovers(folder / name)
            (folder / name).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    folder = output_dir / PARTS
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
