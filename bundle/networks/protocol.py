"""What the workflows ask of a network, whatever its architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from bundle.diffusion.sampling import Sampling
from bundle.networks.text_prior import TextFeatures

#: As a user wrote them, or as the text prior reads them.
Prompts = Sequence[str] | TextFeatures


def for_each(prompts: Prompts, count: int) -> Prompts:
    """One prompt for each of `count` images."""
    return prompts.expanded(count) if isinstance(prompts, TextFeatures) else list(prompts) * count


class Segmenter(Protocol):
    """A network that segments 2-D images, with or without a text that guides it.

    A text is taken as written. '' stands for no text, and None for no text with any image of a batch;
    networks that read none accept texts and ignore them.
    """

    @property
    def classes(self) -> int:
        """Channels of the mask, background included."""

    @property
    def stride(self) -> int:
        """The sides of an image must be multiples of it."""

    @property
    def reads_text(self) -> bool:
        """Whether a text changes the result."""

    @property
    def names_structures(self) -> bool:
        """Whether a text chooses what is segmented, see `named_channels`."""

    def cut_tokens(self, prompt: str) -> int:
        """How many tokens at the end of a text the network cannot read; 0 for networks that read none."""

    def named_channels(self, prompt: str) -> list[int] | None:
        """Channels of the structures that a prompt names; None where a prompt, or none, chooses nothing."""

    def read(self, prompts: Sequence[str]) -> Prompts:
        """What the text prior makes of prompts, for `predict`; the prompts themselves where none is read."""

    def predict(
        self,
        image: Tensor,
        keys: Sequence[str],
        sampling: Sampling,
        possible: Tensor | None = None,
        prompts: Prompts | None = None,
    ) -> Tensor:
        """Every prediction of every member, what depends on image or text alone worked out once.

        Args:
            image: (B, 3, H, W) in [0, 1], H and W multiples of `stride`.
            keys: one an image; noise is seeded with (sampling.seed, key).
            sampling: steps, members and how they are taken.
            possible: (B, classes) bool, the classes an image can show at all; None for every one.
            prompts: one an image, or what `read` made of them.

        Returns:
            (members * steps, B, classes, H, W) probabilities.
        """

    def forward(
        self,
        image: Tensor,
        prompts: Sequence[str] | None = None,
        noisy: tuple[Tensor, Tensor] | None = None,
        possible: Tensor | None = None,
    ) -> Tensor:
        """Inference, or what a training step needs.

        Networks that classify pixels without denoising take `logits: bool = False` besides and ignore `noisy`.

        Args:
            image, prompts, possible: as for `predict`.
            noisy: (x_t, log-SNR) of a training step.

        Returns:
            (B, classes, H, W): probabilities, or in training logits.
        """
