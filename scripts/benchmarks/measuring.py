"""Seconds and peak memory of what a benchmark runs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import psutil
import torch
from torch.utils.benchmark import Timer

_MIB = 2**20
_SAMPLING = 0.002  # seconds


def median_seconds(run: Callable[[], object], at_least: float, threads: int) -> float:
    """Median of as many runs as `at_least` seconds hold, and of one at the least."""
    timer = Timer("run()", globals={"run": run}, num_threads=threads)
    return float(timer.blocked_autorange(min_run_time=at_least).median)


def peak_memory(run: Callable[[], object], device: str = "cpu") -> float:
    """MiB that a run needs above what is held before it."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / _MIB
    # what building the network freed is kept by the C library, and a run that reuses it would seem to need none
    psutil.heap_trim()
    process, done = psutil.Process(), threading.Event()
    peak = before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(_SAMPLING):
            peak = max(peak, process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        run()
    finally:
        done.set()
        watching.join()
    return (max(peak, process.memory_info().rss) - before) / _MIB
