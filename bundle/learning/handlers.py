"""What happens around the training step: seeds, clipping, averaging, checkpoints and the progress bar."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys as Keys
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel

from bundle.cases.errors import CaseError
from bundle.folder_lock import FolderInUseError, folder_lock
from bundle.learning.checkpoint import Stateful, load_checkpoint, save_checkpoint, save_whole
from bundle.learning.drawing import DrawnImages, stable_seed
from bundle.learning.losses import batch_dice
from bundle.networks.segmenter import MaskAndNaming

logger = logging.getLogger(__name__)


class EpochSeed:
    """Make an epoch depend on (seed, epoch, rank) alone, whatever ran before it."""

    def __init__(self, dataset: DrawnImages, seed: int = 0, rank: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed
        self.rank = rank

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        self.dataset.set_epoch(epoch)
        torch.manual_seed(stable_seed(self.seed, epoch, "steps", self.rank))


class ClipGradients:
    """Clip the norm of all gradients together before the optimiser's step."""

    def __init__(self, network: nn.Module, max_norm: float = 1.0) -> None:
        self.network = network
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)


class AfterEachStep:
    """Advance the learning rate and the averaged weights by one step.

    Not ignite's EMAHandler: its momentum cannot follow the steps, and it averages no buffers.
    """

    def __init__(self, network: nn.Module, averaged: AveragedModel, lr_scheduler: LRScheduler) -> None:
        self.network = network
        self.averaged = averaged
        self.lr_scheduler = lr_scheduler

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        self.lr_scheduler.step()
        self.averaged.update_parameters(self.network)


def averaged_network(network: nn.Module, decay: float = 0.999) -> AveragedModel:
    """Exponential moving average of the weights, with a shorter memory at the start.

    decay_n = min(decay, (1 + n) / (10 + n)), as TensorFlow's ExponentialMovingAverage, so that a short
    training is not dominated by its random start. Statistics of batch normalisation are averaged like weights.
    """

    def average(averages: Any, current: Any, n: Any) -> None:
        if averages[0].is_floating_point():
            weight = 1.0 - min(decay, (1.0 + float(n)) / (10.0 + float(n)))
            torch._foreach_lerp_(averages, current, weight)
        else:
            torch._foreach_copy_(averages, current)

    network = getattr(network, "module", network)  # without a distributed wrapper
    return AveragedModel(network, multi_avg_fn=torch.no_grad()(average), use_buffers=True)


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Learning rate that rises linearly for `warmup_steps`, then falls as half a cosine to 0 at `total_steps`.

    Not MONAI's WarmupCosineSchedule: it rises again after `total_steps`, which a training that is extended would meet.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))

    return LambdaLR(optimizer, factor)


class Checkpoints:
    """Keep `latest.pt` to go on from and, in model.pt, the averaged weights that validated best.

    An earlier latest.pt is read at once, so that a training which cannot go on does not start. Attach it
    after the validation of an epoch.

    Args:
        folder: of latest.pt and of the best averaged weights, a plain state dict in model.pt.
        parts: everything that has a state.
        averaged: the averaged network.
        settings: what may not change between a training and its continuation.
        validation_metric: gives the metric of the validation just done, None where there was none.
        resume: go on from latest.pt where it exists; otherwise a new training in that folder is refused.
        epoch_length: steps an epoch.
        write: false in all but one process of a distributed training.

    Raises:
        FileExistsError: latest.pt exists and `resume` is false.
        WeightsError: latest.pt is damaged, or of a training with other settings.
        CaseError: when the training starts, another one is writing into the folder.
    """

    def __init__(
        self,
        folder: Path | str,
        parts: dict[str, Stateful],
        averaged: AveragedModel,
        settings: Mapping[str, Any] | None = None,
        validation_metric: Callable[[], float | None] | None = None,
        resume: bool = True,
        epoch_length: int = 1,
        write: bool = True,
    ) -> None:
        self.latest = Path(folder) / "latest.pt"
        self.best = Path(folder) / "model.pt"
        self.parts = parts
        self.averaged = averaged
        self.settings = dict(settings or {})
        self.validation_metric = validation_metric
        self.epoch_length = epoch_length
        self.write = write
        self.lock = ExitStack()  # let go at the end, or with this process
        self.epoch, self.best_metric = 0, float("-inf")
        if not self.latest.exists():
            return
        if not resume:
            raise FileExistsError(
                f"{self.latest}: a training lies here; resume it or give another --output_dir."
            )
        progress = load_checkpoint(self.latest, parts, self.settings)
        self.epoch, self.best_metric = int(progress["epoch"]), float(progress["best_metric"])

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        if self.write:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.keep)
            engine.add_event_handler(Events.COMPLETED, self.lock.close)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self.let_go)

    def start(self, engine: Engine) -> None:
        if self.write:
            self.latest.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.lock.enter_context(folder_lock(self.latest.parent))
            except FolderInUseError as error:
                problem, remedy = (
                    "another training is writing into it",
                    "wait for it, or give another output_dir",
                )
                raise CaseError(self.latest.parent, problem, remedy) from error
        engine.state.epoch, engine.state.iteration = self.epoch, self.epoch * self.epoch_length
        if self.epoch:
            logger.info("going on after epoch %d of %s", self.epoch, self.latest)

    def let_go(self, engine: Engine, error: Exception) -> None:
        """Of the folder; ignite takes an exception that a handler was called for as dealt with."""
        self.lock.close()
        raise error

    def keep(self, engine: Engine) -> None:
        metric = self.validation_metric() if self.validation_metric is not None else None
        better = metric is not None and metric > self.best_metric
        if metric is not None:
            note = "the best so far" if better else f"best {self.best_metric:.2f}"
            logger.info("validation Dice %.2f, %s", metric, note)
        # the last weights are better than none where nothing was ever validated
        if better or self.best_metric == float("-inf"):
            self.best_metric = metric if metric is not None else self.best_metric
            save_whole(self.averaged.module.state_dict(), self.best)
        self.epoch = engine.state.epoch
        progress = {"epoch": self.epoch, "best_metric": self.best_metric}
        save_checkpoint(self.latest, self.parts, progress, self.settings)


class TrainingProgress:
    """A bar with the figures of the step and the time left; a line in the log after each epoch.

    Args:
        bar: show it.
        figures: of the trainer's output, name -> value.

    Raises:
        FloatingPointError: the loss is not finite; what was saved before stands.
    """

    def __init__(
        self, bar: bool = True, figures: Callable[[dict[str, Any]], dict[str, float]] | None = None
    ) -> None:
        self.figures = figures or step_figures
        self.bar = ProgressBar(ncols=110) if bar else None
        self.loss_sum, self.steps = 0.0, 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.count)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.log)
        if self.bar is not None:
            self.bar.attach(engine, output_transform=self.figures)

    def reset(self, engine: Engine) -> None:
        self.loss_sum, self.steps = 0.0, 0

    def count(self, engine: Engine) -> None:
        loss = float(engine.state.output[Keys.LOSS].detach())
        if not math.isfinite(loss):  # ignite's TerminateOnNan ends the run as if it had succeeded
            raise FloatingPointError(
                f"the loss is {loss} at step {engine.state.iteration}; lower the learning rate and start again "
                "from the last checkpoint."
            )
        self.loss_sum += loss
        self.steps += 1

    def log(self, engine: Engine) -> None:
        mean_loss = self.loss_sum / max(self.steps, 1)
        logger.info("epoch %d of %d: loss %.4f", engine.state.epoch, engine.state.max_epochs, mean_loss)


def loss_figure(output: dict[str, Any]) -> dict[str, float]:
    """The loss alone."""
    return {"loss": float(output[Keys.LOSS].detach())}


@torch.no_grad()
def step_figures(output: dict[str, Any], images: int = 4) -> dict[str, float]:
    """Loss and, on the first images of the batch or of the first of several, mean Dice in per cent."""
    target, predicted = output[Keys.LABEL], output[Keys.PRED]
    if isinstance(target, list):
        target, predicted = target[0], predicted[0]
    target = type(target)(target.label[:images], target.labelled[:images], target.possible[:images])
    mask = predicted.mask if isinstance(predicted, MaskAndNaming) else predicted
    possible = mask[:images].float().masked_fill(~target.possible[..., None, None], float("-inf"))
    dice = batch_dice(possible.softmax(dim=1), target)
    figures = loss_figure(output)
    return figures | {"Dice": 100.0 * float(dice.mean())} if len(dice) else figures
