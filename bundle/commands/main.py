"""The command ``tpseg``, which is ``python -m bundle`` too."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import bundle
from bundle.commands import export, merge, pacs, segment, workflows
from bundle.commands.options import configs_in
from bundle.commands.parser import NO_DOCSTRINGS, Parser
from bundle.commands.streams import enduring
from bundle.exit_codes import INTERRUPTED, NOT_STARTED


def parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Every command with its options; defaults that a configuration has are left to it.

    Args:
        argv: configuration files that it names have options too.
    """
    main = Parser(
        prog="tpseg",
        description="Text-prior diffusion segmentation of CT, X-ray and H&E. For research use only.",
    )
    main.add_argument("--version", action="version", version=f"%(prog)s {bundle.__version__}")
    commands = main.add_subparsers(dest="command", required=True)
    configs = configs_in(argv)
    segment.add_command(commands, configs)
    merge.add_command(commands)
    workflows.add_commands(commands, configs)
    export.add_command(commands, configs)
    pacs.add_commands(commands, configs)
    return main


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    with enduring():
        return _run(sys.argv[1:] if argv is None else argv)


def _run(argv: Sequence[str]) -> int:
    arguments = parser(argv).parse_args(argv)
    if sys.flags.optimize > 1:
        print(f"error: {NO_DOCSTRINGS}", file=sys.stderr)
        return NOT_STARTED
    if arguments.debug:
        logging.basicConfig(level=logging.DEBUG)
    elif arguments.command != "train":
        # MONAI and ignite report every step of the engine
        logging.disable(logging.WARNING)
    try:
        code: int = arguments.start(arguments)
        return code
    except KeyboardInterrupt:
        from bundle.commands.command_line import NOTHING_YET

        print(NOTHING_YET, file=sys.stderr)
        return INTERRUPTED
