"""A run over many cases and the record of it, which outlives the run however it ends."""

from __future__ import annotations

import platform
import shlex
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from bundle.atomic import remove_leftovers
from bundle.cases import CaseError
from bundle.cases.privacy import printable
from bundle.diffusion.sampling import Sampling
from bundle.exit_codes import INTERRUPTED, NOT_STARTED, SOME_FAILED
from bundle.folder_lock import FolderInUseError, folder_lock
from bundle.inference.entries import WARNINGS, CaseResults, entry_of
from bundle.inference.evaluator import CaseEvaluator
from bundle.inference.find import CaseList
from bundle.inference.journal import RunJournal
from bundle.inference.parts import remove_parts
from bundle.inference.publishing import counts, failed, publish, run_content, write_record
from bundle.inference.ray_actors import Actors
from bundle.networks.weights import file_sha256
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

    A part of a run has journal and run.json in a folder of its own, and no page.

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
        resumable: the run can be taken up again, and be done in parts.
        actors: of Ray that the cases are done by, for the record; None where this machine does them.

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
        actors: Actors | None = None,
    ) -> None:
        if cases.earlier is not None and not resumable:
            raise CaseError("resume", "every case counts, and none is kept", "leave it out")
        if cases.part is not None and not resumable:
            raise CaseError("part", "every case counts", "leave it out")
        self.output_dir = Path(output_dir)
        self.cases = cases
        #: Of journal and run.json.
        self.folder = self.output_dir if cases.part is None else cases.part.folder(self.output_dir)
        self.progress = progress
        self.results = CaseResults(self.output_dir, writers, write_results)
        _check_writable(self.output_dir)
        _check_writable(self.folder)
        self.journal = RunJournal(self.folder)
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
            **({} if actors is None else {"engine": "ray", "actors": actors.shown}),
            "command": printable(shlex.join(cases.shown_arguments(sys.argv))),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **({} if cases.part is None else {"part": str(cases.part)}),
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
            for earlier in cases.earlier.settings:
                _check_same(earlier, self.settings, self.output_dir)
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
            with ExitStack() as locks:
                locks.enter_context(folder_lock(self.output_dir, shared=self.cases.part is not None))
                if self.cases.part is not None:
                    locks.enter_context(folder_lock(self.folder))
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
            remove_leftovers(self.folder / name)
        part = self.cases.part
        ids = self.cases.ids | {entry["id"] for entry in self.entries}
        self.journal.start(self.settings, self.entries, None if part is None else ids)
        if part is None:
            remove_parts(self.output_dir)
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
        if self.cases.part is None:
            print(printable(f"{counts(self.entries)}: {self.output_dir / 'index.html'}"))
        else:
            joined = f"tpseg merge {self.output_dir} joins it with the others"
            print(printable(f"part {self.cases.part}: {counts(self.entries)}; {joined}"))
        if self.failed:
            raise SystemExit(SOME_FAILED)

    def _leave(self, how: str, code: int, write: bool = True) -> None:
        self._close()
        if write:
            self._publish()
        left = len(self.cases.ids - {entry["id"] for entry in self.entries})
        remedy = "; repeat the command with resume to go on" if self.resumable else ""
        print(f"{how}: {counts(self.entries)}, {left} left{remedy}.", file=sys.stderr)
        raise SystemExit(code)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    @property
    def failed(self) -> int:
        return failed(self.entries)

    def _publish(self) -> None:
        started = time.monotonic()
        if self.cases.part is None:
            publish(self.output_dir, self.entries, self.about)
        else:
            write_record(self.folder, run_content(self.entries, self.about))
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
        probe = (
            folder / f".probe-{uuid.uuid4().hex}"
        )  # parts on other machines may have this process's number
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CaseError(folder, f"cannot be written ({error.strerror})", "give another folder") from error
