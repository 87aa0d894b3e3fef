"""``tpseg train`` and ``tpseg evaluate``: the workflows of configs/train.yaml and configs/evaluate.yaml."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.commands.options import (
    INFERENCE,
    add_config_options,
    add_settings,
    given_settings,
    refused,
    workflow_of,
)
from bundle.commands.parser import path_of
from bundle.root import CONFIGS

_HELP = {
    "train": "train a network, or go on with a training; the best weights are DIR/model.pt",
    "evaluate": "compare a network with the ground truth; figures are in DIR/summary.json and DIR/metrics.csv",
}


def add_commands(commands: Any, configs: Sequence[Path]) -> None:
    """Add 'train' and 'evaluate' to the main parser."""
    sets = sorted(path.stem.removeprefix("data_") for path in CONFIGS.glob("data_*.yaml"))
    for name, about in _HELP.items():
        command = commands.add_parser(name, help=about)
        command.add_argument(
            "--datalist", required=True, type=path_of, nargs="+", metavar="FILE", help="JSON"
        )
        command.add_argument(
            "--output", required=True, type=path_of, metavar="DIR", help="folder for what it makes"
        )
        command.add_argument("--set", choices=sets, help="configs/data_SET.yaml: how its images are shown")
        command.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the first GPU, or the CPU")
        if name == "evaluate":
            command.add_argument("--weights", type=path_of, metavar="FILE", help="default: models/model.pt")
        add_config_options(command)
        add_settings(command, [INFERENCE, CONFIGS / f"{name}.yaml", *configs])
        command.set_defaults(start=start)


def start(arguments: argparse.Namespace) -> int:
    """Run the workflow; returns the exit code."""
    from bundle.commands import command_line

    name = arguments.command
    files = [INFERENCE, CONFIGS / f"{name}.yaml"]
    files += [CONFIGS / f"data_{arguments.set}.yaml"] if arguments.set else []
    lists = arguments.datalist
    settings = {
        **given_settings(arguments),
        "datalist": lists[0] if len(lists) == 1 else list(lists),
        "output_dir": arguments.output,
    }
    if getattr(arguments, "weights", None) is not None:
        settings["weights"] = arguments.weights
    kind, log = ("train", CONFIGS / "logging.conf") if name == "train" else ("inference", None)
    command_line.not_started()
    try:
        workflow = workflow_of([*files, *arguments.config], kind, settings, arguments.device, log)
        workflow.run()
        workflow.finalize()
    except Exception as error:  # torch and MONAI raise every kind for settings they cannot use
        if command_line.has_started():
            raise
        return refused(error, arguments.debug)
    return 0
