"""What an epoch of FastTextDiff's training costs with and without keeping what its frozen encoders made.

``python -m scripts.benchmarks.kept_features`` prints a Markdown table: the same random images and notes in every
epoch, more and more of the encoders' work kept.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from itertools import pairwise

import torch
from monai.bundle import ConfigParser

from scripts.benchmarks.evaluations import ROOT

WORDS = ["infection", "of", "the", "upper", "middle", "lower", "left", "right", "lung", "clear", "pleura"]
KEPT = {
    "nothing": {"keep_texts": False, "keep_features": False},
    "texts": {"keep_texts": True, "keep_features": False},
    "texts and image features": {"keep_texts": True, "keep_features": True},
}


def epoch_seconds(
    settings: dict[str, object], images: torch.Tensor, notes: list[str], epochs: int
) -> list[float]:
    """Seconds of each epoch of FastTextDiff with these settings."""
    parsed = ConfigParser()
    parsed.read_config([str(ROOT / "configs" / file) for file in ("inference.yaml", "fasttextdiff.yaml")])
    for name, value in {"bundle_root": str(ROOT), **settings}.items():
        parsed[name] = value
    network = parsed.get_parsed_content("network_def").train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def epoch() -> None:
        for image, note in zip(images, notes, strict=True):
            optimizer.zero_grad()
            network(image, [note], logits=True).square().mean().backward()
            optimizer.step()

    # by the clock: torch's Timer runs an epoch to warm up, and the first one is what fills the cache
    times = [time.perf_counter()]
    for _ in range(epochs):
        epoch()
        times.append(time.perf_counter())
    return [after - before for before, after in pairwise(times)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--words", type=int, default=60, help="of a note")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    notes = [" ".join(random.Random(i).choices(WORDS, k=options.words)) for i in range(options.images)]
    images = torch.rand(options.images, 1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    print("| text encoder | kept | first epoch, s | later epochs, s | times fewer |")
    print("|---" * 5 + "|")
    for layout in (None, "bert_base", "modernbert_base"):
        encoder = {} if layout is None else {"text_encoder": None, "text_layout": layout}
        first: float | None = None
        for name, kept in KEPT.items():
            seconds = epoch_seconds({**kept, **encoder}, images, notes, options.epochs)
            later = statistics.median(seconds[1:])
            first = first or later
            print(
                f"| {layout or 'embedded'} | {name} | {seconds[0]:.2f} | {later:.2f} | {first / later:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
