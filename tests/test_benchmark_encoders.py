"""The benchmark of text encoders: its table, and that reading notes without padding changes no token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bundle.scoring.encoder_cost import (
    BERT_BASE,
    MODERNBERT_BASE,
    EncoderCost,
    EncoderCostError,
    EncoderLayout,
    Workload,
    build_encoder,
    cost_table,
    encode_padded,
    encode_unpadded,
    measure,
    measure_apart,
    random_notes,
)

SMALL = {"width": 32, "heads": 2, "intermediate": 48, "vocabulary": 100, "positions": 64}
BERT = replace(BERT_BASE, name="tiny BERT", layers=2, **SMALL)
# Two local layers, whose window is shorter than the notes, between global ones.
MODERNBERT = replace(MODERNBERT_BASE, name="tiny ModernBERT", layers=4, window=8, **SMALL)
LAYOUTS = (BERT, MODERNBERT)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_padding_changes_no_token(layout: EncoderLayout) -> None:
    encoder = build_encoder(layout)
    notes = random_notes(layout, Workload(40, 4, "padded").lengths)
    assert [len(note) for note in notes] == [40, 20, 10, 5]
    for padded, alone in zip(encode_padded(encoder, notes), encode_unpadded(encoder, notes), strict=True):
        assert padded.shape == alone.shape
        torch.testing.assert_close(padded, alone, atol=1e-4, rtol=0)


def test_base_layouts_are_the_published_ones() -> None:
    with torch.device("meta"):
        sizes = {
            layout.family: sum(p.numel() for p in build_encoder(layout, "meta").parameters())
            for layout in (BERT_BASE, MODERNBERT_BASE)
        }
    # bert-base-cased has 108,310,272 parameters with its pooler (590,592) and 512 positions.
    assert sizes["bert"] == 108_310_272 - 590_592 + (8192 - 512) * 768
    assert sizes["modernbert"] == 149_014_272


def test_the_table_has_a_row_for_each_length_and_form() -> None:
    lines = list(cost_table([16, 32], notes=3, repeats=2, layouts=LAYOUTS, measured=measure))
    assert "positions raised to 64" in lines[0] and "one pass a note" in lines[0] and not lines[1]
    header, rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])
    assert header == [
        "tokens",
        "notes",
        "tiny BERT, s",
        "tiny ModernBERT, s",
        "ratio",
        "tiny BERT, MiB",
        "tiny ModernBERT, MiB",
        "ratio",
    ]
    assert set(rule) == {"---"}
    assert [row[:2] for row in rows] == [
        [tokens, form]
        for tokens in ("16", "32")
        for form in ("equal", "unequal, padded", "unequal, unpadded")
    ]
    for row in rows:
        assert len(row) == len(header)
        assert float(row[2]) > 0 and float(row[3]) > 0 and float(row[4]) > 0
        assert float(row[5]) >= 0 and float(row[6]) >= 0


def test_a_measurement_in_a_process_of_its_own_and_one_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    cost = measure_apart(BERT, Workload(16, 2, "padded", repeats=1, threads=1))
    assert cost.seconds > 0 and cost.memory_mib >= 0
    # More tokens than the layout has positions.
    with pytest.raises(EncoderCostError, match="tiny BERT, 65 tokens, equal: "):
        measure_apart(BERT, Workload(65, 1, "full", repeats=1, threads=1))

    def failing(layout: EncoderLayout, work: Workload) -> EncoderCost:
        if layout is BERT:
            raise EncoderCostError("tiny BERT: out of memory")
        return EncoderCost(0.5, 2.0)

    *_, last = cost_table([16], layouts=LAYOUTS, measured=failing)
    assert last == "| 16 | unequal, unpadded | - | 0.5000 | - | - | 2.0 | - |"
    assert "failed: tiny BERT: out of memory" in capsys.readouterr().err
