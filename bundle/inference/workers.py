"""Cases over several processes. Each takes one case after the other, and one that dies costs its own case alone."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

import torch

from bundle.cases import CaseReference

Task = Callable[[CaseReference], dict[str, Any]]
_PATIENCE = 10.0  # seconds for a process to tidy up before it is killed


class Workers:
    """The results of cases in the order in which they are done.

    Pebble's pool says which case a process died of and goes on; that of `concurrent.futures` gives up all cases.

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
        self._pool: Any = None
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
        from pebble import CONSTS, ProcessExpired, ProcessPool  # nothing but several jobs needs it

        CONSTS.term_timeout = _PATIENCE
        jobs = min(self.jobs, len(self.references))
        arguments = (self._task, max(1, torch.get_num_threads() // self.jobs), logging.root.manager.disable)
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPool(jobs, initializer=_begin, initargs=arguments, context=context)
        try:
            cases = {self._pool.schedule(_work, (case,)): case for case in self.references}
            for future in as_completed(cases):
                try:
                    result = future.result()
                except ProcessExpired as error:
                    result = self.lost(cases[future], _how(error.exitcode))
                except BrokenProcessPool:
                    result = self.lost(cases[future], "no process could be started for it")
                yield result
        finally:
            self.close()

    def close(self) -> None:
        """End all processes; what they are at is given up, and no half of it is left."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()


def _how(code: int) -> str:
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}"


_work_of_this_process: Task


def _begin(task: bytes, threads: int, disabled_logging: int) -> None:
    """Prepare a process, which ignores Ctrl-C, since it reaches all and the parent decides."""
    global _work_of_this_process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with what tidies up on the way
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.disable(disabled_logging)
    torch.set_num_threads(threads)
    # the parent's own object, through the pipe it spawned this process with: no bytes of a file or a request
    _work_of_this_process = pickle.loads(task)


def _work(case: CaseReference) -> dict[str, Any]:
    return _work_of_this_process(case)


def _end_with_parent() -> None:
    """A process whose parent is killed must not go on writing into a folder that the next run writes into."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
