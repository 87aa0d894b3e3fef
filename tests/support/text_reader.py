"""A network that reads text, small enough to see through, and texts that a careless program would act upon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from bundle.diffusion.sampling import Sampling

#: As a configuration's `network_def`.
READER = {"_target_": "tests.support.text_reader.TextReader", "classes": "$@structure_set.channels"}
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


class TextReader(nn.Module):
    """Paints the sides of the image that its text names: columns first to half for 'left', the rest for 'right'.

    Attributes:
        told: all texts that any of its kind was given, in their order.
    """

    stride = 32
    reads_text = True
    longest = 100
    told: ClassVar[list[str]] = []

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.bias = nn.Parameter(torch.zeros(classes))

    def cut_tokens(self, prompt: str) -> int:
        return max(0, len(prompt.split()) - self.longest)

    names_structures = False

    def named_channels(self, prompt: str) -> None:
        return None

    def read(self, prompts: Sequence[str]) -> Sequence[str]:
        return prompts

    def predict(
        self,
        image: Tensor,
        keys: Sequence[str],
        sampling: Sampling,
        possible: Tensor | None = None,
        prompts: Sequence[str] | None = None,
    ) -> Tensor:
        probability = self(image, prompts, possible=possible)
        return probability[None].expand(sampling.members * sampling.steps, -1, -1, -1, -1)

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
        self.told.extend(texts)
        scores = self.bias[None, :, None, None].expand(len(image), -1, *image.shape[-2:]).clone()
        half = image.shape[-1] // 2
        painted = torch.zeros_like(scores)
        for number, text in enumerate(texts):
            painted[number, 1:, :, :half] = 8.0 if "left" in text else 0.0
            painted[number, 1:, :, half:] = 8.0 if "right" in text else 0.0
        painted[:, 0] = 4.0
        scores = scores + painted
        if possible is not None:
            scores = scores.masked_fill(~possible[:, :, None, None], -1e4)
        return scores if logits else scores.softmax(dim=1)
