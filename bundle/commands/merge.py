"""``tpseg merge``: the parts of a run, which `tpseg segment --part` made, joined to what one run would have left."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bundle.commands.options import refused
from bundle.commands.parser import path_of
from bundle.exit_codes import SOME_FAILED


def add_command(commands: Any) -> None:
    """Add 'merge' to the main parser."""
    merge = commands.add_parser("merge", help="join the records of the parts of a run (docs/scale.md)")
    merge.add_argument("output", type=path_of, metavar="OUT", help="folder that the parts were written to")
    merge.add_argument("--debug", action="store_true", help="tracebacks")
    merge.set_defaults(start=start)


def start(arguments: argparse.Namespace) -> int:
    """Join; returns the exit code: 1 where cases failed or have not been done."""
    from bundle.cases import CaseError
    from bundle.cases.privacy import printable
    from bundle.folder_lock import FolderInUseError, folder_lock
    from bundle.inference.journal import RunJournal
    from bundle.inference.parts import join_parts
    from bundle.inference.publishing import counts, failed, publish

    output: Path = arguments.output
    try:
        if not output.is_dir():
            raise CaseError(output, "is no folder", "name the one that the parts were written to")
        with folder_lock(output):
            run = join_parts(output)
            RunJournal(output).start(run.settings, run.entries)
            publish(output, run.entries, run.about)
    except FolderInUseError as error:
        remedy = "wait until all parts are done"
        return refused(CaseError(output, str(error.strerror), remedy), arguments.debug)
    except (CaseError, OSError) as error:
        return refused(error, arguments.debug)
    print(printable(f"{counts(run.entries)}: {output / 'index.html'}"))
    for part in run.missing:
        print(f"error: part {part} has not been run; run it with --part {part}.", file=sys.stderr)
    for part, cases in run.left.items():
        remedy = f"run it again with --part {part} --resume"
        print(f"error: part {part} has not done {cases} of its cases; {remedy}.", file=sys.stderr)
    return SOME_FAILED if run.missing or run.left or failed(run.entries) else 0
