"""From what a user names (files, folders, datalists) to the cases of a run, each with its own id."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bundle.cases.case import CaseFailure, CaseReference, PromptSource
from bundle.cases.datalist import Entry, is_datalist_name, read_datalist
from bundle.cases.dicom.headers import MEDIA_DIRECTORY, is_dicom_content, looks_like_dicom, read_instance
from bundle.cases.dicom.locate import nothing_in, series_at, unreadable_file
from bundle.cases.dicom.reports import report_text
from bundle.cases.dicom.selection import SeriesSelection
from bundle.cases.dicom.series import Exclusion, Sorted, sort_series, unique_hash
from bundle.cases.errors import CaseError
from bundle.cases.files import image_suffix, os_problem, read_head
from bundle.cases.ids import case_ids, series_ids
from bundle.cases.left_out import left_out, unread
from bundle.cases.manifest import is_manifest_name, read_manifest
from bundle.cases.modality import Modality
from bundle.cases.own_results import OwnResults
from bundle.cases.privacy import Naming
from bundle.cases.sidecars import sidecar_prompt

_LOGGER = logging.getLogger(__name__)
# Folders that operating systems, archives and network drives leave behind.
_JUNK_FOLDERS = frozenset(("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"))


@dataclass(frozen=True)
class Collection:
    """What the sources of a run give.

    Attributes:
        references: the cases in order: images as given (folders sorted, datalists as written), then DICOM.
        failures: what can be named but not used.
        excluded: DICOM series that are nothing to segment, or that the selection does not take, and what else of a
            folder is no input.
    """

    references: list[CaseReference]
    failures: list[CaseFailure]
    excluded: list[Exclusion]


def collect(
    source: str | Path | Sequence[str | Path],
    *,
    modality: Modality | None = None,
    prompts: str | Mapping[str, str] | None = None,
    prompts_from: PromptSource = "option",
    split: str | None = None,
    text_key: str = "text",
    exclude: Path | None = None,
    selection: SeriesSelection | None = None,
    hide_identifiers: bool = True,
    reports: Sequence[Path] = (),
    reads_like_prompt: Callable[[str], bool] | None = bool,
    result_names: Sequence[str] = (),
) -> Collection:
    """Find the cases that a user means.

    Args:
        source: an image file, a folder (searched in depth, each image file and each DICOM series a case), a
            datalist (JSON), a manifest (see `bundle.cases.manifest`), or several of these.
        modality: holds for all cases; else the datalist's, else it is told from the file when read.
        prompts: one prompt for all cases, or case id -> prompt; else, and for ids not in the mapping,
            the datalist's text, a text file beside the image, or the report of the DICOM study.
        prompts_from: who gave `prompts`.
        split: the list of the datalists to take; None takes all of them.
        text_key: field of a datalist's entry that is its text.
        exclude: the output folder; nothing in it is an input, unless a source in it is named.
        selection: which DICOM series are taken, and how.
        hide_identifiers: write paths relative to the sources, and keep what a study's headers give as name, number
            or date of a patient out of case ids, paths, messages and the prompts of DICOM cases.
        reports: DICOM files beside the sources that are looked at for the reports of studies and for nothing else.
        reads_like_prompt: of the text of a file beside an image, which is a prompt then; None reads no such file.
        result_names: of the files that a run may write for a case, by which folders of them are left out.

    Returns:
        Cases, of which one image counts once, and failures; either may be empty, but not both.

    Raises:
        CaseError: there is nothing to do (no source, no image, no source that exists), a datalist is
            malformed, a folder is to take its own results, or prompts name cases that do not exist.
    """
    sources = [Path(source)] if isinstance(source, (str, Path)) else [Path(item) for item in source]
    found = _Found(sources, split, text_key, exclude, result_names)
    selection = selection or SeriesSelection()
    dicom = sort_series(found.dicom, selection, modality, frozenset(found.named), hide_identifiers)
    dicom.reports += [one for one in map(read_instance, reports) if one is not None and one.is_report]
    found.conclude(dicom, selection)
    roots = sorted({str(root) for root in found.roots}, key=lambda root: (-len(root), root))
    # of what belongs to no study: the numbers of all patients are what nobody else can guess
    naming = Naming(hide_identifiers, tuple(roots), dicom.identity, str(sorted(dicom.identity.numbers)))
    ids = case_ids([*found.entries, *found.problems])
    # what could not be read may be of anyone; other files that are no DICOM are called as they are
    ids |= {path: naming.name(ids[path]) for path in found.problems}
    hashed = [(name, unique_hash(series)) for name, series in dicom.cases]
    dicom_ids = series_ids(hashed, ids.values())
    _check_prompts(prompts, {*ids.values(), *dicom_ids}, sources[0])
    entries = [(ids[path], entry) for path, entry in found.entries.items()]
    entries += [
        (case_id, Entry(series.place, series=series))
        for case_id, (_, series) in zip(dicom_ids, dicom.cases, strict=True)
    ]

    def reference(case_id: str, entry: Entry) -> CaseReference:
        notes: list[str] = []
        if isinstance(prompts, str):
            prompt, given = prompts, prompts_from
        elif prompts is not None and case_id in prompts:
            prompt, given = prompts[case_id], prompts_from
        else:
            prompt, given, notes = _own_prompt(entry, dicom, hide_identifiers, reads_like_prompt)
        own = naming
        if entry.series is not None:
            own = replace(naming, identity=entry.series.identity, salt=entry.series.study_uid)
            prompt = own.identity.hidden(prompt) if hide_identifiers else prompt
        return CaseReference(
            id=case_id,
            image=entry.image,
            label=entry.label,
            instances=entry.instances,
            prompt=prompt,
            modality=modality or entry.modality,
            labels=entry.labels,
            modality_source="option" if modality else "datalist",
            prompt_source=given,
            series=entry.series,
            notes=tuple(notes),
            naming=own,
        )

    failures = [
        CaseFailure(ids[path], naming.path(path), naming.text(str(error), [path, Path(error.source)]))
        for path, error in found.problems.items()
    ]
    excluded = [
        replace(one, input=replace(naming, identity=identity).path(one.input))
        for one, identity in dicom.excluded
    ]
    excluded += found.left_out(naming)
    for one in excluded:
        _LOGGER.info("left out: %s", one)
    return Collection([reference(*one) for one in entries], failures, excluded)


def collect_cases(
    source: str | Path | Sequence[str | Path], **options: Any
) -> tuple[list[CaseReference], list[CaseFailure]]:
    """Cases and failures of `collect`, which says what the options are."""
    found = collect(source, **options)
    return found.references, found.failures


def _own_prompt(
    entry: Entry, dicom: Sorted, hide: bool, reads_like_prompt: Callable[[str], bool] | None
) -> tuple[str, PromptSource, list[str]]:
    """The prompt that comes with a case: the datalist's, that of a file beside the image, or the study's report."""
    if entry.listed:
        return entry.text, "datalist", []
    series = entry.series
    prompt, notes = "", list[str]()
    if reads_like_prompt is not None:
        is_folder = series is not None and os.path.isdir(entry.image)
        prompt, notes = sidecar_prompt(entry.image, is_folder, reads_like_prompt)
    if prompt or series is None:
        return prompt, "sidecar", notes
    prompt, more = report_text(dicom.reports, series.study_uid, hide)
    return prompt, "DICOM SR", [*notes, *more]


class _Found:
    """What the sources give; keys are absolute paths, so that one image counts once.

    Attributes:
        roots: the folders that were named, or that hold a file that was named.
    """

    def __init__(
        self,
        sources: Sequence[Path],
        split: str | None,
        text_key: str,
        exclude: Path | None,
        result_names: Sequence[str],
    ) -> None:
        self.sources = sources
        self.split = split
        self.text_key = text_key
        self.exclude = None if exclude is None else Path(os.path.realpath(exclude))
        self.entries: dict[Path, Entry] = {}
        self.problems: dict[Path, CaseError] = {}
        self.missing: set[Path] = set()
        self.dicom: list[Path] = []
        self.named: set[Path] = set()
        self.roots: set[Path] = set()
        self.own = OwnResults(result_names)
        self.unread: dict[Path, list[Path]] = {}
        self.in_output: list[Path] = []
        for one in sources:
            self._add(one)

    def conclude(self, dicom: Sorted, selection: SeriesSelection) -> None:
        """Name the files that are broken where no series of their folder could tell of them, and missing series.

        Raises:
            CaseError: there is nothing to do.
        """
        folders = {path.parent for _, series in dicom.cases for path in series.files}
        for path in dicom.unreadable:
            if path in self.named or path.parent not in folders:
                # One sentence a folder: a series that is broken throughout is one failure.
                key = path if path in self.named else path.parent
                self.problems.setdefault(key, unreadable_file(path))
        known = {series.series_uid for _, series in dicom.cases}
        for uid in sorted(selection.uids - known):
            problem = f"has no series {uid} that could be segmented"
            self.problems[self.sources[0] / uid] = CaseError(self.sources[0], problem, "name one that it has")
            self.missing.add(self.sources[0] / uid)
        if not self.entries and not dicom.cases and self.problems.keys() == self.missing:
            raise self._nothing(dicom)

    def left_out(self, naming: Naming) -> list[Exclusion]:
        """What of the folders is no input, a sentence a folder and kind."""
        said: list[Exclusion] = []
        for folder, paths in self.unread.items():
            if paths:
                what = ("1 file of a kind that is not read", "{} files of kinds that are not read")
                said.append(left_out(folder, what, map(str, paths), naming))
        for run, cases in self.own.folders.items():
            what = ("1 result of an earlier run", "{} results of earlier runs")
            said.append(left_out(run, what, map(str, cases or [run]), naming))
        if self.in_output and self.exclude is not None:
            what = ("1 image in the output folder", "{} images in the output folder")
            said.append(left_out(self.exclude, what, map(str, self.in_output), naming))
        return said

    def _nothing(self, dicom: Sorted) -> CaseError:
        if dicom.excluded and not self.missing:
            return nothing_in(self.sources[0], [one for one, _ in dicom.excluded], ())
        if self.problems:
            return next(iter(self.problems.values()))
        if not self.sources:
            return CaseError("input", "names nothing", "name an image file, a folder or a datalist")
        number = sum(map(len, self.unread.values()))
        what = [f"{number} files of other types"] if number else []
        what += ["results of earlier runs, which are no input"] if self.own.folders else []
        skipped = f" ({', '.join(what)})" if what else ""
        remedy = "name a folder with NIfTI, MetaImage, NRRD, DICOM or picture files"
        return CaseError(self.sources[0], f"no images found{skipped}", remedy)

    def _add(self, source: Path) -> None:
        if "\0" in str(source):
            raise CaseError(source, "is not a valid path", "correct it")
        path = Path(os.path.abspath(source))
        self.roots.add(path if path.is_dir() else path.parent)
        try:
            os.stat(path)
        except OSError as error:
            self.missing.add(path)
            self.problems[path] = CaseError(source, os_problem(error), "check the path and its permissions")
            return
        if path.is_dir():
            self._add_folder(path)
        elif is_datalist_name(path):
            self._add_listed(read_datalist(path, self.split, self.text_key))
        elif is_manifest_name(path):
            self._add_manifest(path)
        elif _is_dicom(path):
            self._add_dicom_file(path)
        else:
            self._add_entry(Entry(path))

    def _add_entry(self, entry: Entry) -> None:
        # An image that a folder and a datalist both give keeps what the datalist knows of it.
        known = self.entries.get(entry.image)
        if known is None or not (known.label or known.text):
            self.entries[entry.image] = entry

    def _add_dicom_file(self, path: Path) -> None:
        instance = read_instance(path)
        if instance is not None and instance.media["SOPClassUID"] == MEDIA_DIRECTORY:
            self._add_folder(path.parent)
        else:
            self.named.add(path)
            self.dicom.append(path)

    def _add_manifest(self, path: Path) -> None:
        if self.split is not None:
            raise CaseError(path, "is a list without splits", "leave out split, or give a datalist")
        try:
            entries = read_manifest(path, self.text_key)
        except CaseError as error:
            # a shell's * names texts and tables too that are no lists
            self.missing.add(path)
            self.problems[path] = error
        else:
            self._add_listed(entries)

    def _add_listed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            try:
                if os.path.isdir(entry.image):
                    entry = replace(entry, series=series_at(entry.image, entry.modality))
                else:
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
        images, dicom, others = list[Path](), list[Path](), list[Path]()
        for path in self._files(folder, exclude, frozenset(), self.own):
            kind = dicom if _is_dicom(path) else images if image_suffix(path) else others
            kind.append(path)
        for path in images:
            self._add_entry(Entry(path))
        self.dicom += dicom
        self.unread[folder] = unread(others, images, dicom)

    def _files(
        self, folder: Path, exclude: Path | None, above: frozenset[Path], own: OwnResults
    ) -> Iterator[Path]:
        """The files below a folder, sorted, without results; links to folders are followed, but not in circles."""
        real = Path(os.path.realpath(folder))
        if real in above:
            return
        if real == exclude:
            inside = self._files(folder, None, above, OwnResults(own.names))
            self.in_output += filter(image_suffix, inside)
            return
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            problem = os_problem(error)
            self.problems[folder] = CaseError(folder, problem, "check the path and its permissions")
            return
        results = own.in_folder(folder, names)
        for name in names:
            path = folder / name
            if name in results:
                continue
            if name.startswith(".") or name.lower() in _JUNK_FOLDERS:
                continue
            if path.is_dir():
                yield from self._files(path, exclude, above | {real}, own)
            else:
                yield path


def _is_dicom(path: Path) -> bool:
    try:
        head = read_head(path)
    except CaseError:
        # An empty or locked file with the name of a slice may be one; its series tells of it.
        return looks_like_dicom(path, b"") and os.path.isfile(path)
    return is_dicom_content(head) if image_suffix(path) else looks_like_dicom(path, head)


def _check_prompts(prompts: str | Mapping[str, str] | None, ids: set[str], source: Path) -> None:
    if prompts is None or isinstance(prompts, str):
        return
    unknown = sorted(prompts.keys() - ids)
    if unknown:
        named = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        problem = f"has no case for {len(unknown)} of the prompts ({named})"
        raise CaseError(source, problem, f"use case ids such as {min(ids)}")
