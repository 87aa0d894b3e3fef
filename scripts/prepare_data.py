"""Make datalists of data sets as they are published, and tell what is wrong with their splits.

``python scripts/prepare_data.py lvit ROOT --output datalist.json --modality X-ray --label-name 'COVID-19 infection'``
reads the folder layout of LViT (QaTa-COV19, MoNuSeg, MosMedData+), writes a datalist and, beside it,
``datalist.json.report.json``. ``python scripts/prepare_data.py leaks DATALIST`` gives the same report for any datalist:
patients, identical and near-identical images in more than one split, missing texts, faulty masks.

Exit codes: 0 all cases are usable; 1 some are not, each named; 2 nothing could be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bundle.atomic import write_atomically  # noqa: E402
from bundle.cases import MODALITIES, CaseError  # noqa: E402
from bundle.datasets.examining import compile_patient_pattern  # noqa: E402
from bundle.datasets.lvit import import_lvit  # noqa: E402
from bundle.datasets.split_report import datalist_report, report_lines  # noqa: E402


def arguments_parser() -> argparse.ArgumentParser:
    """Both commands with their options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--patient-pattern",
        metavar="REGEX",
        help="finds the patient in a file name, with one group; default: the namings of BIDS (QaTa-COV19), TCGA "
        "(MoNuSeg) and MosMedData+, else each name is a patient",
    )
    lvit = commands.add_parser("lvit", parents=[shared], help="a folder in the layout of LViT")
    lvit.add_argument("root", type=Path, metavar="ROOT", help="holds Train_Folder and Test_Folder")
    lvit.add_argument("--output", type=Path, required=True, metavar="FILE", help="datalist to write")
    lvit.add_argument("--modality", choices=MODALITIES, required=True)
    lvit.add_argument("--label-name", required=True, help="what the masks show")
    lvit.add_argument(
        "--validation-share",
        type=float,
        default=0.1,
        help="of the training cases, put aside by patient where there is no Val_Folder",
    )
    lvit.add_argument("--seed", type=int, default=0, help="of the choice of these patients")
    lvit.add_argument(
        "--drop-leaks", action="store_true", help="leave out of training and validation what test has too"
    )
    leaks = commands.add_parser("leaks", parents=[shared], help="the report on a datalist")
    leaks.add_argument("datalist", type=Path, metavar="DATALIST")
    leaks.add_argument("--output", type=Path, metavar="FILE", help="report to write, as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, write and print; returns the exit code."""
    options = arguments_parser().parse_args(arguments)
    try:
        pattern = compile_patient_pattern(options.patient_pattern) if options.patient_pattern else None
        if options.command == "lvit":
            report = import_lvit(
                options.root,
                options.output,
                options.modality,
                options.label_name,
                pattern=pattern,
                validation_share=options.validation_share,
                seed=options.seed,
                drop_leaks=options.drop_leaks,
                progress=True,
            )
        else:
            report = datalist_report(options.datalist, pattern, progress=True)
            if options.output is not None:
                with write_atomically(options.output) as temporary:
                    temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except (CaseError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(report_lines(report)))
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
