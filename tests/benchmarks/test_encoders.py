"""The benchmark of text encoders: its table, and that reading notes without padding changes no token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, ModernBertConfig

from scripts.benchmarks.encoders import (
    FORMS,
    LAYOUTS,
    Workload,
    build_encoder,
    measure,
    measure_apart,
    read_one_by_one,
    read_padded,
    table,
)

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 100,
}
SPECIAL = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
TINY = {
    "tiny BERT": BertConfig(num_hidden_layers=2, max_position_embeddings=64, **SMALL),
    # Two local layers, whose window is shorter than the notes, between global ones.
    "tiny ModernBERT": ModernBertConfig(num_hidden_layers=4, local_attention=8, **SMALL, **SPECIAL),
}


@pytest.mark.parametrize("name", TINY)
def test_padding_changes_no_token(name: str) -> None:
    encoder, notes = build_encoder(TINY[name]), Workload(40, form="unequal, padded").ids(100)
    assert [len(note) for note in notes] == [40, 20, 10, 5]
    for padded, alone in zip(read_padded(encoder, notes), read_one_by_one(encoder, notes), strict=True):
        torch.testing.assert_close(padded, alone, atol=1e-4, rtol=0)


def test_base_layouts_are_the_published_ones() -> None:
    with torch.device("meta"):
        bert, modern = (
            sum(p.numel() for p in build_encoder(layout, "meta").parameters()) for layout in LAYOUTS.values()
        )
    assert bert == 108_310_272 + (8192 - 512) * 768  # bert-base-cased, with more positions
    assert modern == 149_014_272


def test_a_row_for_each_length_and_form_and_dashes_where_one_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    works = [Workload(tokens, 3, form) for tokens in (16, 65) for form in FORMS]
    lines = list(table(works, TINY, measure))
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert header[2:5] == ["tiny BERT, s", "tiny ModernBERT, s", "ratio"] and header[-1] == "ratio"
    assert [row[:2] for row in rows] == [[str(work.tokens), work.form] for work in works]
    for row in rows[:3]:
        assert len(row) == len(header) and all(float(cell) > 0 for cell in row[2:4])
    assert rows[3][2:] == ["-"] * 6, "more tokens than the layout has positions"
    assert "failed: tiny BERT, 65 tokens, equal: " in capsys.readouterr().err


@pytest.mark.slow
def test_a_measurement_in_a_process_of_its_own() -> None:
    seconds, memory = measure_apart(TINY["tiny BERT"], Workload(16, 2))
    assert seconds > 0 and memory >= 0
