"""The command ``tpseg``, which is ``python -m bundle`` too."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import bundle
from bundle.commands import export, pacs, segment, workflows
from bundle.commands.options import configs_in
from bundle.exit_codes import INTERRUPTED


def parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Every command with its options; defaults that a configuration has are left to it.

    Args:
        argv: configuration files that it names have options too.
    """
    main = argparse.ArgumentParser(
        prog="tpseg",
        description="Text-prior diffusion segmentation of CT, X-ray and H&E. For research use only.",
    )
    main.add_argument("--version", action="version", version=f"%(prog)s {bundle.__version__}")
    commands = main.add_subparsers(dest="command", required=True)
    configs = configs_in(argv)
    segment.add_command(commands, configs)
    workflows.add_commands(commands, configs)
    export.add_command(commands, configs)
    pacs.add_commands(commands, configs)
    return main


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser(argv).parse_args(argv)
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
