"""The comparison of runtimes: whose masks and figures it compares, and what it says where one is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from bundle.cases import CaseError
from bundle.scoring.export_cost import (
    Candidate,
    CaseList,
    RunCost,
    check_compiler,
    export_table,
    measure,
    same_dice,
)


@pytest.fixture(scope="module")
def candidate(tiny: Any, phantoms: dict[str, Path]) -> Candidate:
    lists = tuple(CaseList(phantoms[modality], "test", 9) for modality in ("CT", "H&E"))
    return Candidate("eager", tiny.trained, lists, (tiny.config,))


@pytest.fixture(scope="module")
def cost(candidate: Candidate) -> RunCost:
    return measure(candidate)


def test_cases_go_the_way_of_an_evaluation(
    candidate: Candidate,
    cost: RunCost,
    workflow: Callable[..., ConfigWorkflow],
    tmp_path: Path,
) -> None:
    assert [case.modality for case in cost.cases] == ["CT"] * 3 + ["H&E"] * 3
    assert cost.cases[0].mask.shape == (48, 40, 10)
    assert [case.images for case in cost.cases[2:4]] == [10, 1]
    table = list(export_table(candidate, [], measured=lambda _: cost))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[4:]]
    assert [row[:4] for row in rows[:3]] == [
        ["eager", "CT", "3", "30"],
        ["eager", "H&E", "3", "3"],
        ["eager", "all", "6", "33"],
    ]
    for row, one in zip(rows, candidate.lists, strict=False):
        output = tmp_path / row[1]
        workflow(
            "evaluate.yaml",
            datalist=str(one.datalist),
            output_dir=str(output),
            weights=str(candidate.source),
            text_modes=["off"],
        ).run()
        summary = json.loads((output / "summary.json").read_text())
        assert float(row[6]) == pytest.approx(summary["text"]["off"]["dice"], abs=0.006)


def test_masks_that_differ_show_and_a_runtime_that_fails_leaves_the_others(
    candidate: Candidate, cost: RunCost, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = cost.cases[-1].mask.copy()
    changed[:20] = 1 - changed[:20]
    other = replace(cost, cases=[*cost.cases[:-1], replace(cost.cases[-1], mask=changed)])

    def measured(one: Candidate) -> RunCost:
        if one.runtime == "torch.compile":
            raise RuntimeError("no compiler\nand much more")
        return cost if one.runtime == "eager" else other

    lines = list(export_table(candidate, [Path("graphs")], measured))[4:]
    assert [line.split(" |")[0] for line in lines] == ["| eager"] * 3 + ["| torch.compile"] + [
        "| ONNX Runtime, graphs"
    ] * 3
    assert lines[3] == "| torch.compile |" + " - |" * 9
    assert "failed: torch.compile: RuntimeError: no compiler\n" in capsys.readouterr().err
    expected = same_dice(changed, cost.cases[-1].mask)
    assert f"| H&E | 3 | 3 | {(200 + expected) / 3:.3f} | {expected:.3f} |" in lines[5]
    assert "| CT | 3 | 30 | 100.000 | 100.000 |" in lines[4]


def test_nothing_is_compared_where_eager_fails(candidate: Candidate) -> None:
    def measured(one: Candidate) -> RunCost:
        raise CaseError("weights.pt", "is missing", "train")

    assert [line[:9] for line in export_table(candidate, [Path("graphs")], measured)][4:] == ["| eager |"]


def test_dice_counts_what_both_give_the_same_label() -> None:
    draw = np.random.default_rng(0)
    mask, other = (draw.integers(0, 4, (20, 20), dtype=np.uint8) for _ in range(2))
    overlap = sum(int(((mask == label) & (other == label)).sum()) for label in (1, 2, 3))
    sizes = sum(int((one == label).sum()) for one in (mask, other) for label in (1, 2, 3))
    assert same_dice(mask, other) == pytest.approx(200 * overlap / sizes)
    empty = np.zeros_like(mask)
    assert (same_dice(empty, empty), same_dice(mask, empty)) == (100.0, 0.0)


def test_cases_are_taken_at_even_distances(phantoms: dict[str, Path]) -> None:
    ids = [case.id for case in CaseList(phantoms["X-ray"], "test", 3).references()]
    assert [case.id for case in CaseList(phantoms["X-ray"], "test", 2).references()] == [ids[0], ids[2]]
    with pytest.raises(CaseError, match="ask for at least 1"):
        CaseList(phantoms["X-ray"], "test", 0).references()


def test_a_missing_compiler_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        RuntimeError, match=r"^torch.compile needs the C\+\+ compiler no-such-compiler; install it"
    ):
        check_compiler()
