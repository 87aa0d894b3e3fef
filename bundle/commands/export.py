"""The command ``python -m bundle export``: the configured network, with its weights, as graphs for other runtimes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.commands.options import (
    INFERENCE,
    add_config_options,
    add_settings,
    inference_workflow,
    refused,
)
from bundle.commands.parser import path_of
from bundle.settings import DECIDES_NOTHING, OF_FILES, export_settings_of


def add_command(commands: Any, configs: Sequence[Path]) -> None:
    """Add 'export' to the main parser."""
    export = commands.add_parser(
        "export", help="write the network as ONNX or torch.export graphs (docs/export.md)"
    )
    export.add_argument("--format", required=True, choices=("onnx", "torch-export"))
    export.add_argument("--output", required=True, type=path_of, metavar="DIR", help="folder for the graphs")
    export.add_argument("--weights", type=path_of, metavar="FILE", help="default: models/model.pt")
    export.add_argument(
        "--quantise", action="store_true", help="ONNX: 8-bit weights in matrix products; measure before use"
    )
    add_config_options(export)
    add_settings(export, [INFERENCE, *configs], {*DECIDES_NOTHING, *OF_FILES})
    # what segmenting lets a user choose
    export.set_defaults(device="cpu", export=None, start=start)


def start(arguments: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from bundle.exporting.writing import check_replaceable, export_segmenter
    from bundle.inference.run import versions

    try:
        check_replaceable(arguments.output)
        workflow = inference_workflow(arguments)
        content = workflow.parser.get_parsed_content
        export_segmenter(
            content("network"),
            arguments.output,
            arguments.format,
            export_settings_of(workflow.parser),
            Path(content("weights")),
            versions(),
            arguments.quantise,
        )
    except Exception as error:  # torch and MONAI raise every kind for settings they cannot use
        return refused(error, arguments.debug)
    return 0
