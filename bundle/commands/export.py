"""The command ``python -m bundle export``: the configured network, with its weights, as graphs for other runtimes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bundle.commands.options import inference_workflow
from bundle.exit_codes import NOT_STARTED


def add_command(commands: Any) -> None:
    """Add 'export' to the sub-commands of the main parser."""
    export = commands.add_parser(
        "export", help="write the network as ONNX or torch.export graphs (docs/export.md)"
    )
    export.add_argument("--format", required=True, choices=("onnx", "torch-export"))
    export.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the graphs")
    export.add_argument("--weights", type=Path, metavar="FILE", help="default: models/model.pt")
    export.add_argument(
        "--quantise", action="store_true", help="ONNX: 8-bit weights in matrix products; measure before use"
    )
    export.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="configuration over configs/inference.yaml; repeatable",
    )
    export.add_argument("--debug", action="store_true", help="tracebacks")
    # what segmenting lets a user choose
    export.set_defaults(device="cpu", export=None)


def start(arguments: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from bundle.commands.command_line import sentence_for
    from bundle.exporting.writing import check_replaceable, export_segmenter
    from bundle.inference.run import versions
    from bundle.settings import export_settings_of

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
        if arguments.debug:
            raise
        print(f"error: {sentence_for(error)}", file=sys.stderr)
        return NOT_STARTED
    print(f"{arguments.output}: {arguments.format} graphs")
    return 0
