"""What the workflows ask of a network, whatever its architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from bundle.diffusion.sampling import Sampling
from bundle.networks.prompt_reading import PromptReading, Prompts


class Segmenter(Protocol):
    """A network that segments 2-D images, with or without a text that guides it.

    A text is taken as written, and '' stands for no text. Networks that read none accept texts and ignore them.
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
        """Whether a text chooses what is segmented, see `PromptReading.channels`."""

    def read(self, prompt: str) -> PromptReading:
        """What the network makes of a prompt, which no other prompt has a say in."""

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
            prompts: one an image, as written or as `read`; None for no text with any image.

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
