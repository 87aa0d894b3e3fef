"""The command line: ``python -m bundle segment PATH... --output DIR``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.cases.case import MODALITIES

ROOT = Path(__file__).resolve().parent.parent


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
        "--photometric",
        choices=("MONOCHROME1", "MONOCHROME2"),
        help="of X-ray pictures: MONOCHROME1 where bone is dark",
    )
    segment.add_argument(
        "--xray-sides",
        choices=("image", "patient"),
        help="whose left and right prompts about X-rays mean; default: the image's",
    )
    segment.add_argument(
        "--text-key", metavar="NAME", help="field of a datalist's entry that is its prompt; default: text"
    )
    segment.add_argument(
        "--series",
        action="append",
        metavar="UID",
        help="DICOM: SeriesInstanceUID to segment; repeatable; default: all that show a patient",
    )
    segment.add_argument(
        "--series-description",
        metavar="PATTERN",
        help="DICOM: only series so described; * and ? stand for any",
    )
    segment.add_argument("--min-slices", type=int, metavar="N", help="DICOM: only volumes of as many slices")
    segment.add_argument(
        "--orientation", choices=("axial", "coronal", "sagittal"), help="DICOM: only slices that lie so"
    )
    segment.add_argument(
        "--resample-slices",
        action="store_true",
        help="DICOM: interpolate slices that are missing or unevenly spaced, instead of refusing the series",
    )
    segment.add_argument("--split", help="list of a datalist; default: all")
    segment.add_argument("--steps", type=int, metavar="N", help="evaluations of the denoiser a member")
    segment.add_argument("--members", type=int, metavar="N", help="chains from different noise")
    segment.add_argument(
        "--seed", type=int, metavar="N", help="of the noise, together with what the image shows"
    )
    segment.add_argument("--batch-size", type=int, metavar="N", help="slices or tiles a pass")
    segment.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the first GPU, or the CPU")
    segment.add_argument(
        "--dicom-seg",
        action="store_true",
        help="ask for DICOM SEG and SR, which DICOM input gets anyway, and be told where they cannot be made",
    )
    segment.add_argument(
        "--seg-type",
        choices=("BINARY", "LABELMAP"),
        help="of the DICOM SEG; default: BINARY, which every viewer reads",
    )
    segment.add_argument(
        "--identifiers",
        choices=("hide", "keep", "replace"),
        help="what headers give as names, numbers and dates of patients: hide it in paths, prompts, reports and "
        "messages (default), keep it, or hide it and replace it in DICOM SEG and SR, which have it otherwise",
    )
    segment.add_argument("--jobs", type=int, metavar="N", help="processes that segment cases; default: 1")
    segment.add_argument("--weights", type=Path, metavar="FILE", help="default: models/model.pt")
    segment.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="configuration over configs/inference.yaml, e.g. configs/medconddiff.yaml; repeatable",
    )
    segment.add_argument(
        "--resume", action="store_true", help="leave out what an earlier run in DIR finished"
    )
    segment.add_argument("--debug", action="store_true", help="tracebacks and MONAI's own messages")
    return main


def segment(arguments: argparse.Namespace) -> int:
    """Run `configs/inference.yaml` on the paths.

    What the user gave reaches the configuration as objects (paths, not strings), and prompts not at all: a
    path or a prompt that begins with '$' or '@' is not evaluated.

    Returns:
        exit code.
    """
    from monai.bundle import ConfigWorkflow

    from bundle.command_line import NOT_STARTED, sentence_for
    from bundle.inference import find_cases
    from bundle.networks.weights import usable_device

    overrides: dict[str, Any] = {
        "bundle_root": ROOT,
        "weights": (arguments.weights or ROOT / "models" / "model.pt"),
        "input": list(arguments.paths),
        "output_dir": arguments.output,
        "resume": arguments.resume,
    }
    if arguments.dicom_seg:
        overrides["dicom_seg"] = True
    named = (
        "steps",
        "members",
        "seed",
        "batch_size",
        "modality",
        "photometric",
        "xray_sides",
        "split",
        "seg_type",
        "identifiers",
        "jobs",
    )
    for name in named:
        if getattr(arguments, name) is not None:
            overrides[name] = getattr(arguments, name)
    try:
        if arguments.device is not None:
            overrides["device"] = usable_device(arguments.device)
        overrides["cases"] = find_cases(
            arguments.paths,
            output_dir=arguments.output,
            prompt_file=arguments.prompt_file,
            prompt=arguments.prompt,
            split=arguments.split,
            modality=arguments.modality,
            resume=arguments.resume,
            series=arguments.series,
            series_description=arguments.series_description,
            min_slices=1 if arguments.min_slices is None else arguments.min_slices,
            orientation=arguments.orientation,
            resample_slices=arguments.resample_slices,
            **({} if arguments.text_key is None else {"text_key": arguments.text_key}),
            **({} if arguments.identifiers is None else {"identifiers": arguments.identifiers}),
        )
        workflow = ConfigWorkflow(
            config_file=[str(path) for path in [ROOT / "configs" / "inference.yaml", *arguments.config]],
            meta_file=str(ROOT / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type="inference",
            **overrides,
        )
        workflow.initialize()
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
        return segment(arguments)
    except KeyboardInterrupt:
        from bundle.command_line import INTERRUPTED, NOTHING_YET

        print(NOTHING_YET, file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
