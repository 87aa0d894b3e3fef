"""When something that a server did not do is tried again, and how often.

tenacity repeats one call and sleeps within it; a node goes on with other series until each is due.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

_LONGEST_PAUSE = 900.0


@dataclass(frozen=True)
class Backoff:
    """Pauses that double up to a quarter of an hour.

    Attributes:
        attempts: how often a thing is tried.
        first_pause: seconds after the first failure.
    """

    attempts: int = 8
    first_pause: float = 10.0

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return float(min(self.first_pause * 2.0 ** min(failures - 1, 30), _LONGEST_PAUSE))


class Retries:
    """Failures of this process by what they concern."""

    def __init__(self, backoff: Backoff, clock: Callable[[], float] = time.monotonic) -> None:
        self.backoff = backoff
        self.clock = clock
        self._failures: dict[Hashable, int] = {}
        self._due: dict[Hashable, float] = {}

    def due(self, key: Hashable) -> bool:
        """Whether it is time to try."""
        return self.clock() >= self._due.get(key, 0.0)

    def failed(self, key: Hashable) -> bool:
        """Count a failure; whether there are attempts left."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._due[key] = self.clock() + self.backoff.pause(failures)
        return failures < self.backoff.attempts

    def succeeded(self, key: Hashable) -> None:
        self._failures.pop(key, None)
        self._due.pop(key, None)
