"""A training that is killed and started again gives, bit for bit, what an undisturbed one gives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

EPOCHS, STEPS = 4, 8
SMALL: dict[str, Any] = {
    "image_size": 64,
    "images_per_epoch": 4 * STEPS,
    "batch_size": 4,
    "epochs": EPOCHS,
    "warmup_steps": 3,
    "average_decay": 0.9,
}


def equal(one: Any, other: Any) -> bool:
    """Of nested state dicts, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def outcome(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return tuple(torch.load(folder / name, weights_only=True) for name in ("latest.pt", "model.pt"))  # type: ignore[return-value]


def assert_same(one: Path, other: Path) -> None:
    (latest, best), (latest_other, best_other) = outcome(one), outcome(other)
    assert latest["progress"]["epoch"] == EPOCHS
    assert set(latest) == {"network", "averaged", "optimizer", "lr_scheduler", "progress", "settings"}
    for part in latest:
        assert equal(latest[part], latest_other[part]), part
    assert equal(best, best_other)


def kill_within_epoch(log: Path, epoch: int) -> Callable[[int], None]:
    """Kill a training shortly after the end of `epoch`, within the steps of the next."""

    def watch(process: int) -> None:
        deadline = time.monotonic() + 120
        while not (log / "latest.pt").exists() or finished_epoch(log) < epoch:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.15)
        os.kill(process, signal.SIGKILL)

    return watch


def finished_epoch(folder: Path) -> int:
    return int(torch.load(folder / "latest.pt", weights_only=True)["progress"]["epoch"])


def test_a_killed_training_goes_on_bit_for_bit(
    commands: Any, tiny: Any, phantoms: dict[str, Path], tmp_path: Path
) -> None:
    arguments = ["run", "--config_file", f"['configs/inference.yaml','configs/train.yaml','{tiny.config}']"]
    options = {
        **SMALL,
        "datalist": f"['{phantoms['CT']}','{phantoms['X-ray']}']",
        "validation_datalist": phantoms["X-ray"],
    }
    options |= {"bfloat16": False, "num_workers": 1}
    arguments += [str(part) for name, value in options.items() for part in (f"--{name}", value)]

    whole = commands("monai.bundle", *arguments, "--output_dir", tmp_path / "whole")
    assert whole.code == 0, whole.stderr
    part = tmp_path / "part"
    killed = commands("monai.bundle", *arguments, "--output_dir", part, watch=kill_within_epoch(part, 2))
    assert killed.code == -signal.SIGKILL
    assert finished_epoch(part) == 2
    again = commands.fresh("monai.bundle", *arguments, "--output_dir", part)
    assert again.code == 0, again.stderr
    assert_same(tmp_path / "whole", part)


def test_a_bfloat16_training_interrupted_within_an_epoch_goes_on_bit_for_bit(
    workflow: Callable[..., ConfigWorkflow], phantoms: dict[str, Path], tmp_path: Path
) -> None:
    def training(folder: str, stop_after: int | None = None) -> None:
        options = {
            **SMALL,
            "images_per_epoch": 16,
            "bfloat16": True,
            "num_workers": 0,
            "validation_split": "test",
        }
        made = workflow(
            "train.yaml", datalist=str(phantoms["H&E"]), output_dir=str(tmp_path / folder), **options
        )
        trainer = made.trainer

        def stop(engine: Any) -> None:
            raise KeyError("interrupted")

        if stop_after is not None:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop_after), stop)
        made.run()

    training("whole")
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        training("part", stop_after=2 * 4 + 2)
    assert finished_epoch(tmp_path / "part") == 2
    torch.rand(17)
    training("part")
    assert_same(tmp_path / "whole", tmp_path / "part")


def test_another_seed_gives_another_training(
    workflow: Callable[..., ConfigWorkflow], phantoms: dict[str, Path], tmp_path: Path
) -> None:
    """Or the comparisons above would prove nothing."""
    states = []
    for run, seed in enumerate((0, 0, 1)):
        options = {"output_dir": str(tmp_path / str(run)), "bfloat16": False, "num_workers": 0, "seed": seed}
        made = workflow("train.yaml", datalist=str(phantoms["H&E"]), **{**SMALL, **options})
        network = made.parser.get_parsed_content("network_def")
        dataset = made.parser.get_parsed_content("train#dataset")
        states.append(({key: value.clone() for key, value in network.state_dict().items()}, dataset.plan))
    assert equal(states[0], states[1])
    assert not equal(states[0][0], states[2][0]) and not equal(states[0][1], states[2][1])
