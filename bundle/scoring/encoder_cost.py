"""What reading a note costs with a BERT and with a ModernBERT: seconds and peak memory of one pass.

Both encoders have the published layout of their base size and random weights, which cost as much as trained ones.
Each measurement runs in a process of its own, so that none inherits the memory of another.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel
from transformers.utils import is_flash_attn_2_available

_PADDING = 0
_FIRST_WORD = 5  # ids below are left to special tokens
_MIB = 2**20
Form = Literal["full", "padded", "unpadded"]
FORMS: dict[Form, str] = {
    "full": "equal",
    "padded": "unequal, padded",
    "unpadded": "unequal, unpadded",
}


@dataclass(frozen=True)
class EncoderLayout:
    """Sizes of a text encoder.

    Attributes:
        name: for the table.
        family: which architecture has these sizes.
        width: of the hidden states.
        intermediate: width inside the feed-forward blocks.
        vocabulary, positions: the most token ids and tokens it takes.
        window: tokens that a local layer of ModernBERT sees, its own included.
        global_every: of ModernBERT's layers, each so-manieth sees the whole note.
    """

    name: str
    family: Literal["bert", "modernbert"]
    layers: int
    width: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int = 8192
    window: int = 128
    global_every: int = 3


BERT_BASE = EncoderLayout("BERT-base", "bert", 12, 768, 12, 3072, 28_996)
MODERNBERT_BASE = EncoderLayout("ModernBERT-base", "modernbert", 22, 768, 12, 1152, 50_368)


@dataclass(frozen=True)
class Workload:
    """One measurement.

    Attributes:
        tokens: of the longest note.
        notes: how many are encoded together.
        form: 'full' notes of equal length; else each half as long as the one before, 'padded' to the longest in one
            pass, or 'unpadded', which is one pass a note.
        repeats: timed passes, whose median counts.
        warm_up: passes before them, the one that measures memory not counted.
        threads: of the CPU; None leaves them to PyTorch.
    """

    tokens: int
    notes: int
    form: Form
    repeats: int = 5
    warm_up: int = 1
    threads: int | None = None
    device: str = "cpu"

    @property
    def lengths(self) -> list[int]:
        """Tokens of each note."""
        return [self.tokens if self.form == "full" else max(self.tokens >> n, 1) for n in range(self.notes)]


@dataclass(frozen=True)
class EncoderCost:
    """What a pass over all notes took: median seconds, and MiB at the peak above what was there before."""

    seconds: float
    memory_mib: float


class EncoderCostError(RuntimeError):
    """A measurement could not be taken; the others can."""


def build_encoder(layout: EncoderLayout, device: str = "cpu") -> nn.Module:
    """The encoder with random weights; on a CPU in float32, on a GPU in bfloat16."""
    shared: dict[str, Any] = {
        "vocab_size": layout.vocabulary,
        "hidden_size": layout.width,
        "intermediate_size": layout.intermediate,
        "num_hidden_layers": layout.layers,
        "num_attention_heads": layout.heads,
        "max_position_embeddings": layout.positions,
        "pad_token_id": _PADDING,
        "attn_implementation": attention_kind(device),
    }
    torch.manual_seed(0)
    model: nn.Module
    if layout.family == "bert":
        model = BertModel(BertConfig(**shared), add_pooling_layer=False)
    else:
        special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
        config = ModernBertConfig(
            **shared,
            **special,
            local_attention=layout.window,
            global_attn_every_n_layers=layout.global_every,
        )
        model = ModernBertModel(config)
    precision = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    return model.to(device=device, dtype=precision).eval()


def attention_kind(device: str) -> str:
    """FlashAttention 2 where it is installed and the device can, else PyTorch's scaled-dot-product attention."""
    flash = torch.device(device).type == "cuda" and is_flash_attn_2_available()
    return "flash_attention_2" if flash else "sdpa"


def random_notes(layout: EncoderLayout, lengths: Sequence[int], device: str = "cpu") -> list[Tensor]:
    """Token ids, one vector a note, the same on every call."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(_FIRST_WORD, layout.vocabulary, (length,), generator=generator).to(device)
        for length in lengths
    ]


@torch.no_grad()
def encode_padded(encoder: nn.Module, notes: Sequence[Tensor]) -> list[Tensor]:
    """One pass over all notes, the shorter ones padded and masked; (tokens, width) of each without padding."""
    ids = pad_sequence(list(notes), batch_first=True, padding_value=_PADDING)
    lengths = torch.tensor([len(note) for note in notes], device=ids.device)
    mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    # Notes of equal length need no mask, and attention without one is faster.
    hidden = encoder(ids, attention_mask=None if bool(mask.all()) else mask.long()).last_hidden_state
    return [states[: len(note)] for states, note in zip(hidden, notes, strict=True)]


@torch.no_grad()
def encode_unpadded(encoder: nn.Module, notes: Sequence[Tensor]) -> list[Tensor]:
    """One pass a note; (tokens, width) of each."""
    return [encoder(note[None]).last_hidden_state[0] for note in notes]


def measure(layout: EncoderLayout, work: Workload) -> EncoderCost:
    """Measure in this process: memory in the first pass, seconds in the later ones."""
    encoder = build_encoder(layout, work.device)
    notes = random_notes(layout, work.lengths, work.device)
    encode = encode_unpadded if work.form == "unpadded" else encode_padded
    # What libraries set up in their first pass is no cost of a note.
    encode(encoder, [note[:8] for note in notes])
    memory = peak_memory(lambda: encode(encoder, notes), work.device)
    for _ in range(work.warm_up):
        encode(encoder, notes)
    return EncoderCost(_median_seconds(lambda: encode(encoder, notes), work), memory)


def measure_apart(layout: EncoderLayout, work: Workload) -> EncoderCost:
    """`measure` in a process of its own.

    Raises:
        EncoderCostError: the process failed, or was ended for want of memory.
    """
    # By its file and not as a module, since the package would load what a text encoder does not need.
    command = [sys.executable, "-I", str(Path(__file__).resolve())]
    request = json.dumps({"layout": asdict(layout), "work": asdict(work)})
    done = subprocess.run([*command, request], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        reason = (
            last if done.returncode > 0 else f"ended by signal {-done.returncode}, perhaps for want of memory"
        )
        raise EncoderCostError(f"{layout.name}, {work.tokens} tokens, {FORMS[work.form]}: {reason}")
    return EncoderCost(**json.loads(done.stdout.strip().splitlines()[-1]))


def cost_table(
    lengths: Sequence[int],
    *,
    notes: int = 4,
    repeats: int = 5,
    warm_up: int = 1,
    threads: int | None = None,
    device: str = "cpu",
    layouts: tuple[EncoderLayout, EncoderLayout] = (BERT_BASE, MODERNBERT_BASE),
    measured: Callable[[EncoderLayout, Workload], EncoderCost] = measure_apart,
    progress: bool = False,
) -> Iterator[str]:
    """The lines of a Markdown table, each as soon as it is measured; ratios are second layout / first.

    A measurement that fails becomes a dash in the table and a line on standard error.

    Args:
        lengths: tokens of the longest note.
        measured: takes one measurement.
        progress: show a progress bar.
    """
    first, second = layouts
    precision = "float32" if torch.device(device).type == "cpu" else "bfloat16"
    yield (
        f"{notes} notes, {device}, {attention_kind(device)} attention, {precision}, random weights, median of "
        f"{repeats} passes; memory is the peak of one pass above what was resident before it. Unequal notes are each "
        f"half as long as the one before; unpadded is one pass a note. {first.name} has its positions raised to "
        f"{first.positions} (published: 512) for the longer rows."
    )
    yield ""
    yield (
        f"| tokens | notes | {first.name}, s | {second.name}, s | ratio | {first.name}, MiB | {second.name}, MiB "
        "| ratio |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    total = len(lengths) * len(FORMS) * len(layouts)
    with tqdm(total=total, unit="measurement", disable=not progress) as bar:
        for tokens in lengths:
            for form, name in FORMS.items():
                work = Workload(tokens, notes, form, repeats, warm_up, threads, device)
                costs: list[EncoderCost | None] = []
                for layout in layouts:
                    try:
                        costs.append(measured(layout, work))
                    except EncoderCostError as error:
                        tqdm.write(f"failed: {error}", file=sys.stderr)
                        costs.append(None)
                    bar.update()
                seconds = _cells([None if cost is None else cost.seconds for cost in costs], 4)
                memory = _cells([None if cost is None else cost.memory_mib for cost in costs], 1)
                yield f"| {tokens} | {name} | {seconds} | {memory} |"


def _cells(figures: Sequence[float | None], digits: int) -> str:
    """The two figures and second / first."""
    first, second = figures
    ratio = "-" if not first or second is None else f"{second / first:.2f}"
    return " | ".join([*("-" if figure is None else f"{figure:.{digits}f}" for figure in figures), ratio])


def _median_seconds(run: Callable[[], object], work: Workload) -> float:
    durations = []
    for _ in range(work.repeats):
        _wait(work.device)
        started = time.perf_counter()
        run()
        _wait(work.device)
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(run: Callable[[], object], device: str) -> float:
    """MiB that a pass needs above what is held before it."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / _MIB
    with contextlib.suppress(OSError, AttributeError, TypeError):
        # glibc keeps what building the network freed, and a pass that reuses it would seem to need no memory.
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        # Linux: the peak so far is that of building the network; ru_maxrss would keep the parent process's too.
        Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    run()
    return max(_resident("VmHWM") - before, 0) / _MIB


def _resident(field: Literal["VmRSS", "VmHWM"]) -> int:
    """Resident bytes, now or at the peak; always at the peak where there is no /proc."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB


def _answer(request: str) -> None:
    content = json.loads(request)
    work = Workload(**content["work"])
    if work.threads is not None:
        torch.set_num_threads(work.threads)
    print(json.dumps(asdict(measure(EncoderLayout(**content["layout"]), work))))


if __name__ == "__main__":
    _answer(sys.argv[1])
