"""What it saves to run the image prior once an image and not at every step.

``python -m scripts.benchmarks.prior --steps 1 10`` prints a Markdown table for MedCondDiff's published sizes and for
the shipped network, with random weights.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from bundle.diffusion.sampling import Sampling
from bundle.networks import DiffusionSegmenter
from scripts.benchmarks.evaluations import ROOT
from scripts.benchmarks.measuring import median_seconds

#: Name, configuration files and pixels.
NETWORKS = (
    ("MedCondDiff, B1", ("inference.yaml", "medconddiff.yaml"), 352),
    ("shipped", ("inference.yaml",), 128),
)


def run_prior_every_step(network: DiffusionSegmenter) -> None:
    """Let a network encode the image anew at each step, as the published sampler does."""
    encode, denoise = network.encode, network.denoise
    encoded: list[Any] = []

    def kept(*inputs: Any) -> list[Tensor]:
        encoded[:] = inputs
        return encode(*inputs)

    def again(x_t: Tensor, log_snr: Tensor, condition: Any, possible: Tensor | None = None) -> Tensor:
        return denoise(x_t, log_snr, encode(*encoded), possible)

    network.encode, network.denoise = kept, again  # type: ignore[method-assign, assignment]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed runs a cell, at the least")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    print("| network | pixels | steps | prior once, s | prior every step, s | ratio | largest difference |")
    print("|---" * 7 + "|")
    for name, files, pixels in NETWORKS:
        parsed = ConfigParser()
        parsed.read_config([str(ROOT / "configs" / file) for file in files])
        networks: list[DiffusionSegmenter] = [parsed.get_parsed_content("network_def").eval()]
        networks.append(copy.deepcopy(networks[0]))
        run_prior_every_step(networks[1])
        image = torch.rand(1, 3, pixels, pixels)
        for steps in options.steps:
            sampling = Sampling(steps=steps, sampler="ddim")
            results, seconds = [], []
            for network in networks:
                predict = partial(network.predict, image, ["case"], sampling)
                results.append(predict())
                seconds.append(median_seconds(predict, options.seconds, options.threads))
            once, again = seconds
            difference = float((results[0] - results[1]).abs().max())
            print(
                f"| {name} | {pixels} | {steps} | {once:.3f} | {again:.3f} | {again / once:.2f} | {difference:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
