"""Training: data, loss, step, averaging and exact checkpoints, around MONAI's SupervisedTrainer."""

from bundle.learning.dataset import (
    TrainingImages,
    by_size,
    prepare_batch,
    training_references,
    worker_threads,
)
from bundle.learning.drawing import case_references
from bundle.learning.handlers import (
    AfterEachStep,
    Checkpoints,
    ClipGradients,
    EpochSeed,
    TrainingProgress,
    averaged_network,
    loss_figure,
    step_figures,
    warmup_cosine,
)
from bundle.learning.image_pretraining import (
    NoisedImageInferer,
    UnlabelledImages,
    prepare_image_batch,
)
from bundle.learning.losses import HybridLoss, MaskTarget, log_inverse_frequency
from bundle.learning.masked_images import (
    MaskedImageInferer,
    MaskedImageLoss,
    MaskedImageModel,
    prepare_masked_batch,
)
from bundle.learning.naming_training import NamingTraining
from bundle.learning.prompting import Prompt, PromptDrawer, prompt_drawer
from bundle.learning.step import LogitsInferer, NoisedMaskInferer
from bundle.learning.vision_pretraining import ViewContrast, ViewEncoder, prepare_views

__all__ = [
    "AfterEachStep",
    "Checkpoints",
    "ClipGradients",
    "EpochSeed",
    "HybridLoss",
    "LogitsInferer",
    "MaskTarget",
    "MaskedImageInferer",
    "MaskedImageLoss",
    "MaskedImageModel",
    "NamingTraining",
    "NoisedImageInferer",
    "NoisedMaskInferer",
    "Prompt",
    "PromptDrawer",
    "TrainingImages",
    "TrainingProgress",
    "UnlabelledImages",
    "ViewContrast",
    "ViewEncoder",
    "averaged_network",
    "by_size",
    "case_references",
    "log_inverse_frequency",
    "loss_figure",
    "prepare_batch",
    "prepare_image_batch",
    "prepare_masked_batch",
    "prepare_views",
    "prompt_drawer",
    "step_figures",
    "training_references",
    "warmup_cosine",
    "worker_threads",
]
