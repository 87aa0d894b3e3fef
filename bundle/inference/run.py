"""A run over many cases and the record of it, which outlives the run however it ends."""

from __future__ import annotations

import json
import os
import platform
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
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
from bundle.cases import CaseError
from bundle.cases.privacy import printable
from bundle.diffusion.sampling import Sampling
from bundle.exit_codes import INTERRUPTED, NOT_STARTED, SOME_FAILED
from bundle.folder_lock import FolderInUseError, folder_lock
from bundle.inference.entries import INTERNAL, WARNINGS, CaseResults, entry_of
from bundle.inference.evaluator import CaseEvaluator
from bundle.inference.find import CaseList
from bundle.inference.journal import RunJournal
from bundle.networks.weights import file_sha256
from bundle.results.page import write_index
from bundle.results.result_files import ResultWriter
from bundle.settings import differences

# run.json and index.html are written anew after this many seconds, or so that they take a twentieth of the time.
_INTERVAL, _SHARE = 30.0, 20.0
_MOST_FLAGS = 3  # of a case that the terminal shows
_LONGEST_SETTING = 60  # characters that a message quotes


class RunRecord:
    """Writes each case's results as it is done, and journal, run.json and index.html beside them.

    The journal has every case as soon as it is done. run.json and index.html are made from the same entries at the
    start, now and then, and at the end or where the run is interrupted.

    Args:
        output_dir: of the run.
        cases: of the run, with those that cannot be used and, of a run that is resumed, those that are done.
        sampling: for the record.
        weights: file, for its sha256.
        device: for the record.
        progress: show a bar with the time left.
        write_results: write masks and the rest; without, the record alone.
        writers: of further files of each case, see `bundle.results.write_prediction`.
        settings: what decides on results and files, so that `--resume` mixes nothing, see `bundle.settings`.
        resumable: the run can be taken up again.

    Raises:
        CaseError: the folder cannot be written, or resuming would mix results of different settings.
    """

    def __init__(
        self,
        output_dir: Path | str,
        cases: CaseList,
        sampling: Sampling | None = None,
        weights: Path | str | None = None,
        device: torch.device | str = "cpu",
        progress: bool = True,
        write_results: bool = True,
        writers: Sequence[ResultWriter] = (),
        settings: Mapping[str, Any] | None = None,
        resumable: bool = True,
    ) -> None:
        if cases.earlier is not None and not resumable:
            raise CaseError("resume", "every case counts, and none is kept", "leave it out")
        self.output_dir = Path(output_dir)
        self.cases = cases
        self.progress = progress
        self.results = CaseResults(self.output_dir, writers, write_results)
        _check_writable(self.output_dir)
        self.journal = RunJournal(self.output_dir)
        self.entries = [entry_of(failure.id, failure.input, failure.error) for failure in cases.failures]
        for failure in cases.failures:
            _say(f"failed: {failure.error}")
        for one in cases.excluded:
            _say(f"left out: {one}")
        chosen = {} if sampling is None else asdict(sampling)
        self.about: dict[str, Any] = {
            "versions": versions(),
            "weights": None if weights is None else Path(weights).name,
            "weights_sha256": None if weights is None else file_sha256(weights),
            "device": str(device),
            "command": printable(shlex.join(cases.shown_arguments(sys.argv))),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **({"left_out": [asdict(one) for one in cases.excluded]} if cases.excluded else {}),
            **chosen,
        }
        #: What must be the same for results to lie beside each other in one folder.
        self.settings = {
            "weights_sha256": self.about["weights_sha256"],
            **(settings or {}),
            **chosen,
            "bundle": bundle.__version__,
        }
        if cases.earlier is not None and cases.earlier.done:
            _check_same(cases.earlier.settings, self.settings, self.output_dir)
            ids = cases.ids
            self.entries += [entry for entry in cases.earlier.done if entry["id"] not in ids]
        self.resumable = resumable
        self.bar: Any = None
        self._due = 0.0
        self._noticed: set[str] = set()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)

    def run(self, evaluator: CaseEvaluator) -> None:
        """Segment all cases, say what became of them, and leave with the exit code where it is not 0.

        An interruption (Ctrl-C, SIGTERM) leaves whole files, and says how to go on.

        Raises:
            SystemExit: 1 where cases failed or the folder cannot be written any more, 2 where another run is writing
                into it, 130 where it was interrupted.
        """
        try:
            with folder_lock(self.output_dir):
                self._run(evaluator)
        except FolderInUseError as error:
            print(
                f"error: {self.output_dir}: {error.strerror}; wait for it, or give another folder.",
                file=sys.stderr,
            )
            raise SystemExit(NOT_STARTED) from error

    def _run(self, evaluator: CaseEvaluator) -> None:
        try:
            # SIGTERM does what Ctrl-C does
            with _on_signals([signal.SIGTERM], signal.default_int_handler):
                evaluator.run()
        except KeyboardInterrupt:
            # a second Ctrl-C must not cut off the writing of what the first one left
            with _on_signals([signal.SIGINT, signal.SIGTERM], signal.SIG_IGN):
                self._leave("interrupted", INTERRUPTED)
        except OSError as error:  # of journal, run.json or index.html; those of cases are theirs
            print(f"error: {error}.", file=sys.stderr)
            self._leave("stopped", SOME_FAILED, write=False)
        except RuntimeError as error:
            # of a process that reads ahead, which torch tells of in this way alone
            if "DataLoader worker" not in str(error):
                raise
            remedy = "if memory ran out, set num_workers to 0"
            print(f"error: a process that reads cases ahead was ended; {remedy}.", file=sys.stderr)
            self._leave("stopped", SOME_FAILED)
        self.finish()

    def start(self, engine: Engine) -> None:
        for name in ("run.json", "index.html"):
            remove_leftovers(self.output_dir / name)
        self.journal.start(self.settings, self.entries)
        self._publish()
        self.bar = tqdm(total=len(self.cases.references), unit="case", disable=not self.progress)

    def keep(self, engine: Engine) -> None:
        output = engine.state.output
        entry = dict(output.get("entry") or self.results(output))
        warnings = entry.pop(WARNINGS, ())
        # in this order: what an interruption between the two leaves out of the journal is done again, no more
        self.entries.append(entry)
        self.journal.add(entry)
        if entry["error"] is not None:
            _say(f"failed: {entry['error']}")
        if entry.get("flags"):
            more = len(entry["flags"]) - _MOST_FLAGS
            texts = entry["flags"][:_MOST_FLAGS] + [f"{more} more are in its report."] * (more > 0)
            _say(f"implausible: {entry['id']}: {' '.join(texts)}")
        if warnings:
            _say(f"warning: {entry['id']}: {' '.join(warnings)}")
        for notice in entry.get("notices", []):
            if notice not in self._noticed:
                self._noticed.add(notice)
                _say(f"note: {notice}")
        self.bar.update()
        if time.monotonic() >= self._due:
            self._publish()

    def finish(self) -> None:
        """Write the record and leave with exit code 1 where cases failed.

        Raises:
            SystemExit: 1.
        """
        self._close()
        self._publish()
        print(printable(f"{self._counts()}: {self.output_dir / 'index.html'}"))
        if self.failed:
            raise SystemExit(SOME_FAILED)

    def _leave(self, how: str, code: int, write: bool = True) -> None:
        self._close()
        if write:
            self._publish()
        left = len(self.cases.ids - {entry["id"] for entry in self.entries})
        remedy = "; repeat the command with resume to go on" if self.resumable else ""
        print(f"{how}: {self._counts()}, {left} left{remedy}.", file=sys.stderr)
        raise SystemExit(code)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    @property
    def failed(self) -> int:
        return sum(entry["status"] == "failed" for entry in self.entries)

    def _counts(self) -> str:
        warned = sum(bool(entry.get("warnings")) for entry in self.entries)
        flagged = sum(bool(entry.get("flags")) for entry in self.entries)
        warnings = f" ({warned} with warnings)" if warned else ""
        implausible = f", {flagged} implausible" if flagged else ""
        return f"{len(self.entries) - self.failed} done{warnings}, {self.failed} failed{implausible}"

    def content(self) -> dict[str, Any]:
        """What run.json holds."""
        entries = sorted(self.entries, key=lambda entry: str(entry["id"]))
        shown = [{key: value for key, value in one.items() if key not in INTERNAL} for one in entries]
        return {"cases": shown, **self.about}

    def _publish(self) -> None:
        started = time.monotonic()
        content = self.content()
        with write_atomically(self.output_dir / "run.json") as path:
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_index(self.output_dir, content)
        now = time.monotonic()
        self._due = now + max(_INTERVAL, _SHARE * (now - started))


def _say(sentence: str) -> None:
    """One line above the bar."""
    tqdm.write(printable(sentence), file=sys.stderr)


@contextmanager
def _on_signals(numbers: Sequence[int], handler: Any) -> Iterator[None]:
    """Have signals handled otherwise, where this is the thread that they reach."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _check_same(earlier: Mapping[str, Any], now: Mapping[str, Any], output_dir: Path) -> None:
    for name, before, value in differences(earlier, now):
        quoted = str(before), str(value)
        if max(map(len, quoted)) > _LONGEST_SETTING:
            problem = f"holds results made with other {name}"
        else:
            problem = f"holds results made with {name} {quoted[0]}, not {quoted[1]}"
        raise CaseError(output_dir, problem, "give another folder, or run without resume")


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
        raise CaseError(folder, f"cannot be written ({error.strerror})", "give another folder") from error
