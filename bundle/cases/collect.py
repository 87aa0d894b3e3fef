"""From what a user names (files, folders, datalists) to the cases of a run, each with its own id."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bundle.cases.case import CaseFailure, CaseReference, PromptSource
from bundle.cases.datalist import Entry, is_datalist_name, read_datalist
from bundle.cases.dicom.headers import MEDIA_DIRECTORY, is_dicom_content, looks_like_dicom, read_instance
from bundle.cases.dicom.locate import nothing_in, series_at, unreadable_file
from bundle.cases.dicom.reports import report_text
from bundle.cases.dicom.selection import SeriesSelection
from bundle.cases.dicom.series import DicomSeries, Exclusion, Sorted, sort_series, unique_hash
from bundle.cases.errors import CaseError
from bundle.cases.files import image_suffix, os_problem, read_head
from bundle.cases.ids import case_ids, series_ids
from bundle.cases.modality import Modality
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
        excluded: DICOM series that are nothing to segment, or that the selection does not take.
    """

    references: list[CaseReference]
    failures: list[CaseFailure]
    excluded: list[Exclusion]


def collect_cases(
    source: str | Path | Sequence[str | Path],
    *,
    modality: Modality | None = None,
    prompts: str | Mapping[str, str] | None = None,
    split: str | None = None,
    text_key: str = "text",
    exclude: Path | None = None,
) -> tuple[list[CaseReference], list[CaseFailure]]:
    """Find the cases that a user means: references and failures of `collect`, which has more options."""
    found = collect(
        source, modality=modality, prompts=prompts, split=split, text_key=text_key, exclude=exclude
    )
    return found.references, found.failures


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
    resample_slices: bool = False,
    hide_identifiers: bool = True,
    reports: Sequence[Path] = (),
) -> Collection:
    """Find the cases that a user means.

    Args:
        source: an image file, a folder (searched in depth, each image file and each DICOM series a case), a
            datalist (JSON), or several of these.
        modality: holds for all cases; else the datalist's, else it is told from the file when read.
        prompts: one prompt for all cases, or case id -> prompt; else, and for ids not in the mapping,
            the datalist's text, a text file beside the image, or the report of the DICOM study.
        prompts_from: who gave `prompts`.
        split: the list of the datalists to take; None takes all of them.
        text_key: field of a datalist's entry that is its text.
        exclude: the output folder; nothing in it is an input, unless a source in it is named.
        selection: which DICOM series are taken.
        resample_slices: let DICOM slices that are missing or unevenly spaced be interpolated.
        hide_identifiers: write paths relative to the sources, and keep what a study's headers give as name, number
            or date of a patient out of case ids, paths, messages and the prompts of DICOM cases.
        reports: DICOM files beside the sources that are looked at for the reports of studies and for nothing else.

    Returns:
        Cases, of which one image counts once, and failures; either may be empty, but not both.

    Raises:
        CaseError: there is nothing to do (no source, no image, no source that exists), a datalist is
            malformed, a folder is to take its own results, or prompts name cases that do not exist.
    """
    sources = [Path(source)] if isinstance(source, (str, Path)) else [Path(item) for item in source]
    found = _Found(split, text_key, None if exclude is None else Path(os.path.realpath(exclude)))
    for one in sources:
        found.add(one)
    named = frozenset(found.named)
    dicom = sort_series(found.dicom, selection, modality, resample_slices, named, hide_identifiers)
    dicom.reports += [one for one in map(read_instance, reports) if one is not None and one.is_report]
    _add_unreadable(found, dicom)
    _check_series_found(selection, dicom, found, sources)
    if (
        not found.entries
        and not dicom.cases
        and (not found.problems or found.problems.keys() == found.missing)
    ):
        raise _nothing_found(sources, found, dicom)
    if found.skipped:
        _LOGGER.info("%d files that are not images were left out.", found.skipped)
    roots = sorted({str(root) for root in found.roots}, key=lambda root: (-len(root), root))
    # of what belongs to no study: the numbers of all patients are what nobody else can guess
    naming = Naming(hide_identifiers, tuple(roots), dicom.identity, str(sorted(dicom.identity.numbers)))
    ids = case_ids([*found.entries, *found.problems])
    # what could not be read may be of anyone; other files that are no DICOM are called as they are
    ids |= {path: naming.name(ids[path]) for path in found.problems}
    hashed = [(name, unique_hash(series)) for name, series in dicom.cases]
    dicom_ids = series_ids(hashed, ids.values())
    _check_prompts(prompts, {*ids.values(), *dicom_ids}, sources[0])
    find = _PromptFinder(prompts, prompts_from, dicom, hide_identifiers)
    entries = [(ids[path], entry) for path, entry in found.entries.items()]
    entries += [
        (case_id, Entry(series.place, None, "", None, {}, series))
        for case_id, (_, series) in zip(dicom_ids, dicom.cases, strict=True)
    ]
    references = [
        _reference(case_id, entry, modality, find(case_id, entry.image, entry, entry.series), naming)
        for case_id, entry in entries
    ]
    failures = [
        CaseFailure(ids[path], naming.path(path), naming.text(str(error), [path, Path(error.source)]))
        for path, error in found.problems.items()
    ]
    excluded = [
        replace(one, input=replace(naming, identity=identity).path(one.input))
        for one, identity in dicom.excluded
    ]
    for left in excluded:
        _LOGGER.info("left out: %s", left)
    return Collection(references, failures, excluded)


def _add_unreadable(found: _Found, dicom: Sorted) -> None:
    """Name the files that are broken where no series of their folder could tell of them."""
    folders = {path.parent for _, series in dicom.cases for path in series.files}
    for path in dicom.unreadable:
        if path in found.named or path.parent not in folders:
            error = unreadable_file(path)
            # One sentence a folder: a series that is broken throughout is one failure.
            key = path if path in found.named else path.parent
            found.problems.setdefault(key, error)


def _check_series_found(
    selection: SeriesSelection | None, dicom: Sorted, found: _Found, sources: list[Path]
) -> None:
    known = {series.series_uid for _, series in dicom.cases}
    for one in selection.series if selection is not None else ():
        if one not in known:
            path = sources[0] / one
            found.problems[path] = CaseError(
                sources[0], f"has no series {one} that could be segmented", "name one that it has"
            )
            found.missing.add(path)


class _PromptFinder:
    """Settles the prompt of a case: what the user gave, the datalist, a file beside the image, the study's report."""

    def __init__(
        self,
        prompts: str | Mapping[str, str] | None,
        prompts_from: PromptSource,
        dicom: Sorted,
        hide_identifiers: bool,
    ) -> None:
        self.prompts = prompts
        self.prompts_from = prompts_from
        self.reports = dicom.reports
        self.hide_identifiers = hide_identifiers

    def __call__(
        self, case_id: str, path: Path, entry: Entry, series: DicomSeries | None
    ) -> tuple[str, PromptSource, list[str]]:
        prompt, source, notes = self._found(case_id, path, entry, series)
        if self.hide_identifiers and series is not None:
            prompt = series.identity.hidden(prompt)
        return prompt, source, notes

    def _found(
        self, case_id: str, path: Path, entry: Entry, series: DicomSeries | None
    ) -> tuple[str, PromptSource, list[str]]:
        if isinstance(self.prompts, str):
            return self.prompts, self.prompts_from, []
        if self.prompts is not None and case_id in self.prompts:
            return self.prompts[case_id], self.prompts_from, []
        if entry.listed:
            return entry.text, "datalist", []
        prompt, notes = sidecar_prompt(path, is_series=series is not None and os.path.isdir(path))
        if prompt or notes or series is None:
            return prompt, "sidecar", notes
        prompt, notes = report_text(self.reports, series.study_uid, self.hide_identifiers)
        return prompt, "DICOM SR", notes


@dataclass
class _Found:
    """What the sources have given so far; keys are absolute paths, so that one image counts once.

    Attributes:
        roots: the folders that were named, or that hold a file that was named.
    """

    split: str | None
    text_key: str
    exclude: Path | None
    entries: dict[Path, Entry] = field(default_factory=dict)
    problems: dict[Path, CaseError] = field(default_factory=dict)
    missing: set[Path] = field(default_factory=set)
    dicom: list[Path] = field(default_factory=list)
    named: set[Path] = field(default_factory=set)
    roots: set[Path] = field(default_factory=set)
    skipped: int = 0

    def add(self, source: Path) -> None:
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
            self._add_datalist(path)
        elif _is_dicom(path):
            self._add_dicom_file(path)
        else:
            self._add_entry(Entry(path, None, "", None, {}))

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

    def _add_datalist(self, path: Path) -> None:
        for entry in read_datalist(path, self.split, self.text_key):
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
        for path in self._files(folder, exclude, frozenset()):
            if _is_dicom(path):
                self.dicom.append(path)
            elif image_suffix(path):
                self._add_entry(Entry(path, None, "", None, {}))
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
        head = read_head(path)
    except CaseError:
        # An empty or locked file with the name of a slice may be one; its series tells of it.
        return looks_like_dicom(path, b"") and os.path.isfile(path)
    return is_dicom_content(head) if image_suffix(path) else looks_like_dicom(path, head)


def _nothing_found(sources: list[Path], found: _Found, dicom: Sorted) -> CaseError:
    if dicom.excluded and not found.missing:
        return nothing_in(sources[0], [one for one, _ in dicom.excluded], ())
    if found.problems:
        return next(iter(found.problems.values()))
    if not sources:
        return CaseError("input", "names nothing", "name an image file, a folder or a datalist")
    problem = "no images found"
    if found.skipped:
        problem += f" ({found.skipped} files of other types)"
    return CaseError(sources[0], problem, "name a folder with NIfTI, MetaImage, NRRD, DICOM or picture files")


def _check_prompts(prompts: str | Mapping[str, str] | None, ids: set[str], source: Path) -> None:
    if prompts is None or isinstance(prompts, str):
        return
    unknown = sorted(prompts.keys() - ids)
    if unknown:
        named = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        problem = f"has no case for {len(unknown)} of the prompts ({named})"
        raise CaseError(source, problem, f"use case ids such as {min(ids)}")


def _reference(
    case_id: str,
    entry: Entry,
    modality: Modality | None,
    prompt: tuple[str, PromptSource, list[str]],
    naming: Naming,
) -> CaseReference:
    if entry.series is not None:
        naming = replace(naming, identity=entry.series.identity, salt=entry.series.study_uid)
    return CaseReference(
        id=case_id,
        image=entry.image,
        label=entry.label,
        prompt=prompt[0],
        modality=modality or entry.modality,
        labels=entry.labels,
        modality_source="option" if modality else "datalist",
        prompt_source=prompt[1],
        series=entry.series,
        notes=tuple(prompt[2]),
        naming=naming,
    )
