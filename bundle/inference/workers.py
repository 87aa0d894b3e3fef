"""Cases over several processes. Each takes one case after the other, and one that dies costs its own case alone.

The pool of concurrent.futures gives up every case when a process dies; Pebble's does so where none is at work yet.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from bundle.cases import CaseReference

Task = Callable[[CaseReference], dict[str, Any]]
_PATIENCE = 10.0  # seconds for a process to tidy up before it is killed


@dataclass
class _Worker:
    """A process, the parent's end of the pipe to it, and the case it is at."""

    process: BaseProcess
    connection: Connection
    ready: bool = False
    case: CaseReference | None = None


class Workers:
    """The results of cases in the order in which they are done.

    Processes are spawned. Forked from this one they would take along locks of OpenMP and contexts of CUDA that do not
    work in them; a server to fork them from unpickles what comes through a socket, which Python before 3.10.9 and
    3.11.0 leave open to other users of the machine.

    Args:
        references: the cases.
        task: what is done with each, in another process; must never raise for what is wrong with a case.
        lost: case, what ended its process -> its result, in this process.
        jobs: how many processes.

    Raises:
        ValueError: `task` holds something that cannot be sent to another process.
    """

    def __init__(
        self,
        references: Sequence[CaseReference],
        task: Task,
        lost: Callable[[CaseReference, str], dict[str, Any]],
        jobs: int,
    ) -> None:
        self.references = references
        self.lost = lost
        self.jobs = jobs
        self._workers: list[_Worker] = []
        try:
            # as bytes: tensors would go through shared memory otherwise, of which containers have little
            self._task = pickle.dumps(task)
        except Exception as error:
            raise ValueError(
                f"jobs: the configuration holds parts that cannot be sent to other processes ({error}); use 1"
            ) from error

    def __len__(self) -> int:
        return len(self.references)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        waiting = deque(self.references)
        try:
            self._workers = [self._started() for _ in range(min(self.jobs, len(waiting)))]
            while self._workers:
                for connection in wait([worker.connection for worker in self._workers]):
                    worker = next(one for one in self._workers if one.connection is connection)
                    result = self._answer(worker, waiting)
                    if result is not None:
                        yield result
            for case in waiting:
                yield self.lost(case, "no process could be started for it")
        finally:
            self.close()

    def _answer(self, worker: _Worker, waiting: deque[CaseReference]) -> dict[str, Any] | None:
        """What a process has to say, a result or that it is ready; it gets the next case, or ends."""
        case, worker.case = worker.case, None
        try:
            result: dict[str, Any] | None = worker.connection.recv()
            worker.ready = True
            if waiting:
                worker.case = waiting.popleft()
                worker.connection.send(worker.case)
            else:
                self._ended(worker)
            return result
        except (EOFError, OSError):
            given, worker.case = worker.case, None
            if given is not None:  # it died between two cases
                waiting.appendleft(given)
                self._replace(worker, waiting)
                return result
            ended = self._replace(worker, waiting)
            return None if case is None else self.lost(case, ended)

    def _replace(self, worker: _Worker, waiting: deque[CaseReference]) -> str:
        """Put another process in the place of one that died, unless it died before it could begin; says how it died."""
        code = self._ended(worker)
        if worker.ready and waiting:
            self._workers.append(self._started())
        if code is not None and code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with code {code}"

    def _ended(self, worker: _Worker) -> int | None:
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.join()
        return worker.process.exitcode

    def _started(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        threads = max(1, torch.get_num_threads() // self.jobs)
        arguments = (theirs, self._task, threads, logging.root.manager.disable)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends when the process does
        return _Worker(process, ours)

    def close(self) -> None:
        """End all processes; what they are at is given up, and no half of it is left."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(_PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()


def _work(connection: Connection, task: bytes, threads: int, disabled_logging: int) -> None:
    """The life of a process: says None when it is ready, then the result of each case it is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with what tidies up on the way
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.disable(disabled_logging)
    torch.set_num_threads(threads)
    # the parent's own object, through the pipe it spawned this process with: no bytes of a file or a request
    work: Task = pickle.loads(task)
    connection.send(None)
    try:
        while True:
            connection.send(work(connection.recv()))
    except EOFError:  # the parent has no more
        return


def _end_with_parent() -> None:
    """A process whose parent is killed must not go on writing into a folder that the next run writes into."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
