"""Write a phantom slide: tissue on glass as a tiled JPEG pyramid, of any size.

python scripts/make_slide.py slide.tif --size 20000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.phantoms.slide import write_slide_phantom  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--size", type=int, default=20_000, help="pixels a side; default: %(default)s")
    parser.add_argument("--mpp", type=float, default=0.25, help="micrometres a pixel; default: %(default)s")
    parser.add_argument("--tissue", type=float, default=0.25, help="share of the slide; default: %(default)s")
    arguments = parser.parse_args()
    write_slide_phantom(arguments.path, arguments.size, arguments.size, arguments.mpp, arguments.tissue)


if __name__ == "__main__":
    main()
