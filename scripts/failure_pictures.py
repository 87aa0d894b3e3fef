"""Draws the cases that the network segments worst: image, ground truth and prediction, a picture a modality.

``python scripts/failure_pictures.py DATALIST... --output DIR [--split test] [--count 2] [--weights FILE]
[--config FILE]`` evaluates the lists as configs/evaluate.yaml does, each case with its own text or, where there is
none, the names of its labels.

For pictures that may be shown to anybody: ``python scripts/make_phantoms.py --output DIR --seed 9000 --split test``.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from monai.bundle import ConfigWorkflow  # noqa: E402

from bundle.atomic import write_atomically  # noqa: E402
from bundle.cases.modality import Modality  # noqa: E402
from bundle.commands.command_line import sentence_for  # noqa: E402
from bundle.exit_codes import NOT_STARTED  # noqa: E402
from bundle.results.pictures.comparison import write_comparison  # noqa: E402
from bundle.scoring.worst_cases import WorstCases  # noqa: E402

FILES: dict[Modality, str] = {
    "CT": "failures_ct.png",
    "X-ray": "failures_xray.png",
    "H&E": "failures_histology.png",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datalists", type=Path, nargs="+", metavar="DATALIST")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--split", default="test", help="list of the datalists")
    parser.add_argument("--count", type=int, default=2, help="cases a modality")
    parser.add_argument("--weights", type=Path, default=ROOT / "models" / "model.pt")
    parser.add_argument(
        "--config", type=Path, action="append", default=[], help="over configs/evaluate.yaml; repeatable"
    )
    options = parser.parse_args()
    if options.count < 1:
        parser.error("--count must be at least 1")
    logging.disable(logging.WARNING)  # the pictures alone
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            workflow = ConfigWorkflow(
                config_file=[
                    *(str(ROOT / "configs" / name) for name in ("inference.yaml", "evaluate.yaml")),
                    *map(str, options.config),
                ],
                meta_file=str(ROOT / "configs" / "metadata.json"),
                logging_file=False,
                workflow_type="inference",
                bundle_root=ROOT,
                weights=options.weights,
                datalist=options.datalists,
                split=options.split,
                output_dir=Path(folder),
                text_modes=["on"],
                spacing_is_true=False,  # distances take their time, and are not shown
            )
            workflow.initialize()
            worst = WorstCases(workflow.parser.get_parsed_content("scoring"), options.count)
            worst.attach(workflow.evaluator)
        except Exception as error:  # torch and MONAI raise every kind for settings they cannot use
            print(f"error: {sentence_for(error)}", file=sys.stderr)
            return NOT_STARTED
        try:
            with contextlib.redirect_stdout(None):  # of a folder that goes with this command
                workflow.run()
        except SystemExit as stop:  # cases failed, each of which was named; the others have their pictures
            code = int(stop.code or 0)
    for modality, cases in worst.cases.items():
        if cases:
            with write_atomically(options.output / FILES[modality]) as path:
                write_comparison(cases, path)
            print(options.output / FILES[modality])
    return code


if __name__ == "__main__":
    sys.exit(main())
