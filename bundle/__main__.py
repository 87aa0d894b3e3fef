"""The command line: ``python -m bundle segment PATH... --output DIR``, ``... pacs ...`` and ``... export ...``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bundle.cases.modality import MODALITIES
from bundle.commands import export as export_options
from bundle.commands import pacs as pacs_options
from bundle.commands.options import (
    add_image_options,
    add_network_options,
    inference_workflow,
    series_options,
)
from bundle.exit_codes import INTERRUPTED, NOT_STARTED


def parser() -> argparse.ArgumentParser:
    """Every command with its options; defaults that a configuration has are left to it."""
    main = argparse.ArgumentParser(
        prog="python -m bundle",
        description="Text-prior diffusion segmentation of CT, X-ray and H&E. For research use only.",
    )
    commands = main.add_subparsers(dest="command", required=True)
    segment = commands.add_parser("segment", help="segment images, folders of images or datalists")
    segment.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="image file, folder (images, DICOM series) or datalist JSON",
    )
    segment.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    prompt = segment.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="what to segment, one for all cases")
    prompt.add_argument(
        "--prompt-file", type=Path, metavar="FILE", help="text, or JSON from case id to prompt"
    )
    segment.add_argument("--modality", choices=MODALITIES, help="default: told from the file")
    segment.add_argument(
        "--text-key", metavar="NAME", help="field of a datalist's entry that is its prompt; default: text"
    )
    segment.add_argument(
        "--series",
        action="append",
        metavar="UID",
        help="DICOM: SeriesInstanceUID to segment; repeatable; default: all that show a patient",
    )
    add_image_options(segment)
    segment.add_argument("--split", help="list of a datalist; default: all")
    segment.add_argument(
        "--dicom-seg",
        action="store_true",
        help="ask for DICOM SEG and SR, which DICOM input gets anyway, and be told where they cannot be made",
    )
    segment.add_argument(
        "--rtstruct",
        action="store_true",
        help="DICOM volumes: contours too, as an RT structure set beside SEG and SR",
    )
    segment.add_argument(
        "--identifiers",
        choices=("hide", "keep", "replace"),
        help="what headers give as names, numbers and dates of patients: hide it in paths, prompts, reports and "
        "messages (default), keep it, or hide it and replace it in DICOM SEG and SR, which have it otherwise",
    )
    segment.add_argument(
        "--slide-mpp",
        type=float,
        metavar="UM",
        help="whole-slide images: micrometres per pixel of the largest level; default: what the file states",
    )
    segment.add_argument(
        "--geojson", action="store_true", default=None, help="polygons for QuPath of H&E pictures too"
    )
    segment.add_argument("--jobs", type=int, metavar="N", help="processes that segment cases; default: 1")
    segment.add_argument(
        "--resume", action="store_true", help="leave out what an earlier run in DIR finished"
    )
    add_network_options(segment)
    pacs_options.add_commands(commands)
    export_options.add_command(commands)
    return main


def segment(arguments: argparse.Namespace) -> int:
    """Run `configs/inference.yaml` on the paths.

    Prompts do not reach the configuration at all: one that begins with '$' or '@' is not evaluated.

    Returns:
        exit code.
    """
    from bundle.commands.command_line import sentence_for
    from bundle.inference import find_cases

    try:
        cases = find_cases(
            arguments.paths,
            output_dir=arguments.output,
            prompt_file=arguments.prompt_file,
            prompt=arguments.prompt,
            split=arguments.split,
            modality=arguments.modality,
            resume=arguments.resume,
            series=arguments.series,
            **series_options(arguments),
            **({} if arguments.text_key is None else {"text_key": arguments.text_key}),
            **({} if arguments.identifiers is None else {"identifiers": arguments.identifiers}),
        )
        workflow = inference_workflow(
            arguments,
            input=list(arguments.paths),
            output_dir=arguments.output,
            resume=arguments.resume,
            cases=cases,
            **({"dicom_seg": True} if arguments.dicom_seg else {}),
            **({"dicom_rtstruct": True} if arguments.rtstruct else {}),
        )
        evaluator = workflow.evaluator
        record = workflow.parser.get_parsed_content("record")
    except Exception as error:  # torch and MONAI raise every kind for settings they cannot use
        if arguments.debug:
            logging.exception("nothing could be started")
        print(f"error: {sentence_for(error)}", file=sys.stderr)
        return NOT_STARTED
    record.run(evaluator)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = parser().parse_args(argv)
    if not arguments.debug:
        # MONAI and ignite report every step of the engine
        logging.disable(logging.WARNING)
    else:
        logging.basicConfig(level=logging.DEBUG)
    try:
        if arguments.command == "pacs":
            return pacs_options.start(arguments)
        if arguments.command == "export":
            return export_options.start(arguments)
        return segment(arguments)
    except KeyboardInterrupt:
        from bundle.commands.command_line import NOTHING_YET

        print(NOTHING_YET, file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
