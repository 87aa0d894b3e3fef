"""The loop of a PACS node: what has arrived is segmented and delivered, once, over restarts and failures.

What holds when the process is killed at any moment: results become visible in the outbox whole, before anything of
them is sent; their UIDs follow from series, weights and settings; a destination is asked for an object before it is
sent; and a series counts as finished only by a line of the journal that is on disk. So a step that was cut short is
done again with the same outcome.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.serving.pacs.exchange import ArrivedSeries, Destination, ServerError, Source
from bundle.serving.pacs.journal import SeriesJournal, Status
from bundle.serving.pacs.outbox import Outbox, Outcome, Parcel
from bundle.serving.pacs.retries import Retries
from bundle.serving.pacs.segmenter import CannotBeSegmented, NothingToSegment
from bundle.serving.pacs.study_completion import StudyCompletion

#: A series that ends the process so often, by want of memory say, is not tried again.
MOST_STARTS = 10
_SEARCH = "search"


@dataclass(frozen=True)
class Pace:
    """How patient a node is: seconds between two looks at the source, and without a change until a study counts as
    arrived; how often a server is tried, and seconds after its first failure."""

    poll: float = 10.0
    settle: float = 60.0
    attempts: int = 8
    first_pause: float = 10.0


class _Grew(Exception):
    """More of a series came while it was segmented."""


class Node:
    """Leads series from a source through the network to a destination.

    Args:
        destination: None to leave results in the outbox.
        segment: a folder of a series, a folder for its results, files of the study's reports -> `Outcome`; see
            `SeriesSegmenter`.
        keep_results: keep delivered results in the outbox.

    Attributes:
        failures: series of this process that could not be segmented or delivered.
    """

    def __init__(
        self,
        source: Source,
        destination: Destination | None,
        segment: Callable[[Path, Path, Sequence[Path]], Outcome],
        journal: SeriesJournal,
        outbox: Outbox,
        pace: Pace,
        keep_results: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.source = source
        self.destination = destination
        self.segment = segment
        self.journal = journal
        self.outbox = outbox
        self.pace = pace
        self.keep_results = keep_results or destination is None
        self.sleep = sleep
        self.completion = StudyCompletion(pace.settle)
        self.retries = Retries(pace.attempts, pace.first_pause)
        self.failures = 0
        self._undelivered: dict[str, Parcel] = {}
        for parcel in outbox.parcels():
            if not journal.finished(parcel.series):
                self._undelivered[parcel.series.series] = parcel
            elif not self.keep_results:
                outbox.remove(parcel)

    def run(self, once: bool = False) -> None:
        """Work for ever or, with `once`, until nothing that is there is left to do.

        Raises:
            ServerError: with `once`, the source cannot be asked.
        """
        searched = False
        while True:
            try:
                waiting = self.step()
                searched = True
                self.retries.succeeded(_SEARCH)
            except ServerError as error:
                if once and not searched:
                    raise
                if not self.retries.failed(_SEARCH) and once:
                    self.failures += 1
                    say(str(error))
                    return
                say(f"{error} Trying again.")
                waiting = True
            if once and not waiting:
                return
            self.sleep(self.pace.poll)

    def step(self) -> bool:
        """Look once and do what is due; whether anything is still arriving or to be tried again.

        Raises:
            ServerError: the source cannot be asked.
        """
        waiting = self._deliver_all()
        if not self.retries.due(_SEARCH):
            return True
        ready: list[ArrivedSeries] = []
        for study, arrived in self.source.studies().items():
            if self.completion.is_complete(study, arrived):
                ready += [series for series in arrived if not self._is_over(series)]
            else:
                waiting = True
        # One that ended the process before comes last, so that it does not stand in the way of the others.
        for series in sorted(ready, key=self.journal.unfinished_starts):
            waiting |= self._process(series)
            waiting |= self._deliver_all()
        return waiting

    def _is_over(self, series: ArrivedSeries) -> bool:
        """Whether nothing is to be done with a series that has arrived; what the source has of it is let go then."""
        parcel = self._undelivered.get(series.series)
        segmented = parcel is not None and series.instances <= parcel.series.instances
        if segmented or self.journal.finished(series):
            self.source.discard(series)
            return True
        return self.journal.given_up(series)

    def _process(self, series: ArrivedSeries) -> bool:
        """Segment one series; whether it is to be tried again."""
        if not self.retries.due(series.series):
            return True
        if self.journal.unfinished_starts(series) >= MOST_STARTS:
            reason = f"the node ended {MOST_STARTS} times while it was segmented; it may need more memory"
            self._end(series, "failed", reason)
            self.source.discard(series)
            return False
        try:
            folder = self.source.fetch(series)
            self._segment(series, folder, self.source.reports(series.study))
        except (NothingToSegment, CannotBeSegmented) as error:
            self._end(series, "left out" if isinstance(error, NothingToSegment) else "failed", str(error))
            self.source.discard(series)
            return False
        except _Grew:
            self._drop(series)
            return True
        except ServerError as error:
            self._drop(series)
            return self._later(series, str(error))
        except OSError as error:
            self._drop(series)
            return self._later(series, f"The state folder could not be written ({error.strerror}).")
        except KeyboardInterrupt:
            self._drop(series)
            raise
        self.retries.succeeded(series.series)
        self.source.discard(series)
        return False

    def _drop(self, series: ArrivedSeries) -> None:
        """Let go of a series that will be begun again, which is no sign that it ends the process."""
        if self.journal.unfinished_starts(series):
            self.journal.write(series, "stopped")
        self.source.put_back(series)

    def _segment(self, series: ArrivedSeries, folder: Path, reports: Sequence[Path]) -> None:
        self.journal.write(series, "started")
        with self.outbox.filling(series) as results:
            outcome = self.segment(folder, results, reports)
            if self.source.grew(series):
                raise _Grew
            self.outbox.seal(results, series, outcome)
        self.journal.write(
            series, "segmented", objects=list(outcome.objects), prompt_source=outcome.prompt_source
        )
        self._undelivered[series.series] = self.outbox.parcel(series.series)

    def _deliver_all(self) -> bool:
        """Hand over all results that are due; whether some are to be tried again."""
        waiting = False
        for parcel in list(self._undelivered.values()):
            if self.retries.due(parcel.series.series):
                waiting |= self._deliver(parcel)
            else:
                waiting = True
        return waiting

    def _deliver(self, parcel: Parcel) -> bool:
        """Hand over the results of a series; whether that is to be tried again."""
        series, outcome = parcel.series, parcel.outcome
        if self.destination is not None and parcel.files:
            try:
                self.destination.deliver(parcel.files)
            except ServerError as error:
                again = self._later(series, str(error))
                if not again:
                    del self._undelivered[series.series]
                return again
        self.retries.succeeded(series.series)
        reason = " ".join([*outcome.errors, *outcome.notes])
        status: Status = "failed" if outcome.errors else "done"
        self._end(series, status, reason, list(outcome.objects), outcome.prompt_source)
        del self._undelivered[series.series]
        if not self.keep_results:
            self.outbox.remove(parcel)
        return False

    def _later(self, series: ArrivedSeries, sentence: str) -> bool:
        """Note that a server did not do its part; whether there are attempts left."""
        if self.retries.failed(series.series):
            say(f"series {series.series}: {sentence} Trying again.")
            return True
        self.journal.write(series, "gave up", sentence)
        self.failures += 1
        say(f"series {series.series}: gave up: {sentence} The next start of the node tries again.")
        return False

    def _end(
        self,
        series: ArrivedSeries,
        status: Status,
        reason: str = "",
        objects: Sequence[str] = (),
        prompt_source: str = "",
    ) -> None:
        self.journal.write(series, status, reason, objects, prompt_source)
        self.failures += status == "failed"
        count = "" if status == "left out" else f", {len(objects)} objects"
        say(f"series {series.series}: {status}{count}{': ' if reason else ''}{reason}")


def say(sentence: str) -> None:
    """A line for the operator, on standard error."""
    print(sentence, file=sys.stderr, flush=True)
