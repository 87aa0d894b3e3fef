"""``tpseg segment``: images, folders of images or DICOM series, and datalists through configs/inference.yaml."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.commands.options import (
    INFERENCE,
    add_network_options,
    add_settings,
    cases_of,
    inference_workflow,
    refused,
)
from bundle.commands.parser import path_of


def add_command(commands: Any, configs: Sequence[Path]) -> None:
    """Add 'segment' to the main parser."""
    segment = commands.add_parser("segment", help="segment images, folders of images or datalists")
    segment.add_argument(
        "paths",
        nargs="+",
        type=path_of,
        metavar="PATH",
        help="image file, folder (images, DICOM series) or datalist JSON, or list of paths (.txt, .csv, .jsonl)",
    )
    segment.add_argument(
        "--output", required=True, type=path_of, metavar="DIR", help="folder for the results"
    )
    prompt = segment.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="what to segment, one for all cases")
    prompt.add_argument(
        "--prompt-file", type=path_of, metavar="FILE", help="text, or JSON from case id to prompt"
    )
    segment.add_argument(
        "--series",
        action="append",
        metavar="UID",
        help="DICOM: SeriesInstanceUID to segment; repeatable; default: all that show a patient",
    )
    add_network_options(segment)
    add_settings(segment, [INFERENCE, *configs])
    segment.set_defaults(start=start)


def start(arguments: argparse.Namespace) -> int:
    """Segment; returns the exit code."""
    try:
        workflow = inference_workflow(arguments, input=list(arguments.paths), output_dir=arguments.output)
        # neither paths nor prompts go through the parser, which would evaluate one that begins with '$' or '@'
        by_hand = {"prompt_file": arguments.prompt_file, "series": arguments.series}
        workflow.parser["cases"] = cases_of(workflow.parser, prompt=arguments.prompt, **by_hand)
        evaluator = workflow.evaluator
        record = workflow.parser.get_parsed_content("record")
    except Exception as error:  # torch and MONAI raise every kind for settings they cannot use
        return refused(error, arguments.debug)
    record.run(evaluator)
    return 0
