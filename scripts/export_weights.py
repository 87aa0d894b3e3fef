"""Make the weights that are shipped out of a training's: ``python scripts/export_weights.py SOURCE TARGET``.

SOURCE is a training's model.pt or latest.pt (whose averaged weights are taken). TARGET becomes a plain state dict in
half precision; its sha256 is printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bundle.learning.checkpoint import save_whole  # noqa: E402
from bundle.networks.weights import WeightsError, file_sha256, read_state_dict  # noqa: E402


def main() -> int:
    """Convert; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    try:
        state = read_state_dict(arguments.source)
    except WeightsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    save_whole(
        {key: value.half() if value.is_floating_point() else value for key, value in state.items()},
        arguments.target,
    )
    parameters = sum(value.numel() for value in state.values())
    print(f"{arguments.target}: {parameters:,} parameters, sha256 {file_sha256(arguments.target)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
