"""What one batch costs by PyTorch, by torch.compile and by exported graphs, and how far their results lie apart."""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from bundle.cases.phantoms import xray_phantom
from bundle.diffusion.sampling import Sampling
from bundle.networks.protocol import Segmenter
from bundle.scoring.encoder_cost import peak_memory

Runtime = Literal["eager", "torch.compile", "ONNX Runtime"]
_ROOT = Path(__file__).resolve().parents[2]
_PROMPT = "infection of the left lung"


@dataclass(frozen=True)
class Candidate:
    """A way to run the network.

    Attributes:
        runtime: by what.
        source: weights, or the folder of an export.
        configs: configuration files over configs/inference.yaml.
        images, side: of the batch, in pixels.
        steps: evaluations of the denoiser.
        repeats: timed passes after the first.
        threads: of the CPU.
    """

    runtime: Runtime
    source: Path
    configs: tuple[Path, ...] = ()
    images: int = 8
    side: int = 160
    steps: int = 2
    repeats: int = 5
    threads: int = 1


@dataclass(frozen=True)
class RunCost:
    """What was measured.

    Attributes:
        first, later: seconds of loading with the first pass, and median of the later passes.
        memory_mib: at the peak of loading and passes, above what was resident before.
        probability: (B, classes, H, W) of the last step.
    """

    first: float
    later: float
    memory_mib: float
    probability: Tensor


def measure(candidate: Candidate) -> RunCost:
    """Load the network and segment phantoms, in this process."""
    torch.set_num_threads(candidate.threads)
    pictures = [
        torch.from_numpy(xray_phantom(seed, size=candidate.side).image) for seed in range(candidate.images)
    ]
    image = torch.stack(pictures)[:, None].float().expand(-1, 3, -1, -1) / 255.0
    keys = [str(index) for index in range(len(image))]
    sampling = Sampling(steps=candidate.steps)
    loaded: list[Segmenter] = []

    @torch.inference_mode()
    def run() -> Tensor:
        if not loaded:
            loaded.append(_load(candidate))
        return loaded[0].predict(image, keys, sampling, prompts=[_PROMPT] * len(image))[-1]

    started = time.perf_counter()
    memory = peak_memory(run, "cpu")
    first = time.perf_counter() - started
    durations = []
    for _ in range(candidate.repeats):
        started = time.perf_counter()
        probability = run()
        durations.append(time.perf_counter() - started)
    return RunCost(first, statistics.median(durations), memory, probability)


def export_table(candidate: Candidate, exports: list[Path]) -> Iterator[str]:
    """The lines of a Markdown table: a row for eager, torch.compile and each export, each in a process of its own.

    Args:
        candidate: eager, with weights.
        exports: folders with ONNX graphs of the same weights.
    """
    yield (
        f"{candidate.images} images of {candidate.side} x {candidate.side}, {candidate.steps} steps, CPU, "
        f"{candidate.threads} threads; median of {candidate.repeats} passes; memory is the peak above what importing "
        "took; difference is the largest of a probability from eager's, labels the share of pixels with eager's."
    )
    yield ""
    yield "| runtime | first pass with loading, s | later passes, s | memory, MiB | difference | same labels, % |"
    yield "|---|---|---|---|---|---|"
    rows = [("eager", candidate), ("torch.compile", replace(candidate, runtime="torch.compile"))]
    rows += [
        (f"ONNX Runtime, {folder.name}", replace(candidate, runtime="ONNX Runtime", source=folder))
        for folder in exports
    ]
    reference: Tensor | None = None
    for name, row in rows:
        try:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
                cost = apart.submit(measure, row).result()
        except (
            Exception
        ) as error:  # of a runtime that is missing, or whose process was ended; the others go on
            print(f"failed: {name}: {type(error).__name__}: {error}", file=sys.stderr)
            yield f"| {name} | - | - | - | - | - |"
            continue
        reference = cost.probability if reference is None else reference
        difference = float((cost.probability - reference).abs().max())
        same = float((cost.probability.argmax(1) == reference.argmax(1)).float().mean())
        yield (
            f"| {name} | {cost.first:.1f} | {cost.later:.3f} | {cost.memory_mib:.0f} | {difference:.1e} "
            f"| {100.0 * same:.3f} |"
        )


def _load(candidate: Candidate) -> Segmenter:
    if candidate.runtime == "ONNX Runtime":
        from bundle.networks.onnx_segmenter import OnnxSegmenter

        return OnnxSegmenter(candidate.source)
    parser = ConfigParser()
    parser.read_config([str(_ROOT / "configs" / "inference.yaml"), *map(str, candidate.configs)])
    parser.set(candidate.source, "weights")
    parser.set(_ROOT, "bundle_root")
    parser.set(torch.device("cpu"), "device")
    network = parser.get_parsed_content("network")
    if candidate.runtime == "torch.compile":
        for name in ("image_prior", "guidance", "denoiser"):
            part = getattr(network, name)
            if part is not None:
                part.compile()
    return cast(Segmenter, network)
