"""Training: data, loss, step, averaging and exact checkpoints, around MONAI's SupervisedTrainer."""

from bundle.learning.dataset import TrainingImages, prepare_batch, training_references, worker_threads
from bundle.learning.handlers import (
    AfterEachStep,
    Checkpoints,
    ClipGradients,
    EpochSeed,
    TrainingProgress,
    averaged_network,
    step_figures,
    warmup_cosine,
)
from bundle.learning.losses import HybridLoss, MaskTarget, log_inverse_frequency
from bundle.learning.step import NoisedMaskInferer

__all__ = [
    "AfterEachStep",
    "Checkpoints",
    "ClipGradients",
    "EpochSeed",
    "HybridLoss",
    "MaskTarget",
    "NoisedMaskInferer",
    "TrainingImages",
    "TrainingProgress",
    "averaged_network",
    "log_inverse_frequency",
    "prepare_batch",
    "step_figures",
    "training_references",
    "warmup_cosine",
    "worker_threads",
]
