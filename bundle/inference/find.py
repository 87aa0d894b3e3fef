"""What a run has to do: the cases that a user names, less those that an earlier run in the same folder finished."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from bundle.cases import CaseError, CaseFailure, CaseReference, collect, read_prompts
from bundle.cases.dicom.selection import SeriesSelection
from bundle.cases.dicom.series import Exclusion
from bundle.cases.modality import MODALITIES, Modality
from bundle.cases.structures import Structures
from bundle.inference.journal import is_whole
from bundle.inference.parts import Part, journals_in
from bundle.results.result_files import known_files
from bundle.wording.asides import reads_like_prompt

#: Whether results and messages hide or keep what names a patient; 'replace' hides it and has other identifiers in
#: DICOM objects, which have those of the source otherwise.
Identifiers = Literal["hide", "keep", "replace"]


@dataclass(frozen=True)
class Earlier:
    """What earlier runs in the output folder, or their parts, have left.

    Attributes:
        settings: they were made with.
        done: entries of their journals whose files are all there as they were written.
    """

    settings: list[dict[str, Any]]
    done: list[dict[str, Any]]


@dataclass(frozen=True)
class CaseList:
    """Cases of a run, those that were named but cannot be used, and DICOM series that are no cases.

    Attributes:
        earlier: of a run that is resumed; None of one that begins anew.
        part: that these are of all cases; None where they are all.
        hidden: arguments of the command that are not to be written down, and what stands for each.
    """

    references: list[CaseReference]
    failures: list[CaseFailure]
    excluded: list[Exclusion] = field(default_factory=list)
    earlier: Earlier | None = None
    part: Part | None = None
    hidden: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def ids(self) -> set[str]:
        """Of cases and failures."""
        return {case.id for case in self.references} | {failure.id for failure in self.failures}

    def shown_arguments(self, arguments: Sequence[str]) -> list[str]:
        """The arguments of the command as they may be written down."""
        shown = []
        for argument in arguments:
            name, equals, value = argument.partition("=")
            if argument.startswith("--") and equals:
                shown.append(f"{name}={self.hidden.get(value, value)}")
            else:
                shown.append(self.hidden.get(argument, argument))
        return shown


def find_cases(
    source: Any,
    output_dir: Path | str | None = None,
    prompt_file: Path | str | None = None,
    prompt: str | None = None,
    split: str | None = None,
    modality: Modality | None = None,
    resume: bool = False,
    part: str | None = None,
    strict: bool = False,
    text_key: str = "text",
    identifiers: Identifiers = "hide",
    replacement_seed: str | None = None,
    reports: Sequence[Path] = (),
    text_beside: bool | Literal["auto"] = "auto",
    structures: Structures | None = None,
    **selection: Any,
) -> CaseList:
    """What a run has to do.

    Args:
        source: a file, a folder, a datalist or several of these.
        output_dir: of the run; what lies in it is no input.
        prompt_file: see `bundle.cases.read_prompts`.
        prompt: one for all cases, instead of a file.
        split: list of a datalist.
        modality: of all cases; None to take the datalist's or tell it from the file.
        resume: leave out cases that a journal in `output_dir` says are done and whose files are whole.
        part: 'I/N' for every N-th case alone, by their sorted ids; None for all.
        strict: refuse all where one cannot be used, instead of listing it.
        text_key: field of a datalist's entry that is its prompt, where none is given.
        identifiers: see `Identifiers`.
        replacement_seed: that identifiers are replaced with, without which each part of a run would draw its own.
        reports: see `bundle.cases.collect`.
        text_beside: whether a text file beside an image is its prompt; 'auto' where it reads like one.
        structures: of the network, which prompts speak of.
        selection: which DICOM series are taken, see `bundle.cases.dicom.SeriesSelection`.

    Raises:
        CaseError: nothing to segment, a prompt file that cannot be read, or `strict` and a case.
    """
    if source is None:
        raise CaseError("input", "was not given", "name a file, a folder or a datalist")
    for one in [source] if isinstance(source, (str, Path)) else source:
        if not str(one).strip():
            raise CaseError("input", "is an empty path", "name a file, a folder or a datalist")
    for setting, value, known in (
        ("modality", modality, (None, *MODALITIES)),
        ("identifiers", identifiers, get_args(Identifiers)),
        ("text_beside", text_beside, ("auto", True, False)),
    ):
        if value not in known:
            choices = ", ".join(str(choice) for choice in known if choice is not None)
            raise CaseError(setting, f"{value!r} is not known", f"give one of {choices}")
    if part is not None and identifiers == "replace" and replacement_seed is None:
        problem = "is not set, and each part of a run would replace identifiers in its own way"
        raise CaseError("replacement_seed", problem, "give the same one to all parts")
    prompts = read_prompts(Path(prompt_file)) if prompt_file is not None else prompt
    output = None if output_dir is None else Path(output_dir)
    found = collect(
        source,
        modality=modality,
        prompts=prompts,
        prompts_from="option" if prompt_file is None else "file",
        split=split,
        text_key=text_key,
        exclude=output,
        selection=SeriesSelection(**selection),
        hide_identifiers=identifiers != "keep",
        reports=reports,
        reads_like_prompt=_reads_like_prompt(text_beside, structures),
        result_names=tuple(known_files()),
    )
    references, failures = found.references, found.failures
    chosen = None if part is None else Part.of(part)
    if chosen is not None:
        mine = chosen.ids([case.id for case in references] + [failure.id for failure in failures])
        references = [case for case in references if case.id in mine]
        failures = [failure for failure in failures if failure.id in mine]
    if strict and failures:
        raise CaseError(source, f"{failures[0].error} ({len(failures)} such cases)", "mend the datalist")
    earlier = None
    if resume and output is not None:
        earlier = _earlier(output, chosen, {case.id for case in references})
        done = {(entry["id"], entry.get("fingerprint")) for entry in earlier.done}
        references = [case for case in references if (case.id, case_fingerprint(case)) not in done]
    excluded = found.excluded
    if identifiers == "replace":
        excluded = [replace(one, series="", remedy="") for one in excluded]
    hidden = {} if identifiers == "keep" else _hidden(source, prompt)
    return CaseList(references, failures, excluded, earlier, chosen, hidden)


def _earlier(output: Path, part: Part | None, ids: set[str]) -> Earlier:
    """What journals in the output folder say is done; of a part, with the `ids` of its cases, what is its own."""
    settings, done = [], dict[str, dict[str, Any]]()
    for journal in journals_in(output, part):
        before = len(done)
        for entry in journal.entries:
            is_new = entry["id"] not in done and (part is None or entry["id"] in ids)
            if is_new and is_whole(entry, output):
                done[entry["id"]] = entry
        if len(done) > before:
            settings.append(journal.settings)
    return Earlier(settings, list(done.values()))


def _reads_like_prompt(
    text_beside: bool | Literal["auto"], structures: Structures | None
) -> Callable[[str], bool] | None:
    if isinstance(text_beside, bool):
        return bool if text_beside else None
    return partial(reads_like_prompt, structures=structures)


def _hidden(source: Any, prompt: str | None) -> dict[str, str]:
    """Paths and prompts are named after patients as soon as somebody types them."""
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    hidden = {str(one): "PATH" for one in (source, *sources)}
    return {**hidden, **({prompt: "TEXT"} if prompt else {})}


def case_fingerprint(reference: CaseReference) -> str:
    """What a case is, so that `--resume` does not take another patient's file of the same name for it."""
    series = reference.series
    files = [reference.image] if series is None else series.files
    state: Any = [_state(path) for path in files]
    if series is None:
        state = state[0]
    elif series.resample:
        state.append("resampled")
    return hashlib.sha256(repr((state, reference.prompt, reference.modality)).encode()).hexdigest()[:16]


def _state(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
        return str(path.resolve()), status.st_size, status.st_mtime_ns
    except OSError:
        return str(path), 0, 0
