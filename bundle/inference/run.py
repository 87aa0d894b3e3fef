"""A run over many cases: what there is to do, and a record of what became of each."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import monai
import numpy
import torch
import transformers
from ignite.engine import Engine, Events
from tqdm import tqdm

import bundle
from bundle.atomic import remove_leftovers, write_atomically
from bundle.cases import CaseError, CaseFailure, CaseReference, collect, read_prompts
from bundle.cases.case import MODALITIES, Modality
from bundle.cases.dicom.selection import Orientation, SeriesSelection
from bundle.cases.dicom.series import LeftOut
from bundle.command_line import SOME_FAILED
from bundle.inference.evaluator import reason
from bundle.networks.weights import file_sha256
from bundle.results import write_prediction
from bundle.results.page import write_index
from bundle.results.writer import Companion


@dataclass(frozen=True)
class CaseList:
    """Cases of a run, those that were named but cannot be used, and DICOM series that are no cases."""

    references: list[CaseReference]
    failures: list[CaseFailure]
    left_out: list[LeftOut] = field(default_factory=list)


def find_cases(
    source: Any,
    output_dir: Path | str | None = None,
    prompt_file: Path | str | None = None,
    prompt: str | None = None,
    split: str | None = None,
    modality: Modality | None = None,
    resume: bool = False,
    strict: bool = False,
    text_key: str = "text",
    series: str | Sequence[str] | None = None,
    series_description: str | None = None,
    series_modality: str | None = None,
    min_slices: int = 1,
    orientation: Orientation | None = None,
    resample_slices: bool = False,
) -> CaseList:
    """What a run has to do.

    Args:
        source: a file, a folder, a datalist or several of these.
        output_dir: of the run; what lies in it is no input.
        prompt_file: see `bundle.cases.read_prompts`.
        prompt: one for all cases, instead of a file.
        split: list of a datalist.
        modality: of all cases; None to take the datalist's or tell it from the file.
        resume: leave out cases that the record in `output_dir` says are done.
        strict: refuse all where one cannot be used, instead of listing it.
        text_key: field of a datalist's entry that is its prompt, where none is given.
        series, series_description, series_modality, min_slices, orientation: which DICOM series are taken, see
            `bundle.cases.dicom.SeriesSelection`; None for any.
        resample_slices: let DICOM slices that are missing or unevenly spaced be interpolated, with a warning.

    Raises:
        CaseError: nothing to segment, a prompt file that cannot be read, or `strict` and a case.
    """
    if source is None:
        raise CaseError("--input", "was not given", "name a file, a folder or a datalist")
    if modality is not None and modality not in MODALITIES:
        raise CaseError("--modality", f"{modality!r} is not known", f"give one of {', '.join(MODALITIES)}")
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
        selection=SeriesSelection.of(series, series_description, series_modality, min_slices, orientation),
        resample_slices=resample_slices,
    )
    references, failures = found.references, found.failures
    if strict and failures:
        raise CaseError(source, f"{failures[0].error} ({len(failures)} such cases)", "mend the datalist")
    if resume and output is not None:
        entries = _previous(output).get("cases", [])
        done = {(entry["id"], entry.get("fingerprint")) for entry in entries if _is_whole(entry, output)}
        references = [case for case in references if (case.id, fingerprint(case)) not in done]
    return CaseList(references, failures, found.left_out)


def fingerprint(reference: CaseReference) -> str:
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


def _previous(output_dir: Path) -> dict[str, Any]:
    """The record of an earlier run; empty where there is none that can be read."""
    try:
        record = json.loads((output_dir / "run.json").read_text(encoding="utf-8"))
        cases = [entry for entry in record["cases"] if isinstance(entry, dict) and "id" in entry]
        return {**record, "cases": cases}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _is_whole(entry: Mapping[str, Any], output_dir: Path) -> bool:
    files = entry.get("files") or []
    return (
        entry.get("status") == "done" and bool(files) and all((output_dir / name).is_file() for name in files)
    )


class RunRecord:
    """Writes each case's results as it is done, and run.json and index.html beside them.

    run.json is replaced after every case, so that a run that is killed leaves a true record.

    Args:
        output_dir: of the run.
        cases: of the run, with those that cannot be used.
        settings: of the sampling, for the record.
        weights: file, for its sha256.
        device: for the record.
        progress: show a bar with the time left.
        write_results: write masks and the rest; without, the record alone.
        resume: keep what an earlier record says is done of cases that this run leaves out.
        companions: further writers of each case's results, see `bundle.results.write_prediction`.

    Raises:
        CaseError: the folder cannot be written, or `resume` would mix results of different settings.
    """

    def __init__(
        self,
        output_dir: Path | str,
        cases: CaseList,
        settings: Mapping[str, Any] | None = None,
        weights: Path | str | None = None,
        device: torch.device | str = "cpu",
        progress: bool = True,
        write_results: bool = True,
        resume: bool = False,
        companions: Sequence[Companion] = (),
    ) -> None:
        self.companions = companions
        self.output_dir = Path(output_dir)
        self.cases = cases
        self.write_results = write_results
        self.progress = progress
        _check_writable(self.output_dir)
        for name in ("run.json", "index.html"):
            remove_leftovers(self.output_dir / name)
        self.entries = [_entry(failure.id, failure.input, failure.error) for failure in cases.failures]
        for failure in cases.failures:
            tqdm.write(f"failed: {failure.error}", file=sys.stderr)
        for one in cases.left_out:
            tqdm.write(f"left out: {one.input} {one.reason}.", file=sys.stderr)
        self.about: dict[str, Any] = {
            "versions": versions(),
            "weights": None if weights is None else Path(weights).name,
            "weights_sha256": None if weights is None else file_sha256(weights),
            "device": str(device),
            "command": shlex.join(sys.argv),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **({"left_out": [asdict(one) for one in cases.left_out]} if cases.left_out else {}),
            **(settings or {}),
        }
        if resume:
            self._take_over({"weights_sha256", *(settings or {})})
        self.bar: Any = None

    def _take_over(self, settings: set[str]) -> None:
        """Keep the earlier entries of cases that are done and not among those of this run."""
        earlier = _previous(self.output_dir)
        for name in sorted(settings):
            if name in earlier and earlier[name] != self.about[name]:
                problem = f"holds results made with {name} {earlier[name]}, not {self.about[name]}"
                raise CaseError(self.output_dir, problem, "give another folder, or run without --resume")
        this_run = {reference.id for reference in self.cases.references}
        this_run |= {failure.id for failure in self.cases.failures}
        done = [entry for entry in earlier.get("cases", []) if _is_whole(entry, self.output_dir)]
        self.entries += [entry for entry in done if entry["id"] not in this_run]

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)

    def start(self, engine: Engine) -> None:
        self._write()
        self.bar = tqdm(total=len(self.cases.references), unit="case", disable=not self.progress)

    def keep(self, engine: Engine) -> None:
        output = engine.state.output
        reference: CaseReference = output["reference"]
        error, files = output.get("error"), []
        if error is None and self.write_results:
            try:
                files = write_prediction(
                    output["prediction"], self.output_dir, output["seconds"], self.companions
                )["files"]
            except OSError as problem:
                remedy = "free space or give another folder"
                error = f"{reference.image}: the result could not be written ({problem}); {remedy}."
            except Exception as problem:  # the rest of the batch goes on
                error = reason(problem, reference)
        self.entries.append(
            {
                **_entry(reference.id, str(reference.image), error, files, float(output["seconds"])),
                "fingerprint": fingerprint(reference),
            }
        )
        if error is not None:
            tqdm.write(f"failed: {error}", file=sys.stderr)
        self.bar.update()
        self._write()

    def finish(self) -> None:
        """Write the page and leave with exit code 1 where cases failed.

        Raises:
            SystemExit: 1.
        """
        if self.bar is not None:
            self.bar.close()
        self._write()
        write_index(self.output_dir, self.content())
        failed = self.failed
        done = len(self.entries) - failed
        print(f"{done} done, {failed} failed: {self.output_dir / 'index.html'}")
        if failed:
            raise SystemExit(SOME_FAILED)

    @property
    def failed(self) -> int:
        return sum(entry["status"] == "failed" for entry in self.entries)

    def content(self) -> dict[str, Any]:
        """What run.json holds."""
        return {"cases": sorted(self.entries, key=lambda entry: str(entry["id"])), **self.about}

    def _write(self) -> None:
        with write_atomically(self.output_dir / "run.json") as path:
            path.write_text(json.dumps(self.content(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _entry(
    case_id: str, source: str, error: str | None, files: Sequence[str] = (), seconds: float = 0.0
) -> dict[str, Any]:
    """A case as run.json has it."""
    return {
        "id": case_id,
        "input": source,
        "status": "done" if error is None else "failed",
        "error": error,
        "files": list(files),
        "seconds": round(seconds, 3),
    }


def versions() -> dict[str, str]:
    """Of this project and what its results depend on."""
    return {
        "bundle": bundle.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "monai": monai.__version__,
        "transformers": transformers.__version__,
        "numpy": numpy.__version__,
    }


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CaseError(
            folder, f"cannot be written ({error.strerror})", "give another --output_dir"
        ) from error
