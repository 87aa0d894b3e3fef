"""What reading notes costs with BERT-base and with ModernBERT-base: seconds and peak memory of one pass.

``python -m scripts.benchmarks.encoders --lengths 32 128`` prints a Markdown table. Both encoders have their published
sizes, BERT with more positions, and random weights, which cost as much as trained ones. Each measurement runs in a
process of its own, so that none inherits the memory of another.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import AutoModel, BertConfig, ModernBertConfig
from transformers.utils import is_flash_attn_2_available

from scripts.benchmarks.measuring import median_seconds, peak_memory

#: BERT's published positions are 512.
LAYOUTS = {
    "BERT-base": BertConfig(vocab_size=28_996, max_position_embeddings=8192),
    "ModernBERT-base": ModernBertConfig(),
}
FORMS = ("equal", "unequal, padded", "unequal, unpadded")
_FIRST_WORD = 5  # ids below are left to special tokens


@dataclass(frozen=True)
class Workload:
    """One measurement.

    Attributes:
        tokens: of the longest note.
        notes: how many are read together.
        form: of `FORMS`; unequal notes are each half as long as the one before, unpadded is one pass a note.
        seconds: that the timed passes take at the least.
        threads: of the CPU.
    """

    tokens: int
    notes: int = 4
    form: str = "equal"
    seconds: float = 0.0
    threads: int = 1
    device: str = "cpu"

    def ids(self, vocabulary: int) -> list[Tensor]:
        """Token ids, one vector a note, the same on every call."""
        generator = torch.Generator().manual_seed(0)
        lengths = [
            self.tokens if self.form == "equal" else max(self.tokens >> n, 1) for n in range(self.notes)
        ]
        return [
            torch.randint(_FIRST_WORD, vocabulary, (length,), generator=generator).to(self.device)
            for length in lengths
        ]


def attention_kind(device: str) -> str:
    """FlashAttention 2 where it is installed and the device can, else PyTorch's scaled-dot-product attention."""
    flash = torch.device(device).type == "cuda" and is_flash_attn_2_available()
    return "flash_attention_2" if flash else "sdpa"


def build_encoder(config: Any, device: str = "cpu") -> nn.Module:
    """The encoder with random weights; on a CPU in float32, on a GPU in bfloat16."""
    torch.manual_seed(0)
    encoder: nn.Module = AutoModel.from_config(config, attn_implementation=attention_kind(device))
    return encoder.to(device, torch.bfloat16 if torch.device(device).type == "cuda" else None).eval()


@torch.inference_mode()
def read_padded(encoder: nn.Module, notes: Sequence[Tensor]) -> list[Tensor]:
    """One pass over all notes, the shorter ones padded and masked; (tokens, width) of each without padding."""
    ids = pad_sequence(list(notes), batch_first=True)
    lengths = torch.tensor([len(note) for note in notes], device=ids.device)
    mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    # Notes of equal length need no mask, and attention without one is faster.
    hidden = encoder(ids, attention_mask=None if bool(mask.all()) else mask.long()).last_hidden_state
    return [states[: len(note)] for states, note in zip(hidden, notes, strict=True)]


@torch.inference_mode()
def read_one_by_one(encoder: nn.Module, notes: Sequence[Tensor]) -> list[Tensor]:
    """One pass a note; (tokens, width) of each."""
    return [encoder(note[None]).last_hidden_state[0] for note in notes]


def measure(config: Any, work: Workload) -> tuple[float, float]:
    """Median seconds of a pass over all notes, and MiB at its peak above what was there before."""
    torch.set_num_threads(work.threads)
    encoder, notes = build_encoder(config, work.device), work.ids(config.vocab_size)
    read = read_one_by_one if work.form == "unequal, unpadded" else read_padded
    read(
        encoder, [note[:8] for note in notes]
    )  # what libraries set up in their first pass is no cost of a note
    memory = peak_memory(lambda: read(encoder, notes), work.device)
    return median_seconds(lambda: read(encoder, notes), work.seconds, work.threads), memory


def measure_apart(config: Any, work: Workload) -> tuple[float, float]:
    """`measure` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        return apart.submit(measure, config, work).result()


def table(
    works: Sequence[Workload],
    layouts: Mapping[str, Any] = LAYOUTS,
    measured: Callable[[Any, Workload], tuple[float, float]] = measure_apart,
) -> Iterator[str]:
    """The lines of a Markdown table; ratios are second layout / first.

    A measurement that fails becomes dashes in the table and a line on standard error.
    """
    cells = [f"{name}, {unit}" for unit in ("s", "MiB") for name in (*layouts, "ratio")]
    yield f"| tokens | notes | {' | '.join(cells).replace('ratio, s', 'ratio').replace('ratio, MiB', 'ratio')} |"
    yield "|---" * 8 + "|"
    for work in tqdm(works, unit="row"):
        found = []
        for name, config in layouts.items():
            try:
                found.append(measured(config, work))
            except Exception as error:  # perhaps ended for want of memory; the other measurements go on
                print(f"failed: {name}, {work.tokens} tokens, {work.form}: {error}", file=sys.stderr)
        rows = zip(*found, strict=True) if len(found) == len(layouts) else []
        figures = [f"{one:.3g} | {other:.3g} | {other / max(one, 1e-9):.2f}" for one, other in rows]
        yield f"| {work.tokens} | {work.form} | {' | '.join(figures or ['-'] * 6)} |"


def main() -> int:
    """Print the table; returns 1 where a measurement failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    lengths = [32, 128, 512, 2048, 8192]
    parser.add_argument("--lengths", type=int, nargs="+", default=lengths, metavar="TOKENS")
    parser.add_argument("--notes", type=int, default=4, help="that are read together")
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed passes a cell, at the least")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    print(f"{options.device}, {options.threads} threads, {attention_kind(options.device)} attention\n")
    works = [
        Workload(tokens, options.notes, form, options.seconds, options.threads, options.device)
        for tokens in options.lengths
        for form in FORMS
    ]
    failed = False
    for line in table(works):
        print(line, flush=True)
        failed = failed or "| - |" in line
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
