"""Whether a study has arrived."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bundle.serving.pacs.exchange import ArrivedSeries


class StudyCompletion:
    """A study is complete when nothing was added to it for some seconds.

    Args:
        seconds: how long.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.clock = clock
        self._seen: dict[str, tuple[dict[str, int], float]] = {}

    def is_complete(self, study: str, series: Sequence[ArrivedSeries]) -> bool:
        """Take note of what there is of a study; whether it has been the same for long enough."""
        counts = {one.series: one.instances for one in series}
        known, since = self._seen.get(study, ({}, 0.0))
        if counts != known:
            since = self.clock()
            self._seen[study] = counts, since
        return self.clock() - since >= self.seconds
