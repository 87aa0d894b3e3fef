"""Writes synthetic studies with known ground truth, one data set per modality.

python scripts/make_phantoms.py --output DIR [--modality CT|X-ray|H&E|all] [--count N] [--seed S]
                                [--split training] [--spleen FACTOR]
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.cases.modality import MODALITIES, Modality  # noqa: E402
from bundle.phantoms import write_phantoms  # noqa: E402

FOLDERS: dict[Modality, str] = {"CT": "ct", "X-ray": "xray", "H&E": "histology"}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write synthetic studies with known ground truth.")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder; ct, xray and histology go below it"
    )
    parser.add_argument("--modality", choices=[*MODALITIES, "all"], default="all")
    parser.add_argument("--count", type=int, default=8, help="studies per modality")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first study; the others follow")
    parser.add_argument("--spleen", type=float, default=1.0, help="CT: factor of the spleen's length, to 2.5")
    parser.add_argument("--split", default="training", help="list in the datalist that names them")
    options = parser.parse_args()
    if options.count < 1 or options.seed < 0:
        parser.error("--count must be at least 1 and --seed at least 0")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    seeds = range(options.seed, options.seed + options.count)
    for modality in MODALITIES if options.modality == "all" else (options.modality,):
        try:
            path = write_phantoms(
                options.output / FOLDERS[modality],
                modality,
                seeds,
                options.split,
                progress=True,
                **({"spleen": options.spleen} if modality == "CT" else {}),
            )
        except (OSError, ValueError) as error:
            parser.error(str(error))
        logging.info("%s", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
