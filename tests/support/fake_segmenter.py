"""A network for tests that one can see through, and texts that a careless program would act upon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from bundle.diffusion.sampling import Sampling
from bundle.networks.prompt_reading import PromptReading
from bundle.networks.text_prior import TextFeatures

#: As a configuration's `network_def`.
READER = {"_target_": "tests.support.fake_segmenter.TextReader", "classes": "$@structure_set.channels"}
TEXTS = [
    "$__import__('os').mkdir('evaluated'); left",
    "$import os",
    "@image",
    "@weights#0 right",
    "%x",
    "%configs/inference.yaml::seed",
    "#1",
    "</s>",
    "[CLS] left [MASK]",
    "{'a': 1}, [2] {{x}} ${HOME} %s \\ \"quoted\"",
    " leading, trailing and\nbroken\tlines ",
    "word " * 8191 + "left",
    "両側の肺感染、左肺の上部。",
    "Двусторонняя инфекция",
    "عدوى رئوية ثنائية",
    "e\u0301 \U0001fac1 \u200f\u0000",
]


class FakeSegmenter(nn.Module):
    """Implements the `Segmenter` protocol. Its result follows from a function, and it keeps what it was asked.

    Args:
        scores: (image (B, 3, H, W), prompts, one an image) -> logits (B, classes, H, W).
        named: the channels that a prompt names; None for a network whose prompts choose nothing.

    Attributes:
        texts_read: the text of each call of `read`.
        prompts: the prompt of each image that was segmented.
        keys, batches: the keys of all images and the shape of each batch, as `predict` got them.
    """

    stride = 32
    reads_text = True
    longest = 100

    def __init__(
        self,
        classes: int,
        scores: Callable[[Tensor, Sequence[str]], Tensor],
        named: Callable[[str], list[int] | None] | None = None,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.scores = scores
        self.named = named
        self.names_structures = named is not None
        self.bias = nn.Parameter(torch.zeros(classes))  # something to train and to save
        self.texts_read: list[str] = []
        self.prompts: list[str] = []
        self.keys: list[str] = []
        self.batches: list[tuple[int, ...]] = []

    def read(self, prompt: str) -> PromptReading:
        self.texts_read.append(prompt)
        named = self.named(prompt) if self.named else None
        features = TextFeatures(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1))
        cut = max(0, len(prompt.split()) - self.longest)
        return PromptReading(prompt, features, None if named is None else tuple(named), cut)

    @torch.no_grad()
    def predict(
        self,
        image: Tensor,
        keys: Sequence[str],
        sampling: Sampling,
        possible: Tensor | None = None,
        prompts: Sequence[PromptReading] | None = None,
    ) -> Tensor:
        assert image.shape[-1] % self.stride == image.shape[-2] % self.stride == 0
        assert len(keys) == len(image) and (possible is None or len(possible) == len(image))
        self.batches.append(tuple(image.shape))
        self.keys += keys
        texts = None if prompts is None else [reading.text for reading in prompts]
        probability = self(image, texts, possible=possible)
        return probability[None].repeat(sampling.members * sampling.steps, 1, 1, 1, 1)

    def forward(
        self,
        image: Tensor,
        prompts: Sequence[str] | None = None,
        noisy: tuple[Tensor, Tensor] | None = None,
        possible: Tensor | None = None,
        logits: bool = False,
    ) -> Tensor:
        texts = [""] * len(image) if prompts is None else prompts
        assert len(texts) == len(image)
        self.prompts.extend(texts)
        scores = self.scores(image, texts) + self.bias[None, :, None, None]
        if possible is not None:
            scores = scores.masked_fill(~possible[:, :, None, None], -1e4)
        return scores if logits else scores.softmax(dim=1)


class TextReader(FakeSegmenter):
    """Paints the sides of the image that its text names: columns first to half for 'left', the rest for 'right'.

    Attributes:
        told: the prompts of all images that any of its kind was given, in their order.
    """

    told: ClassVar[list[str]] = []

    def __init__(self, classes: int) -> None:
        super().__init__(classes, self._sides)

    def _sides(self, image: Tensor, texts: Sequence[str]) -> Tensor:
        self.told.extend(texts)
        scores = image.new_zeros(len(image), self.classes, *image.shape[-2:])
        half = image.shape[-1] // 2
        for number, text in enumerate(texts):
            scores[number, 1:, :, :half] = 8.0 if "left" in text else 0.0
            scores[number, 1:, :, half:] = 8.0 if "right" in text else 0.0
        scores[:, 0] = 4.0
        return scores
