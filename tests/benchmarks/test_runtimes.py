"""The comparison of runtimes: whose masks and figures it compares, and what it says where one is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from scripts.benchmarks.runtimes import Candidate, RunCost, compile_parts, measure, same_dice, table


@pytest.fixture(scope="module")
def candidate(tiny: Any, phantoms: dict[str, Path]) -> Candidate:
    return Candidate("eager", tiny.trained, phantoms["H&E"], "test", 2, (tiny.config,))


def test_the_first_and_the_last_case_are_evaluated(candidate: Candidate) -> None:
    cost = measure(candidate)
    assert list(cost.masks) == list(cost.seconds) and len(cost.masks) == 2
    assert all(mask.any() for mask in cost.masks.values()) and all(cost.seconds.values())
    assert cost.dice is not None and 0.0 < cost.dice < 100.0 and cost.memory_mib >= 0.0
    with pytest.raises(ValueError, match="ask for at least 1"):
        measure(replace(candidate, count=0))


def test_masks_that_differ_show_and_a_runtime_that_fails_leaves_the_others(
    candidate: Candidate, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(0)
    mask, other = (draw.integers(0, 4, (20, 20), dtype=np.uint8) for _ in range(2))
    cost = RunCost(70.0, 5.0, {"a": 1.0, "b": 2.0}, {"a": mask, "b": mask})

    def measured(one: Candidate) -> RunCost:
        if one.compiled:
            raise RuntimeError("no compiler\nand much more")
        return cost if one.name == "eager" else replace(cost, masks={"a": mask, "b": other})

    eager, compiled, graphs = table(candidate, [Path("graphs")], measured)
    assert eager.endswith("2 | 100.000 | 100.000 | 70.00 | 1.500 | 5 |")
    assert compiled.startswith("| torch.compile |") and compiled.endswith("|" + " - |" * 6)
    assert "failed: torch.compile: RuntimeError: no compiler\n" in capsys.readouterr().err
    lowest = same_dice(mask, other)
    assert f"{(100 + lowest) / 2:.3f} | {lowest:.3f} | 70.00" in graphs

    def failing(one: Candidate) -> RunCost:
        raise ValueError("weights are missing")

    assert len(list(table(candidate, [Path("graphs")], failing))) == 1, "nothing to compare with"


def test_dice_counts_what_both_give_the_same_label() -> None:
    draw = np.random.default_rng(0)
    mask, other = (draw.integers(0, 4, (20, 20), dtype=np.uint8) for _ in range(2))
    overlap = sum(int(((mask == label) & (other == label)).sum()) for label in (1, 2, 3))
    sizes = sum(int((one == label).sum()) for one in (mask, other) for label in (1, 2, 3))
    assert same_dice(mask, other) == pytest.approx(200 * overlap / sizes)
    empty = np.zeros_like(mask)
    assert (same_dice(empty, empty), same_dice(mask, empty)) == (100.0, 0.0)


def test_a_missing_compiler_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match=r"needs the C\+\+ compiler no-such-compiler; install it"):
        compile_parts(nn.Identity())
