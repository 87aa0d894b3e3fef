"""Averaging, clipping, seeding and checkpoints do what they say, also when the process dies in between."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from bundle.cases import CaseError
from bundle.folder_lock import folder_lock
from bundle.learning import (
    AfterEachStep,
    Checkpoints,
    ClipGradients,
    EpochSeed,
    MaskTarget,
    averaged_network,
    step_figures,
    warmup_cosine,
)
from bundle.learning.checkpoint import load_checkpoint, save_checkpoint, save_whole
from bundle.networks import WeightsError
from bundle.networks.weights import read_state_dict


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


# --- averaging -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
def test_the_average_equals_a_naive_one(decay: float) -> None:
    trained = network()
    averaged = averaged_network(trained, decay)
    expected = [parameter.detach().clone().double() for parameter in trained.parameters()]
    generator = torch.Generator().manual_seed(1)
    for step in range(40):
        with torch.no_grad():
            for parameter in trained.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        averaged.update_parameters(trained)
        if step == 0:
            expected = [parameter.detach().clone().double() for parameter in trained.parameters()]
            continue
        kept = min(decay, (1 + step) / (10 + step))
        for mean, parameter in zip(expected, trained.parameters(), strict=True):
            mean.mul_(kept).add_((1 - kept) * parameter.detach().double())
    for mean, parameter in zip(expected, averaged.module.parameters(), strict=True):
        torch.testing.assert_close(parameter.double(), mean, rtol=1e-5, atol=1e-5)


def test_statistics_of_batch_normalisation_are_averaged_like_weights() -> None:
    trained = nn.Sequential(nn.BatchNorm1d(2))
    averaged = averaged_network(trained, decay=0.5)
    expected = None
    for step in range(6):
        trained(torch.randn(8, 2) + step)
        averaged.update_parameters(trained)
        mean = trained[0].running_mean
        weight = 1.0 - min(0.5, (1.0 + step) / (10.0 + step))
        # the first update copies
        expected = mean.clone() if expected is None else expected + weight * (mean - expected)
    torch.testing.assert_close(averaged.module[0].running_mean, expected)
    assert not torch.allclose(averaged.module[0].running_mean, trained[0].running_mean)
    assert int(averaged.module[0].num_batches_tracked) == 6


def test_each_step_advances_the_average_and_the_learning_rate() -> None:
    trained = network()
    averaged = averaged_network(trained)
    optimizer = torch.optim.SGD(trained.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    engine = Engine(lambda engine, batch: optimizer.step())
    AfterEachStep(trained, averaged, scheduler).attach(engine)
    engine.run(range(3), max_epochs=2)
    assert int(averaged.n_averaged) == 6
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5**6)


# --- clipping --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "expected"), [(100.0, 1.5), (1e-3, None)])
def test_gradients_are_clipped_together(scale: float, expected: float | None) -> None:
    trained = network()
    generator = torch.Generator().manual_seed(0)
    for parameter in trained.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    before = torch.cat(
        [parameter.grad.flatten() for parameter in trained.parameters() if parameter.grad is not None]
    )
    engine = Engine(lambda engine, batch: engine.fire_event(IterationEvents.BACKWARD_COMPLETED))
    engine.register_events(*IterationEvents)
    ClipGradients(trained, 1.5).attach(engine)
    engine.run([0])
    after = torch.cat(
        [parameter.grad.flatten() for parameter in trained.parameters() if parameter.grad is not None]
    )
    if expected is None:
        assert torch.equal(before, after)
    else:
        assert float(after.norm()) == pytest.approx(expected, rel=1e-4)
        torch.testing.assert_close(after / after.norm(), before / before.norm())


# --- seeds -----------------------------------------------------------------------------------------------


def test_an_epoch_is_seeded_whatever_ran_before() -> None:
    drawn: dict[tuple[int, int], Tensor] = {}
    epochs: list[int] = []
    dataset: Any = SimpleNamespace(set_epoch=epochs.append)

    def run(start: int, rank: int) -> None:
        engine = Engine(lambda engine, batch: drawn.__setitem__((rank, engine.state.epoch), torch.rand(4)))
        engine.add_event_handler(Events.STARTED, lambda engine: setattr(engine.state, "epoch", start))
        EpochSeed(dataset, seed=5, rank=rank).attach(engine)
        engine.run([0], max_epochs=4)

    run(0, rank=0)
    whole = dict(drawn)
    torch.rand(100)
    run(2, rank=0)
    assert epochs == [1, 2, 3, 4, 3, 4]
    assert all(torch.equal(whole[key], drawn[key]) for key in whole)
    run(0, rank=1)
    assert len({tuple(values.tolist()) for values in drawn.values()}) == 8


# --- the progress bar's figures --------------------------------------------------------------------------


def test_the_figures_of_a_step_are_loss_and_dice_in_per_cent() -> None:
    label = torch.zeros(2, 4, 4, dtype=torch.long)
    label[:, :2] = 1
    every = torch.ones(2, 2, dtype=torch.bool)
    target = MaskTarget(label, every, every)
    logits = 50.0 * target.scaled_one_hot()
    figures = step_figures({"loss": torch.tensor(0.25), "label": target, "pred": logits})
    assert figures == pytest.approx({"loss": 0.25, "Dice": 100.0})
    several = {"loss": torch.tensor(0.25), "label": [target, target], "pred": [logits, -logits]}
    assert step_figures(several) == figures
    nothing = MaskTarget(torch.zeros_like(label), every, every)
    assert set(step_figures({"loss": torch.tensor(0.25), "label": nothing, "pred": logits})) == {"loss"}


# --- checkpoints -----------------------------------------------------------------------------------------


def training(seed: int) -> dict[str, Any]:
    trained = network(seed)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.01)
    trained(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {"network": trained, "averaged": averaged_network(trained), "optimizer": optimizer}


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    saved, other = training(1), training(2)
    save_checkpoint(tmp_path / "latest.pt", saved, {"epoch": 7, "best_metric": 12.5})
    assert load_checkpoint(tmp_path / "latest.pt", other) == {"epoch": 7, "best_metric": 12.5}
    for name in ("network", "averaged"):
        ours, theirs = saved[name].state_dict(), other[name].state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    ours, theirs = saved["optimizer"].state_dict(), other["optimizer"].state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert torch.equal(ours["state"][0]["exp_avg"], theirs["state"][0]["exp_avg"])
    weights = read_state_dict(tmp_path / "latest.pt")
    assert torch.equal(weights["0.weight"], saved["averaged"].module[0].weight)


def test_files_that_are_no_checkpoint_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"latest\.pt: is not a readable checkpoint; .*\.$"):
        load_checkpoint(path, training(0))
    torch.save({"network": {}}, path)
    with pytest.raises(WeightsError, match=r"latest\.pt: holds no averaged; .*\.$"):
        load_checkpoint(path, training(0))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    save_whole({"a": torch.ones(1)}, path)
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle|local"):
        save_whole({"a": torch.zeros(1), "b": lambda: None}, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["latest.pt"]


def test_a_killed_write_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    small, large = torch.full((1000,), 1.0), torch.full((3_000_000,), 2.0)
    save_whole(small, path)
    writer = os.fork()
    if writer == 0:
        while True:
            save_whole(large, path)
            save_whole(small, path)
    while not list(tmp_path.glob(".partial-*")):
        assert os.waitpid(writer, os.WNOHANG) == (0, 0)
    os.kill(writer, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) == -signal.SIGKILL
    content = torch.load(path, weights_only=True)
    assert torch.equal(content, small) or torch.equal(content, large)


def run_epochs(folder: Path, metrics: list[float | None], **options: Any) -> Checkpoints:
    """An engine of one step an epoch whose validation gives these metrics."""
    parts = training(0)
    remaining = list(metrics)
    checkpoints = Checkpoints(
        folder,
        parts,
        parts["averaged"],
        validation_metric=lambda: remaining.pop(0),
        epoch_length=1,
        **options,
    )

    def step(engine: Engine, batch: int) -> None:
        for parameter in parts["averaged"].module.parameters():
            parameter.data.fill_(float(engine.state.epoch))

    engine = Engine(step)
    checkpoints.attach(engine)
    engine.run([0], max_epochs=options.pop("epochs", len(metrics)))
    return checkpoints


def test_the_best_average_is_kept(tmp_path: Path) -> None:
    checkpoints = run_epochs(tmp_path, [10.0, 30.0, None, 20.0])
    assert checkpoints.best_metric == 30.0
    best = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(tensor, torch.full_like(tensor, 2.0)) for tensor in best.values())
    latest = torch.load(tmp_path / "latest.pt", weights_only=True)
    assert latest["progress"] == {"epoch": 4, "best_metric": 30.0}


def test_without_any_validation_the_last_average_is_kept(tmp_path: Path) -> None:
    run_epochs(tmp_path, [None, None, None])
    kept = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(tensor, torch.full_like(tensor, 3.0)) for tensor in kept.values())


def test_a_continuation_with_other_settings_is_refused(tmp_path: Path) -> None:
    run_epochs(tmp_path, [1.0], settings={"batch_size": 4, "seed": 1})
    run_epochs(tmp_path, [1.0, 2.0], settings={"batch_size": 4, "seed": 1})
    with pytest.raises(WeightsError, match=r"latest\.pt: was trained with batch_size 4, not 8; .*\.$"):
        run_epochs(tmp_path, [1.0], settings={"batch_size": 8, "seed": 1})


def test_the_learning_rate_rises_then_falls_to_nothing_and_stays_there() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = warmup_cosine(optimizer, warmup_steps=4, total_steps=12)
    rates = []
    for _ in range(16):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    naive = [2.0 * (step + 1) / 5 for step in range(4)]
    naive += [1.0 + np.cos(np.pi * min(1.0, (step - 4) / 8)) for step in range(4, 16)]
    assert rates == pytest.approx(naive)


def test_the_best_so_far_counts_after_a_resumption(tmp_path: Path) -> None:
    run_epochs(tmp_path, [50.0])
    before = (tmp_path / "model.pt").read_bytes()
    parts = training(0)
    checkpoints = Checkpoints(tmp_path, parts, parts["averaged"], validation_metric=lambda: 40.0)
    engine = Engine(lambda engine, batch: None)
    checkpoints.attach(engine)
    state = engine.run([0], max_epochs=2)
    assert state.epoch == 2 and checkpoints.best_metric == 50.0
    assert (tmp_path / "model.pt").read_bytes() == before


def test_a_new_training_does_not_overwrite_another(tmp_path: Path) -> None:
    run_epochs(tmp_path, [1.0])
    with pytest.raises(FileExistsError, match=r"latest\.pt: a training lies here; .*\.$"):
        run_epochs(tmp_path, [1.0], resume=False)


def test_a_second_training_into_a_folder_in_use_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(CaseError, match="another training is writing into it; wait"):
        run_epochs(tmp_path, [40.0])
    assert not list(tmp_path.iterdir())
    run_epochs(tmp_path, [40.0])
    assert (tmp_path / "latest.pt").is_file()
    with folder_lock(tmp_path):  # which the training has let go
        pass
