"""From what a user names (files, folders, datalists) to the cases of a run, each with its own id."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle.cases.case import CaseError, CaseFailure, CaseReference, Modality
from bundle.cases.datalist import Entry, is_datalist_name, read_datalist
from bundle.cases.files import (
    DICOM_PROBLEM,
    DICOM_REMEDY,
    image_suffix,
    looks_like_dicom,
    os_problem,
    read_head,
)
from bundle.cases.ids import case_ids

_LOGGER = logging.getLogger(__name__)
# Folders that operating systems, archives and network drives leave behind.
_JUNK_FOLDERS = frozenset(("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"))


def collect_cases(
    source: str | Path | Sequence[str | Path],
    *,
    modality: Modality | None = None,
    prompts: str | Mapping[str, str] | None = None,
    split: str | None = None,
    text_key: str = "text",
    exclude: Path | None = None,
) -> tuple[list[CaseReference], list[CaseFailure]]:
    """Find the cases that a user means.

    Args:
        source: an image file, a folder (searched in depth, each image file a case), a datalist (JSON),
            or several of these.
        modality: holds for all cases; else the datalist's, else it is told from the file when read.
        prompts: one prompt for all cases, or case id -> prompt; else, and for ids not in the mapping,
            the datalist's text.
        split: the list of the datalists to take; None takes all of them.
        text_key: field of a datalist's entry that is its text.
        exclude: the output folder; nothing in it is an input, unless a source in it is named.

    Returns:
        The cases in order (sources as given, folders sorted, datalists as written; one image counts
        once), and those that can be named but not used. Either may be empty, but not both.

    Raises:
        CaseError: there is nothing to do (no source, no image, no source that exists), a datalist is
            malformed, a folder is to take its own results, or prompts name cases that do not exist.
    """
    sources = [Path(source)] if isinstance(source, (str, Path)) else [Path(item) for item in source]
    found = _Found(split, text_key, None if exclude is None else Path(os.path.realpath(exclude)))
    for one in sources:
        found.add(one)
    if not found.entries and (not found.problems or found.problems.keys() == found.missing):
        raise _nothing_found(sources, found)
    if found.skipped:
        _LOGGER.info("%d files that are not images were left out.", found.skipped)
    ids = case_ids([*found.entries, *found.problems])
    _check_prompts(prompts, set(ids.values()), sources[0])
    references = [_reference(ids[path], entry, modality, prompts) for path, entry in found.entries.items()]
    failures = [CaseFailure(ids[path], str(path), str(error)) for path, error in found.problems.items()]
    return references, failures


@dataclass
class _Found:
    """What the sources have given so far; keys are absolute paths, so that one image counts once."""

    split: str | None
    text_key: str
    exclude: Path | None
    entries: dict[Path, Entry] = field(default_factory=dict)
    problems: dict[Path, CaseError] = field(default_factory=dict)
    missing: set[Path] = field(default_factory=set)
    skipped: int = 0

    def add(self, source: Path) -> None:
        if "\0" in str(source):
            raise CaseError(source, "is not a valid path", "correct it")
        path = Path(os.path.abspath(source))
        try:
            os.stat(path)
        except OSError as error:
            self.missing.add(path)
            self.problems[path] = CaseError(source, os_problem(error), "check the path and its permissions")
            return
        if path.is_dir():
            self._add_folder(path)
        elif is_datalist_name(path):
            self._add_datalist(path)
        else:
            self._add_entry(Entry(path, None, "", None, {}))

    def _add_entry(self, entry: Entry) -> None:
        # An image that a folder and a datalist both give keeps what the datalist knows of it.
        known = self.entries.get(entry.image)
        if known is None or not (known.label or known.text):
            self.entries[entry.image] = entry

    def _add_datalist(self, path: Path) -> None:
        for entry in read_datalist(path, self.split, self.text_key):
            try:
                read_head(entry.image)
                if entry.label is not None:
                    read_head(entry.label)
            except CaseError as error:
                self.problems.setdefault(entry.image, error)
            else:
                self._add_entry(entry)

    def _add_folder(self, folder: Path) -> None:
        real = Path(os.path.realpath(folder))
        if real == self.exclude:
            raise CaseError(folder, "is both input and output folder", "name another output folder")
        named_within = self.exclude is not None and self.exclude in real.parents
        exclude = None if named_within else self.exclude
        for path in self._files(folder, exclude, frozenset()):
            if image_suffix(path):
                self._add_entry(Entry(path, None, "", None, {}))
            elif _is_dicom(path):
                # A series is one case: it stands under the name of its folder.
                error = CaseError(path.parent, DICOM_PROBLEM, DICOM_REMEDY)
                self.problems.setdefault(path.parent, error)
            else:
                self.skipped += 1

    def _files(self, folder: Path, exclude: Path | None, above: frozenset[Path]) -> Iterator[Path]:
        """The files below a folder, sorted; links to folders are followed, but not in circles."""
        real = Path(os.path.realpath(folder))
        if real == exclude or real in above:
            return
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            problem = os_problem(error)
            self.problems[folder] = CaseError(folder, problem, "check the path and its permissions")
            return
        for name in names:
            path = folder / name
            if name.startswith(".") or name.lower() in _JUNK_FOLDERS:
                continue
            if path.is_dir():
                yield from self._files(path, exclude, above | {real})
            else:
                yield path


def _is_dicom(path: Path) -> bool:
    try:
        return looks_like_dicom(path, read_head(path))
    except CaseError:
        return False


def _nothing_found(sources: list[Path], found: _Found) -> CaseError:
    if found.problems:
        return next(iter(found.problems.values()))
    if not sources:
        return CaseError("input", "names nothing", "name an image file, a folder or a datalist")
    problem = "no images found"
    if found.skipped:
        problem += f" ({found.skipped} files of other types)"
    return CaseError(sources[0], problem, "name a folder with NIfTI, MetaImage, NRRD or picture files")


def _check_prompts(prompts: str | Mapping[str, str] | None, ids: set[str], source: Path) -> None:
    if prompts is None or isinstance(prompts, str):
        return
    unknown = sorted(prompts.keys() - ids)
    if unknown:
        named = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        problem = f"has no case for {len(unknown)} of the prompts ({named})"
        raise CaseError(source, problem, f"use case ids such as {min(ids)}")


def _reference(
    case_id: str, entry: Entry, modality: Modality | None, prompts: str | Mapping[str, str] | None
) -> CaseReference:
    prompt = prompts if isinstance(prompts, str) else (prompts or {}).get(case_id, entry.text)
    return CaseReference(
        id=case_id,
        image=entry.image,
        label=entry.label,
        prompt=prompt,
        modality=modality or entry.modality,
        labels=entry.labels,
        modality_source="option" if modality else "datalist",
    )
