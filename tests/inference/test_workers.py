"""Several processes: what one of them dies of costs its own case alone."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bundle.cases import CaseReference
from bundle.inference.workers import Workers


@dataclass(frozen=True)
class Doubling:
    """Gives the case's number twice; 'killed' and 'left' end the process."""

    offset: int = 0

    def __call__(self, reference: CaseReference) -> dict[str, Any]:
        if reference.id.startswith("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if reference.id.startswith("left"):
            os._exit(3)
        return {"id": reference.id, "value": 2 * int(reference.id) + self.offset, "process": os.getpid()}


@dataclass(frozen=True)
class Unreadable:
    """Can be sent, and kills who unpacks it."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return os._exit, (4,)


def references(*ids: str) -> list[CaseReference]:
    return [CaseReference(one, Path(one)) for one in ids]


def lost(reference: CaseReference, ended: str) -> dict[str, Any]:
    return {"id": reference.id, "lost": ended}


def test_a_case_that_kills_its_process_is_lost_and_all_others_are_done() -> None:
    cases = references("1", "killed", "2", "3", "left", "4", "5")
    workers = Workers(cases, Doubling(offset=1), lost, jobs=2)
    assert len(workers) == 7
    found = {one["id"]: one for one in workers}
    assert {key: one["value"] for key, one in found.items() if "value" in one} == {
        str(number): 2 * number + 1 for number in range(1, 6)
    }
    assert found["killed"]["lost"] == "its process was ended by SIGKILL"
    assert found["left"]["lost"] == "its process ended with code 3"
    assert not {one["process"] for one in found.values() if "process" in one} & {os.getpid()}


def test_processes_that_cannot_begin_lose_every_case_and_end() -> None:
    found = list(Workers(references("1", "2", "3"), Unreadable(), lost, jobs=2))  # type: ignore[arg-type]
    assert found == [
        {"id": number, "lost": "no process could be started for it"} for number in ("1", "2", "3")
    ]


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(ValueError, match="jobs: the configuration holds parts that cannot be sent"):
        Workers([], lambda reference: {}, lost, jobs=2)
