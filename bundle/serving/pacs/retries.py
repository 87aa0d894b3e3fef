"""When something that a server did not do is tried again, and how often.

tenacity repeats one call and sleeps within it; a node goes on with other series until each is due.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

_LONGEST_PAUSE = 900.0


@dataclass
class Retries:
    """Failures of this process by what they concern; pauses double up to a quarter of an hour.

    Attributes:
        attempts: how often a thing is tried.
        first_pause: seconds after the first failure.
    """

    attempts: int = 8
    first_pause: float = 10.0
    clock: Callable[[], float] = time.monotonic
    _failures: Counter[Hashable] = field(default_factory=Counter)
    _due: dict[Hashable, float] = field(default_factory=dict)

    def due(self, key: Hashable) -> bool:
        """Whether it is time to try."""
        return self.clock() >= self._due.get(key, 0.0)

    def failed(self, key: Hashable) -> bool:
        """Count a failure; whether there are attempts left."""
        self._failures[key] += 1
        pause = min(self.first_pause * 2.0 ** min(self._failures[key] - 1, 30), _LONGEST_PAUSE)
        self._due[key] = self.clock() + pause
        return self._failures[key] < self.attempts

    def succeeded(self, key: Hashable) -> None:
        self._failures.pop(key, None)
        self._due.pop(key, None)
