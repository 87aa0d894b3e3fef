"""Cases over the machines of a Ray cluster, or over processes that Ray starts on this one.

Actors hold the network and write each case's folder themselves, whole or not at all, to storage that all machines
share; this process alone keeps journal and record. A case whose actor dies is done again by another, so that a case may
be begun more than once and is recorded once.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from bundle.cases import CaseError, CaseReference
from bundle.inference.workers import Task
from bundle.root import IMPORTED_FROM

_TRIES = 3  # of a case that its actors die of
_STARTS = 3  # failed ones in a row, after which there is no further one
_STORE = 128 * 2**20  # bytes of Ray's object store on this machine: the network is all that goes through it
_PATIENCE = 60.0  # seconds without any actor, after which this is said


class MovableTask(Protocol):
    """What is done with each case, on any device."""

    def on(self, device: torch.device) -> Task:
        """The same there."""


@dataclass(frozen=True)
class Actors:
    """What a cluster sets aside for each actor.

    Args:
        address: of the cluster: 'auto' on one of its machines, 'ray://host:10001' from elsewhere; None starts Ray on
            this machine, for this run alone.
        cpus: cores, and threads of the network.
        gpus: a whole number or a share of one; None for one where the run's device is a GPU.
        memory: GB; None asks for none.

    Raises:
        ValueError: one is no such number.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float | None = None
    memory: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("cpus", 0), ("gpus", 0), ("memory", 0)):
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (is_number and least <= value < math.inf):
                raise ValueError(f"actor_{name} must be a number of at least {least}, not {value!r}")

    @property
    def shown(self) -> dict[str, float]:
        """What each gets, without the cluster's address."""
        each = {"cpus": self.cpus, "gpus": self.gpus, "memory": self.memory}
        return {name: value for name, value in each.items() if value is not None}

    def gpus_for(self, device: torch.device) -> float:
        """GPUs of each, in a run on `device`."""
        return (0.0 if device.type == "cpu" else 1.0) if self.gpus is None else float(self.gpus)


@dataclass
class _Given:
    """An actor and the case that it is at; None while it starts."""

    actor: Any
    case: CaseReference | None = None


class RayActors:
    """The results of cases in the order in which they are done; see `bundle.inference.workers.Workers`.

    Args:
        references: the cases; their paths mean the same on all machines.
        task: what is done with each; must hold nothing on a GPU.
        lost: case, what ended its actors -> its result, in this process.
        jobs: how many actors; a cluster that has room for fewer begins with those, and one that grows adds the others.
        actors: what each of them gets.
        gpus: of each.

    Raises:
        CaseError: Ray is not installed, or cannot be reached.
        ValueError: `task` holds something that cannot be sent to another process.
    """

    def __init__(
        self,
        references: Sequence[CaseReference],
        task: MovableTask,
        lost: Callable[[CaseReference, str], dict[str, Any]],
        jobs: int,
        actors: Actors,
        gpus: float = 0.0,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            remedy = "pip install 'text-prior-diffusion-segmentation[ray]', or leave engine at local"
            raise CaseError("engine", "ray needs the package ray, which is not installed", remedy) from error
        self.ray: Any = ray
        self.references = references
        self.lost = lost
        self.jobs = jobs
        self.actors = actors
        self.gpus = gpus
        self._pending: dict[Any, _Given] = {}
        self._tries: dict[str, int] = {}
        self._failed_starts = 0
        self._why = "Ray gave no reason"
        try:
            self._task = pickle.dumps(task)
        except Exception as error:
            raise ValueError(
                f"engine: the configuration holds parts that cannot be sent to other processes ({error}); "
                "use local"
            ) from error
        # at once, since what cannot be reached is no run that failed, but one that could not be started
        self._is_connected = False
        if references:
            self._connect()

    def __len__(self) -> int:
        return len(self.references)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.references:
            return  # asked for anything, Ray would start
        waiting = deque(self.references)
        try:
            task = self.ray.put(self._task)
            for _ in range(min(self.jobs, len(waiting))):
                self._start(task)
            has_begun = False
            while self._pending:
                ready, _ = self.ray.wait(list(self._pending), timeout=None if has_begun else _PATIENCE)
                if not ready:
                    has_begun = True
                    print(f"note: waiting for {self._wanted()}.", file=sys.stderr)
                for reference in ready:
                    has_begun = True
                    result = self._answer(self._pending.pop(reference), reference, waiting, task)
                    if result is not None:
                        yield result
            for case in waiting:
                yield self.lost(case, f"no actor could be started for it: {self._why}")
        finally:
            self.close()

    def _answer(
        self, given: _Given, answer: Any, waiting: deque[CaseReference], task: Any
    ) -> dict[str, Any] | None:
        """What an actor has to say, a result or that it is ready; it gets the next case, or one takes its place."""
        result: dict[str, Any] | None = None
        exceptions = self.ray.exceptions
        lives = True
        try:
            result = self.ray.get(answer)
            self._failed_starts = 0
        except exceptions.RayError as error:
            # with any other error nobody knows whether it goes on, and no two may write one folder
            lives = isinstance(error, exceptions.RayTaskError) and given.case is not None
            self._why = _reason(error)
            if given.case is None:
                self._failed_starts += 1
            elif self._is_given_up(given.case, error, waiting):
                result = self.lost(given.case, f"{_TRIES} tries ended so: {self._why}")
        if lives and waiting:
            case = waiting.popleft()
            self._pending[given.actor.segment.remote(case)] = _Given(given.actor, case)
        else:
            self.ray.kill(given.actor)
            if waiting and self._failed_starts < _STARTS:
                self._start(task)
        return result

    def _is_given_up(self, case: CaseReference, error: Exception, waiting: deque[CaseReference]) -> bool:
        """Have a case done again that its actor died of, unless that has been tried often enough."""
        if not getattr(
            error, "preempted", False
        ):  # a machine that the cluster took back is no fault of the case
            self._tries[case.id] = self._tries.get(case.id, 0) + 1
        if self._tries.get(case.id, 0) < _TRIES:
            waiting.append(case)  # behind the others, which it may hold up
            return False
        return True

    def _start(self, task: Any) -> None:
        options: dict[str, Any] = {"num_cpus": self.actors.cpus, "num_gpus": self.gpus}
        if self.actors.memory is not None:
            options["memory"] = int(self.actors.memory * 1e9)
        # what starts again, and how often, is decided here
        kind = self.ray.remote(_Actor).options(**options, max_restarts=0, max_task_retries=0)
        threads = max(1, int(self.actors.cpus))
        actor = kind.remote(task, threads, self.gpus > 0, logging.root.manager.disable)
        self._pending[actor.ready.remote()] = _Given(actor)

    def _wanted(self) -> str:
        gpus = f", {self.gpus:g} GPUs" if self.gpus else ""
        memory = f", {self.actors.memory:g} GB" if self.actors.memory is not None else ""
        return (
            f"{self.jobs} actors of {self.actors.cpus:g} cores{gpus}{memory} each, which the cluster "
            "has no room for yet or is starting"
        )

    def _connect(self) -> None:
        # nothing about a run leaves the cluster
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray 2 keeps a handler of SIGTERM, and the one of the run is to hold
        main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGTERM) if main else None
        shared: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self.actors.address is None:
                path = os.pathsep.join(filter(None, (str(IMPORTED_FROM), os.environ.get("PYTHONPATH"))))
                self.ray.init(
                    address="local",
                    num_cpus=max(1, math.ceil(min(self.jobs, len(self)) * self.actors.cpus)),
                    include_dashboard=False,
                    object_store_memory=_STORE + 2 * len(self._task),
                    runtime_env={"env_vars": {"PYTHONPATH": path}},
                    **shared,
                )
            else:
                self.ray.init(address=self.actors.address, **shared)
            self._is_connected = True
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            remedy = "start it, or correct ray_address"
            place = self.actors.address or "this machine"
            raise CaseError(place, f"Ray could not be reached ({_reason(error)})", remedy) from error
        finally:
            if main and handler is not None:
                signal.signal(signal.SIGTERM, handler)

    def close(self) -> None:
        """End all actors; what they are at is given up."""
        pending, self._pending = self._pending, {}
        if not self._is_connected:
            return
        for given in pending.values():
            self.ray.kill(given.actor)
        self.ray.shutdown()
        self._is_connected = False
        for given in pending.values():
            if given.case is not None:
                self.lost(given.case, "given up")  # which removes what is half done


class _Actor:
    """The life of an actor: it is ready once it holds the network, and then does case after case."""

    def __init__(self, task: bytes, threads: int, gpu: bool, disabled_logging: int) -> None:
        logging.disable(disabled_logging)
        torch.set_num_threads(threads)
        # the driver's own object, through the cluster that runs the driver's code anyway
        movable: Any = pickle.loads(task)
        self.task: Task = movable.on(torch.device("cuda" if gpu else "cpu"))

    def ready(self) -> None:
        """Answered when the network is there."""

    def segment(self, reference: CaseReference) -> dict[str, Any]:
        return self.task(reference)


def _reason(error: BaseException) -> str:
    """A line of what Ray says in many: of an error in an actor's own code that error, else the first one."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if "Traceback" in str(error) or "ray::" in lines[0] else 0].strip(" .:")
