"""What the same cases cost by PyTorch, by torch.compile and by exported graphs, and how far their masks lie apart.

``python -m scripts.benchmarks.runtimes DIR... --cases DATALIST SPLIT COUNT ...`` evaluates the lists by each runtime
and prints a Markdown table (docs/export.md). DIR are folders that ``python -m bundle export`` wrote. Each runtime has a
process of its own; cases are evaluated twice, and seconds are those of the second time: reading, the network and
scoring. Memory is the peak above what was held before the network was loaded.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from torch import nn

from bundle.inference import find_cases
from scripts.benchmarks.evaluations import ROOT, evaluated, evaluation
from scripts.benchmarks.measuring import peak_memory

#: Of the network, those that run more than once a prompt.
_COMPILED = ("image_prior", "text_conditioning", "denoiser")


@dataclass(frozen=True)
class Candidate:
    """A way to run the network on a list of cases.

    Attributes:
        name: for the table.
        source: weights, or the folder of an export.
        datalist, split: of the cases.
        count: of the cases, taken at even distances in the list.
        configs: configuration files over configs/evaluate.yaml.
        compiled: by torch.compile.
    """

    name: str
    source: Path
    datalist: Path
    split: str
    count: int
    configs: tuple[Path, ...] = ()
    compiled: bool = False
    threads: int = 1


@dataclass(frozen=True)
class RunCost:
    """Dice with the ground truth in per cent, MiB at the peak, and of each case by its id seconds and mask."""

    dice: float | None
    memory_mib: float
    seconds: dict[str, float]
    masks: dict[str, NDArray[np.uint8]]


def measure(candidate: Candidate) -> RunCost:
    """Evaluate twice in this process.

    Raises:
        ValueError: `count` is below 1.
        RuntimeError: a case failed, or torch.compile finds no compiler.
    """
    if candidate.count < 1:
        raise ValueError(f"{candidate.count} cases were asked for; ask for at least 1")
    logging.disable(logging.WARNING)  # the table alone
    torch.set_num_threads(candidate.threads)
    exported = candidate.source.is_dir()
    configs = [*candidate.configs, *([ROOT / "configs" / "exported.yaml"] if exported else [])]
    cases = find_cases(candidate.datalist, split=candidate.split, strict=True)
    places = np.linspace(0, len(cases.references) - 1, min(candidate.count, len(cases.references)))
    with tempfile.TemporaryDirectory() as folder:
        workflow = evaluation(
            configs,
            Path(folder),
            cases=replace(
                cases, references=[cases.references[place] for place in places.round().astype(int)]
            ),
            split=candidate.split,
            text_modes=["on"],
            device=torch.device("cpu"),
            **{"export" if exported else "weights": candidate.source},
        )
        masks: dict[str, NDArray[np.uint8]] = {}

        def keep(engine: Engine) -> None:
            for prediction in engine.state.output.get("predictions", {}).values():
                masks[prediction.case.reference.id] = prediction.mask

        workflow.evaluator.add_event_handler(Events.ITERATION_COMPLETED, keep)
        if candidate.compiled:
            compile_parts(workflow.evaluator.network)
        memory = peak_memory(lambda: evaluated(workflow, Path(folder)))
        summary, seconds = evaluated(workflow, Path(folder))
    return RunCost(next(iter(summary["text"].values()))["dice"], memory, seconds, masks)


def compile_parts(network: nn.Module) -> None:
    """Let torch.compile make code for the parts that run more than once a prompt, when they are first used.

    Raises:
        RuntimeError: there is no C++ compiler.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise RuntimeError(
            f"torch.compile needs the C++ compiler {compiler}; install it, or name another in CXX."
        )
    for name in _COMPILED:
        part: nn.Module | None = getattr(network, name)
        if part is not None:
            part.compile(dynamic=False)  # open sizes end in an InductorError (PyTorch 2.13)


def measure_apart(candidate: Candidate) -> RunCost:
    """`measure` in a process of its own, which inherits no memory of another."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        return apart.submit(measure, candidate).result()


def same_dice(mask: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Dice of two label maps in per cent, over all labels together; 100 where both are empty."""
    labelled = np.count_nonzero(mask) + np.count_nonzero(other)
    return 200.0 * np.count_nonzero((mask == other) & (mask > 0)) / labelled if labelled else 100.0


def table(
    eager: Candidate, exports: Sequence[Path], measured: Callable[[Candidate], RunCost] = measure_apart
) -> Iterator[str]:
    """The rows of one list: eager PyTorch, torch.compile and each export; dashes where a runtime failed."""
    candidates = [
        eager,
        replace(eager, name="torch.compile", compiled=True),
        *(replace(eager, name=f"ONNX Runtime, {folder.name}", source=folder) for folder in exports),
    ]
    reference: RunCost | None = None
    for candidate in candidates:
        start = f"| {candidate.name} | {candidate.datalist.parent.name}, {candidate.split} |"
        try:
            cost = measured(candidate)
        except Exception as error:  # a runtime that is missing, or a process that was ended; the others go on
            first_line = (str(error).strip().splitlines() or [""])[0]
            print(f"failed: {candidate.name}: {type(error).__name__}: {first_line}", file=sys.stderr)
            yield f"{start}{' - |' * 6}"
            if reference is None:  # nothing to compare with
                return
            continue
        reference = reference or cost
        agreement = [same_dice(mask, reference.masks[case]) for case, mask in cost.masks.items()]
        dice = "" if cost.dice is None else f"{cost.dice:.2f}"
        yield (
            f"{start} {len(cost.masks)} | {statistics.mean(agreement):.3f} | {min(agreement):.3f} | {dice} "
            f"| {statistics.mean(cost.seconds.values()):.3f} | {cost.memory_mib:.0f} |"
        )


def main() -> int:
    """Print the table; returns 1 where a runtime failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exports", type=Path, nargs="*", metavar="DIR", help="ONNX graphs of the weights")
    parser.add_argument(
        "--cases",
        nargs=3,
        action="append",
        required=True,
        metavar=("DATALIST", "SPLIT", "COUNT"),
        help="at even distances in the list; repeatable",
    )
    parser.add_argument("--weights", type=Path, default=ROOT / "models" / "model.pt")
    parser.add_argument("--config", type=Path, action="append", default=[], help="over configs/evaluate.yaml")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    options = parser.parse_args()
    print(f"CPU, {options.threads} threads.\n")
    print("| runtime | list | cases | Dice with eager, mean | lowest | Dice | s a case | memory, MiB |")
    print("|---" * 8 + "|")
    failed = False
    for datalist, split, count in options.cases:
        eager = Candidate(
            "eager",
            options.weights,
            Path(datalist).resolve(),
            split,
            int(count),
            tuple(options.config),
            threads=options.threads,
        )
        for line in table(eager, options.exports):
            print(line, flush=True)
            failed = failed or " - |" in line
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
