"""What the same cases cost by PyTorch, by torch.compile and by exported graphs, and how far their masks lie apart.

Cases go the whole way that evaluation takes; what is timed is the network on images that have been read, with its
steps, members, mirrored images, slices and tiles.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from torch import Tensor, nn

from bundle.cases import CaseError, CaseReference, collect_cases
from bundle.cases.case import Case
from bundle.cases.modality import MODALITIES, Modality
from bundle.scoring.encoder_cost import peak_memory
from bundle.scoring.handler import Scoring
from bundle.scoring.metrics import Score
from bundle.scoring.summary import summarise
from bundle.transforms import reference_item

Runtime = Literal["eager", "torch.compile", "ONNX Runtime"]
_ROOT = Path(__file__).resolve().parents[2]
#: Of the network, those that run more than once a prompt.
_COMPILED = ("image_prior", "guidance", "denoiser")
_EVERY = "all"


@dataclass(frozen=True)
class CaseList:
    """Cases of a datalist.

    Attributes:
        datalist: the JSON file.
        split: list of it.
        count: how many, taken at even distances.
    """

    datalist: Path
    split: str
    count: int

    def references(self) -> list[CaseReference]:
        """The cases.

        Raises:
            CaseError: the list cannot be read, or names something that cannot be used, or `count` is below 1.
        """
        if self.count < 1:
            raise CaseError(self.datalist, f"{self.count} cases were asked for", "ask for at least 1")
        found, failures = collect_cases(self.datalist, split=self.split)
        if failures:
            raise CaseError(self.datalist, f"has a case that cannot be used ({failures[0].error})", "mend it")
        places = np.linspace(0, len(found) - 1, min(self.count, len(found))).round().astype(int)
        return [found[place] for place in places]


@dataclass(frozen=True)
class Candidate:
    """A way to run the network.

    Attributes:
        runtime: by what.
        source: weights, or the folder of an export.
        lists: of cases.
        configs: configuration files over configs/inference.yaml.
        threads: of the CPU.
    """

    runtime: Runtime
    source: Path
    lists: tuple[CaseList, ...]
    configs: tuple[Path, ...] = ()
    threads: int = 1


@dataclass(frozen=True)
class CaseRun:
    """One case.

    Attributes:
        modality: of the image.
        images: 1 for a picture, slices of the network's grid for a volume.
        seconds: in the network, in the second pass.
        mask: uint8, on the input's own grid.
        scores: against the truth, a label each; none where there is no truth.
    """

    modality: Modality
    images: int
    seconds: float
    mask: NDArray[np.uint8]
    scores: Sequence[Score]


@dataclass(frozen=True)
class RunCost:
    """What was measured.

    Attributes:
        first: seconds of loading the network and of the first pass over all cases.
        memory_mib: at the peak of these, above what was held with all images read.
        cases: in the order of the lists.
    """

    first: float
    memory_mib: float
    cases: Sequence[CaseRun]


def measure(candidate: Candidate) -> RunCost:
    """Load the network and segment all cases twice, in this process; the masks are those of the second pass.

    Raises:
        CaseError: a case that cannot be read or does not fit its truth.
        RuntimeError: torch.compile finds no compiler.
    """
    if candidate.runtime == "torch.compile":
        check_compiler()
    torch.set_num_threads(candidate.threads)
    parser = _configuration(candidate)
    preprocessing = parser.get_parsed_content("preprocessing")
    references = [reference for one in candidate.lists for reference in one.references()]
    items = [preprocessing(reference_item(reference)) for reference in references]
    inferer = parser.get_parsed_content("inferer")
    loaded: list[nn.Module] = []
    results: list[Tensor] = []
    durations: list[float] = []

    def run() -> None:
        if not loaded:
            loaded.append(_network(parser, candidate.runtime))
        results.clear()
        durations.clear()
        for item in items:
            started = time.perf_counter()
            results.append(inferer(item["image"][None], loaded[0])[0])
            durations.append(time.perf_counter() - started)

    started = time.perf_counter()
    memory = peak_memory(run, "cpu")
    first = time.perf_counter() - started
    run()
    postprocessing = parser.get_parsed_content("postprocessing")
    scoring = Scoring(parser.get_parsed_content("structure_set"), modes=("on",), spacing_is_true=False)
    cases = []
    for item, result, seconds in zip(items, results, durations, strict=True):
        case: Case = item["case"]
        images = item["image"].shape[-1] if case.is_volume else 1
        prediction = postprocessing({**item, "pred": result})["prediction"]
        scoring.scores = []
        if case.reference.label is not None:
            scoring.score({"on": prediction})
        cases.append(CaseRun(case.modality, images, seconds, prediction.mask, scoring.scores))
    return RunCost(first, memory, cases)


def check_compiler() -> None:
    """Raise where torch.compile has no C++ compiler to make code for the CPU with.

    Raises:
        RuntimeError: there is none.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise RuntimeError(
            f"torch.compile needs the C++ compiler {compiler}; install it, or name another in CXX."
        )


def measure_apart(candidate: Candidate) -> RunCost:
    """`measure` in a process of its own, which inherits no memory of another."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        return apart.submit(measure, candidate).result()


def export_table(
    candidate: Candidate,
    exports: Sequence[Path],
    measured: Callable[[Candidate], RunCost] = measure_apart,
) -> Iterator[str]:
    """The lines of a Markdown table: rows for eager, torch.compile and each export.

    Args:
        candidate: eager, with weights.
        exports: folders with ONNX graphs of the same weights.
        measured: what makes the measurements.
    """
    yield (
        f"CPU, {candidate.threads} threads. Dice in per cent: with eager's mask, all structures of a case together; "
        "with the truth, as evaluation has it. Seconds are the network's, in a second pass over all cases, by images: "
        "pictures, or slices of volumes. Memory is the peak above what was held with all images read."
    )
    yield ""
    yield (
        "| runtime | modality | cases | images | Dice with eager, mean | lowest | Dice with the truth "
        "| s an image | loading and first pass, s | memory, MiB |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    rows = [("eager", candidate), ("torch.compile", replace(candidate, runtime="torch.compile"))]
    rows += [
        (f"ONNX Runtime, {folder.name}", replace(candidate, runtime="ONNX Runtime", source=folder))
        for folder in exports
    ]
    reference: RunCost | None = None
    for name, row in rows:
        try:
            cost = measured(row)
        except Exception as error:  # a runtime that is missing, or a process that was ended; the others go on
            first_line = (str(error).strip().splitlines() or [""])[0]
            print(f"failed: {name}: {type(error).__name__}: {first_line}", file=sys.stderr)
            yield f"| {name} |" + " - |" * 9
            if reference is None:  # nothing to compare with
                return
            continue
        reference = reference or cost
        yield from _lines(name, cost, reference)


def _lines(name: str, cost: RunCost, reference: RunCost) -> Iterator[str]:
    """A row a modality, and one over all."""
    agreement = [
        same_dice(case.mask, other.mask) for case, other in zip(cost.cases, reference.cases, strict=True)
    ]
    shown = [modality for modality in MODALITIES if any(case.modality == modality for case in cost.cases)]
    for modality in (*shown, _EVERY):
        chosen = [place for place, case in enumerate(cost.cases) if modality in (case.modality, _EVERY)]
        cases = [cost.cases[place] for place in chosen]
        dices = [agreement[place] for place in chosen]
        images = sum(case.images for case in cases)
        seconds = sum(case.seconds for case in cases) / images
        truth: float | None = None
        whole = f"{cost.first:.1f} | {cost.memory_mib:.0f}"
        if modality != _EVERY:  # a mean over modalities says nothing of any
            truth, whole = summarise([score for case in cases for score in case.scores])["dice"], " | "
        yield (
            f"| {name} | {modality} | {len(cases)} | {images} | {statistics.mean(dices):.3f} | {min(dices):.3f} "
            f"| {'' if truth is None else f'{truth:.2f}'} | {seconds:.3f} | {whole} |"
        )


def same_dice(mask: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Dice of two label maps in per cent, over all labels together: what both give the same label counts.

    Args:
        mask, other: of one shape, 0 for background.

    Returns:
        100 where both are empty.
    """
    labelled = int((mask > 0).sum()) + int((other > 0).sum())
    return 200.0 * int(((mask == other) & (mask > 0)).sum()) / labelled if labelled else 100.0


def _configuration(candidate: Candidate) -> ConfigParser:
    files = [_ROOT / "configs" / "inference.yaml", *candidate.configs]
    exported = candidate.runtime == "ONNX Runtime"
    if exported:
        files.append(_ROOT / "configs" / "exported.yaml")
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    # as objects, not as strings, so that nothing in a path is evaluated
    parser.set(candidate.source, "export" if exported else "weights")
    parser.set(_ROOT, "bundle_root")
    parser.set(torch.device("cpu"), "device")
    return parser


def _network(parser: ConfigParser, runtime: Runtime) -> nn.Module:
    """The network with its weights, in parts compiled where that is the runtime."""
    network: Any = parser.get_parsed_content("network")
    if runtime == "torch.compile":
        for name in _COMPILED:
            part = getattr(network, name)
            if part is not None:
                part.compile(dynamic=False)  # open sizes end in an InductorError (PyTorch 2.13)
    return network.eval()
