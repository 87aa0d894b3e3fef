"""What became of each series: one line of JSON an event, on disk before the next thing happens.

A line holds UIDs, numbers and reasons, no name, number or date of a patient or of the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from bundle.json_lines import append_json, read_json_lines
from bundle.serving.pacs.exchange import ArrivedSeries

#: started: goes through the network; stopped: was dropped meanwhile, to be begun again; segmented: its results are in
#: the outbox; done: delivered; failed: cannot be segmented; left out: nothing to segment; gave up: a server did not
#: do its part, to be tried again when the node starts.
Status = Literal["started", "stopped", "segmented", "done", "failed", "left out", "gave up"]
_FINAL = frozenset({"done", "failed", "left out"})


@dataclass
class _Known:
    """What the journal knows of a series: how much of it is finished, and how often it was begun since."""

    finished: int = 0
    started: int = 0


class SeriesJournal:
    """An append-only file of lines.

    Raises:
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, _Known] = {}
        self._given_up: dict[str, int] = {}
        if path.exists():
            for entry in read_json_lines(path):
                self._replay(entry)

    def _replay(self, entry: Mapping[str, Any]) -> None:
        """Take over what an earlier process wrote; what is damaged is passed over: to do a series twice is safe."""
        try:
            series, status, instances = str(entry["series"]), entry["status"], int(entry["instances"])
        except (ValueError, KeyError, TypeError):
            return
        if status in get_args(Status):
            self._take(series, status, instances)

    def _take(self, series: str, status: Status, instances: int) -> None:
        known = self._known.setdefault(series, _Known())
        known.started = known.started + 1 if status == "started" else 0
        if status in _FINAL:
            known.finished = max(known.finished, instances)

    def write(
        self,
        series: ArrivedSeries,
        status: Status,
        reason: str = "",
        objects: Sequence[str] = (),
        prompt_source: str = "",
    ) -> None:
        """Append a line and have it on disk.

        Args:
            objects: SOPInstanceUIDs of the results.
            prompt_source: who gave the prompt; empty for none.
        """
        details = {"reason": reason, "objects": list(objects), "prompt_source": prompt_source}
        entry = {
            "status": status,
            "study": series.study,
            "series": series.series,
            "instances": series.instances,
            **{key: value for key, value in details.items() if value},
        }
        append_json(self.path, entry)
        self._take(series.series, status, series.instances)
        if status == "gave up":
            self._given_up[series.series] = series.instances

    def finished(self, series: ArrivedSeries) -> bool:
        """Whether as much of a series as there is, or more, needs nothing more."""
        known = self._known.get(series.series)
        return known is not None and 0 < series.instances <= known.finished

    def given_up(self, series: ArrivedSeries) -> bool:
        """Whether this process, not an earlier one, gave up."""
        return series.instances <= self._given_up.get(series.series, 0)

    def unfinished_starts(self, series: ArrivedSeries) -> int:
        """How often a process began to segment a series and ended without a word, as one that is killed does."""
        known = self._known.get(series.series)
        return 0 if known is None else known.started
