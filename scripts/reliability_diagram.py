"""Draw how often the network is right against how sure it is, out of evaluations' summary.json.

``python scripts/reliability_diagram.py NAME=DIR/summary.json ... --output FILE.png``
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("summaries", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    figure, axes = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="calibrated")
    for named in arguments.summaries:
        name, _, path = named.rpartition("=")
        certainty = json.loads(Path(path).read_text(encoding="utf-8"))["uncertainty"]
        error = certainty["expected_calibration_error"]
        rows = certainty["reliability"]
        axes.plot(
            [row["confidence"] for row in rows],
            [row["accuracy"] for row in rows],
            marker="o",
            markersize=4,
            label=f"{name or path} (ECE {error:.1f} %)",
        )
    axes.set(xlabel="probability of the prediction", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    figure.savefig(arguments.output, dpi=150)


if __name__ == "__main__":
    main()
