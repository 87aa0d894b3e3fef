"""What steps and members of the sampler cost and bring.

``python -m scripts.benchmarks.sampling --datalist FILE --split NAME [--config FILE]`` evaluates a list with several
numbers of steps and members, without texts, and prints a row of a Markdown table for each.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import tempfile
from pathlib import Path

from scripts.benchmarks.evaluations import ROOT, evaluated, evaluation

#: Sampler, placement of the steps, and whether it is tried with several members.
SAMPLERS = (("ddim", "log_snr", True), ("ancestral", "time", False))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datalist", required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--config", type=Path, action="append", default=[], help="over configs/evaluate.yaml")
    parser.add_argument("--weights", default=str(ROOT / "models" / "model.pt"))
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # the table alone
    print(
        "| sampler | steps | members | Dice | s a case | times the first row | ECE | most certain quarter | least |"
    )
    print("|---" * 9 + "|")
    first: float | None = None
    for (sampler, placement, several), members, steps in itertools.product(
        SAMPLERS, options.members, options.steps
    ):
        if not several and (members > 1 or steps == 1):
            continue
        with tempfile.TemporaryDirectory() as folder:
            workflow = evaluation(
                options.config,
                Path(folder),
                datalist=options.datalist,
                split=options.split,
                weights=options.weights,
                text_modes=["off"],
                steps=steps,
                members=members,
                sampler=sampler,
                placement=placement,
            )
            summary, of_case = evaluated(workflow, Path(folder))
        seconds, sure = statistics.mean(of_case.values()), summary["uncertainty"]
        first = first or seconds
        print(
            f"| {sampler}, {placement} | {steps} | {members} | {summary['text']['off']['dice']:.2f} "
            f"| {seconds:.2f} | {seconds / first:.2f} | {sure['expected_calibration_error']:.2f} "
            f"| {sure['dice_most_certain']:.1f} | {sure['dice_least_certain']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
