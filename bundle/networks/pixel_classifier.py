"""Pixel classifier over maps of several scales, and what its networks have in common.

TextDiff (Feng, 'Enhancing Label-Efficient Medical Image Segmentation with Text-guided Diffusion Models', 2024) and
LCPDN (eq. 11) bring every map to the size of the image, concatenate them and classify each pixel by three 3x3
convolutions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bundle.diffusion.consensus import consensus
from bundle.diffusion.sampling import Sampling
from bundle.networks.prompt_reading import PromptReading, Prompts, batched_features, one_each
from bundle.networks.segmenter import only_possible
from bundle.networks.text_prior import TextFeatures, TextPrior
from bundle.networks.weights import WholeNetwork

Normalisation = Literal["instance", "batch"]


class PixelClassifier(nn.Module):
    """Upsample, concatenate; 3x3 to 128, 3x3 to 32, each normalised and with ReLU; 3x3 to the classes.

    The papers normalise over the batch and train with batches of one, which is to normalise each image by itself. At
    inference their layers then take averages over many images instead, and a network that has learnt to rely on its
    own image's statistics finds almost nothing. Instance normalisation, with the same parameters, is the same in such
    a training and stays so at inference.

    Args:
        channels: of all maps together.
        classes: background included.
        widths: of the two hidden layers.
        normalisation: 'instance', or 'batch' as published.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: tuple[int, int] = (128, 32),
        normalisation: Normalisation = "instance",
    ) -> None:
        super().__init__()
        if normalisation not in get_args(Normalisation):
            raise ValueError(f"normalisation must be 'instance' or 'batch', not {normalisation!r}")

        def normalise(width: int) -> nn.Module:
            return (
                nn.BatchNorm2d(width) if normalisation == "batch" else nn.InstanceNorm2d(width, affine=True)
            )

        self.layers = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1),
            normalise(widths[0]),
            nn.ReLU(),
            nn.Conv2d(widths[0], widths[1], 3, padding=1),
            normalise(widths[1]),
            nn.ReLU(),
            nn.Conv2d(widths[1], classes, 3, padding=1),
        )

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Maps (B, C_i, h_i, w_i) -> (B, classes, *size) logits."""
        upsampled = [
            nn.functional.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)
            for features in maps
        ]
        return self.layers(torch.cat(upsampled, dim=1))


class PixelSegmenter(WholeNetwork, ABC):
    """A network that classifies pixels by image and text, with no mask to denoise; see `protocol.Segmenter`.

    Args:
        classes: channels of the mask, background included.
        stride: the sides of an image must be multiples of it.
        text_prior: None for a network that reads no text.
        sampling: how `forward` samples: members read the image prior under a noise of their own.
    """

    def __init__(
        self, classes: int, stride: int, text_prior: TextPrior | None, sampling: Sampling | None = None
    ) -> None:
        super().__init__()
        self.classes = classes
        self.stride = stride
        self.text_prior = text_prior
        self.sampling = sampling or Sampling(steps=1)
        _check_steps(self.sampling)

    @property
    def reads_text(self) -> bool:
        return self.text_prior is not None

    @property
    def names_structures(self) -> bool:
        return False

    @property
    def text_width(self) -> int:
        """Of a token; networks that read no text are given a single token of one zero."""
        return 1 if self.text_prior is None else self.text_prior.width

    @torch.no_grad()
    def read(self, prompt: str) -> PromptReading:
        """A prompt guides, and chooses nothing."""
        if self.text_prior is None:
            return PromptReading(prompt)
        return PromptReading.of(prompt, self.text_prior([prompt]), None, self.text_prior.cut_tokens(prompt))

    def _no_text(self, image: Tensor) -> TextFeatures:
        nothing = torch.zeros(len(image), 1, 1, device=image.device)
        return TextFeatures(nothing, torch.ones_like(nothing[..., 0], dtype=torch.bool), nothing[:, 0])

    @abstractmethod
    def logits(self, image: Tensor, text: TextFeatures, member: int = 0) -> Tensor:
        """(B, 3, H, W) in [0, 1] and text features -> (B, classes, H, W)."""

    def predict(
        self,
        image: Tensor,
        keys: Sequence[str],
        sampling: Sampling,
        possible: Tensor | None = None,
        prompts: Prompts | None = None,
    ) -> Tensor:
        """As for `protocol.Segmenter`; the noise is that of the member, the same for every image.

        Raises:
            ValueError: more than one step: there is no reverse process to take them in.
        """
        _check_steps(sampling)
        text = batched_features(prompts, len(image), self.read) or self._no_text(image)
        members = [
            self._possible(self.logits(image, text, member), possible) for member in range(sampling.members)
        ]
        return torch.stack(members).softmax(dim=2)

    def forward(
        self,
        image: Tensor,
        prompts: Sequence[str] | None = None,
        noisy: tuple[Tensor, Tensor] | None = None,
        possible: Tensor | None = None,
        logits: bool = False,
    ) -> Tensor:
        """(B, 3, H, W) -> (B, classes, H, W): probabilities, or with `logits` those of a training step."""
        if logits:
            prompts = one_each(prompts, len(image))
            text = self._no_text(image) if self.text_prior is None else self.text_prior(prompts)
            return self._possible(self.logits(image, text), possible)
        keys = [""] * len(image)
        predictions = self.predict(image, keys, self.sampling, possible, prompts)
        return consensus(predictions, self.sampling.steps, self.sampling.consensus)

    @staticmethod
    def _possible(logits: Tensor, possible: Tensor | None) -> Tensor:
        return only_possible(logits.float(), possible)


def _check_steps(sampling: Sampling) -> None:
    if sampling.steps != 1:
        raise ValueError(
            f"steps must be 1 for a network without a reverse process, not {sampling.steps}; raise members"
        )
