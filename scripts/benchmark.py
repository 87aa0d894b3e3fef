"""What steps, members and caching cost and bring.

``python scripts/benchmark.py steps --datalist FILE --split NAME [--data-config FILE]`` prints Dice against seconds
for several numbers of steps and members. ``python scripts/benchmark.py prior`` prints what it saves to run the
image prior once, for MedCondDiff's published sizes and for the shipped network.
``python scripts/benchmark.py encoders`` prints seconds and memory of reading notes with BERT-base and
ModernBERT-base; ``--lengths 32 128`` cuts it short. ``python scripts/benchmark.py kept`` prints what an epoch of
FastTextDiff's training costs with and without keeping what the frozen encoders made.
``python scripts/benchmark.py exports [DIR...] --cases DATALIST SPLIT COUNT ...`` compares the masks, seconds and memory
of PyTorch, torch.compile and ONNX Runtime on the same cases (docs/export.md). DIR are folders that ``python -m bundle
export`` wrote; without, graphs with 32-bit and 8-bit weights are exported first. Without ``--cases`` phantoms are
segmented.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from monai.bundle import ConfigParser, ConfigWorkflow  # noqa: E402

from bundle.cases.modality import MODALITIES  # noqa: E402
from bundle.diffusion.sampler import seeded_noise  # noqa: E402
from bundle.diffusion.sampling import Sampling, sample_members  # noqa: E402
from bundle.networks import DiffusionSegmenter  # noqa: E402
from bundle.phantoms import write_phantoms  # noqa: E402
from bundle.scoring.encoder_cost import cost_table  # noqa: E402
from bundle.scoring.export_cost import Candidate, CaseList, export_table  # noqa: E402


def steps_table(arguments: argparse.Namespace) -> None:
    """Evaluate with each setting and print a row for each."""
    print(
        "| sampler | steps | members | Dice | s a case | times the first row | ECE | most certain quarter | least |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    first: float | None = None
    for sampler, placement in (("ddim", "log_snr"), ("ancestral", "time")):
        for members in arguments.members:
            for steps in arguments.steps:
                if sampler == "ancestral" and (members > 1 or steps == 1):
                    continue
                summary, seconds = evaluated(arguments, steps, members, sampler, placement)
                first = first or seconds
                sure = summary["uncertainty"]
                print(
                    f"| {sampler}, {placement} | {steps} | {members} | {summary['text']['off']['dice']:.2f} "
                    f"| {seconds:.2f} | {seconds / first:.2f} | {sure['expected_calibration_error']:.2f} "
                    f"| {sure['dice_most_certain']:.1f} | {sure['dice_least_certain']:.1f} |",
                    flush=True,
                )


def evaluated(
    arguments: argparse.Namespace, steps: int, members: int, sampler: str, placement: str
) -> tuple[dict, float]:
    """summary.json and the mean seconds a case of one evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        workflow = ConfigWorkflow(
            config_file=[str(ROOT / "configs" / "evaluate.yaml"), *map(str, arguments.data_config)],
            logging_file=False,
            workflow_type="inference",
            bundle_root=ROOT,
            weights=arguments.weights,
            datalist=arguments.datalist,
            split=arguments.split,
            output_dir=folder,
            steps=steps,
            members=members,
            sampler=sampler,
            placement=placement,
            progress=False,
        )
        workflow.initialize()
        workflow.evaluator.run()
        run = json.loads((Path(folder) / "run.json").read_text())
        seconds = [case["seconds"] for case in run["cases"] if case["status"] == "done"]
        return json.loads((Path(folder) / "summary.json").read_text()), sum(seconds) / len(seconds)


def prior_table(arguments: argparse.Namespace) -> None:
    """Time sampling with the prior run once an image and again at every step."""
    print("| network | pixels | steps | prior once, s | prior every step, s | ratio | largest difference |")
    print("|---|---|---|---|---|---|---|")
    for name, files, pixels in (
        ("MedCondDiff, B1", ["inference.yaml", "medconddiff.yaml"], 352),
        ("shipped", ["inference.yaml"], 128),
    ):
        parser = ConfigParser()
        parser.read_config([str(ROOT / "configs" / file) for file in files])
        network: DiffusionSegmenter = parser.get_parsed_content("network_def").eval()
        image = torch.rand(1, 3, pixels, pixels)
        for steps in arguments.steps:
            sampling = Sampling(steps=steps, sampler="ddim")
            once, kept = timed(lambda: network.predict(image, ["case"], sampling), arguments.repeats)  # noqa: B023
            again, naive = timed(lambda: prior_every_step(network, image, sampling), arguments.repeats)  # noqa: B023
            difference = float((kept - naive).abs().max())
            print(
                f"| {name} | {pixels} | {steps} | {once:.3f} | {again:.3f} | {again / once:.2f} | {difference:.1e} |",
                flush=True,
            )


def prior_every_step(network: DiffusionSegmenter, image: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """What `DiffusionSegmenter.predict` does, the slow way of the published sampler."""

    def denoiser(x_t: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return network.denoise(x_t, log_snr, network.encode(image)).softmax(dim=1) * 2.0 - 1.0

    noise = seeded_noise(sampling.seed, ["case/member 0"], (network.classes, *image.shape[-2:]))
    return (sample_members(denoiser, [noise], network.schedule, sampling) + 1.0) / 2.0


@torch.inference_mode()
def timed(function: Callable[[], torch.Tensor], repeats: int) -> tuple[float, torch.Tensor]:
    """The shortest of several runs in seconds, and the result."""
    function()
    durations = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = function()
        durations.append(time.perf_counter() - started)
    return min(durations), result


def encoders_table(arguments: argparse.Namespace) -> None:
    """Print what BERT-base and ModernBERT-base cost; exit code 1 where a measurement failed."""
    failed = False
    for line in cost_table(
        arguments.lengths,
        notes=arguments.batch,
        repeats=arguments.repeats,
        warm_up=arguments.warm_up,
        threads=arguments.threads,
        device=arguments.device,
        progress=True,
    ):
        print(line, flush=True)
        failed = failed or "| - |" in line
    if failed:
        raise SystemExit(1)


def kept_table(arguments: argparse.Namespace) -> None:
    """Time epochs of FastTextDiff over the same images and notes, keeping more and more of the encoders' work."""
    words = ["infection", "of", "the", "upper", "middle", "lower", "left", "right", "lung", "clear", "pleura"]
    notes = [" ".join(random.Random(i).choices(words, k=arguments.words)) for i in range(arguments.images)]
    images = torch.rand(arguments.images, 1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    print("| text encoder | kept | first epoch, s | later epochs, s | times fewer |")
    print("|---|---|---|---|---|")
    for layout in (None, "bert_base", "modernbert_base"):
        first: float | None = None
        for kept, texts, features in (
            ("nothing", False, False),
            ("texts", True, False),
            ("texts and image features", True, True),
        ):
            parser = ConfigParser()
            parser.read_config(
                [str(ROOT / "configs" / file) for file in ("inference.yaml", "fasttextdiff.yaml")]
            )
            parser["bundle_root"] = str(ROOT)
            parser["keep_texts"], parser["keep_features"] = texts, features
            if layout is not None:
                parser["text_encoder"], parser["text_layout"] = None, layout
            network = parser.get_parsed_content("network_def").train()
            optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
            seconds = []
            for _ in range(arguments.epochs):
                started = time.perf_counter()
                for image, note in zip(images, notes, strict=True):
                    optimizer.zero_grad()
                    network(image, [note], logits=True).square().mean().backward()
                    optimizer.step()
                seconds.append(time.perf_counter() - started)
            later = statistics.median(seconds[1:])
            first = first or later
            print(
                f"| {layout or 'embedded'} | {kept} | {seconds[0]:.2f} | {later:.2f} | {first / later:.2f} |",
                flush=True,
            )


def exports_table(arguments: argparse.Namespace) -> None:
    """Print what the cases cost by each runtime; exit code 1 where a measurement failed."""
    if not all(count.isdecimal() for _, _, count in arguments.cases):
        print("error: --cases: COUNT must be a whole number.", file=sys.stderr)
        raise SystemExit(2)
    with tempfile.TemporaryDirectory() as folder:
        lists = [CaseList(Path(file), split, int(count)) for file, split, count in arguments.cases]
        exports = arguments.exports or exported(arguments, Path(folder))
        candidate = Candidate(
            "eager",
            arguments.weights,
            tuple(lists or phantom_lists(Path(folder))),
            tuple(arguments.config),
            arguments.threads,
        )
        failed = False
        for line in export_table(candidate, exports):
            print(line, flush=True)
            failed = failed or "| - |" in line
    if failed:
        raise SystemExit(1)


def exported(arguments: argparse.Namespace, folder: Path) -> list[Path]:
    """The weights as ONNX graphs, as they are and with 8-bit weights."""
    options = [
        "--weights",
        arguments.weights,
        *(word for file in arguments.config for word in ("--config", file)),
    ]
    found = []
    for name, further in (("32 bits", []), ("8 bits", ["--quantise"])):
        command = [sys.executable, "-m", "bundle", "export", "--format", "onnx", "--output", folder / name]
        # a process of its own, since tracing leaves much in memory
        done = subprocess.run(
            [*map(str, [*command, *options, *further])], cwd=ROOT, stdout=sys.stderr, check=False
        )
        if done.returncode:
            raise SystemExit(done.returncode)
        found.append(folder / name)
    return found


def phantom_lists(folder: Path) -> list[CaseList]:
    """Two phantoms a modality that no training sees."""
    return [
        CaseList(
            write_phantoms(folder / f"phantoms {number}", modality, range(9000, 9002), "test"), "test", 2
        )
        for number, modality in enumerate(MODALITIES)
    ]


def main() -> None:
    """Read the command and print its table."""
    logging.disable(logging.WARNING)  # the table alone
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    steps = commands.add_parser("steps")
    steps.add_argument("--datalist", required=True)
    steps.add_argument("--split", default="validation")
    steps.add_argument("--data-config", type=Path, action="append", default=[])
    steps.add_argument("--weights", default=str(ROOT / "models" / "model.pt"))
    steps.add_argument("--steps", type=int, nargs="+", default=[1, 2, 5, 10])
    steps.add_argument("--members", type=int, nargs="+", default=[1, 4])
    prior = commands.add_parser("prior")
    prior.add_argument("--steps", type=int, nargs="+", default=[1, 2, 5, 10])
    prior.add_argument("--repeats", type=int, default=3)
    encoders = commands.add_parser("encoders")
    encoders.add_argument(
        "--lengths", type=int, nargs="+", default=[32, 128, 512, 2048, 8192], metavar="TOKENS"
    )
    encoders.add_argument("--batch", type=int, default=4, help="notes that are read together")
    encoders.add_argument("--repeats", type=int, default=5, help="timed passes, whose median is printed")
    encoders.add_argument("--warm-up", type=int, default=1, help="passes before them")
    encoders.add_argument("--threads", type=int, help="of the CPU; default: as PyTorch chooses")
    encoders.add_argument("--device", default="cpu", help="cpu or cuda")
    kept = commands.add_parser("kept")
    kept.add_argument("--images", type=int, default=12)
    kept.add_argument("--words", type=int, default=60, help="of a note")
    kept.add_argument("--epochs", type=int, default=3)
    exports = commands.add_parser("exports")
    exports.add_argument("exports", type=Path, nargs="*", metavar="DIR", help="ONNX graphs of the weights")
    exports.add_argument("--weights", type=Path, default=ROOT / "models" / "model.pt")
    exports.add_argument("--config", type=Path, action="append", default=[])
    exports.add_argument(
        "--cases",
        nargs=3,
        action="append",
        default=[],
        metavar=("DATALIST", "SPLIT", "COUNT"),
        help="at even distances in the list; repeatable",
    )
    exports.add_argument("--threads", type=int, default=1, help="of the CPU")
    arguments = parser.parse_args()
    tables = {
        "steps": steps_table,
        "prior": prior_table,
        "encoders": encoders_table,
        "kept": kept_table,
        "exports": exports_table,
    }
    tables[arguments.command](arguments)


if __name__ == "__main__":
    main()
