"""The whole network: image prior and text prior, then a mask denoiser that runs once a step.

    image  -> image prior {C1..C4} --+-> text conditioning -> neck -> fusion -> denoiser(x_t, log-SNR) -> x_0 -> sampler
    prompt -> text prior ------------+-> naming: the structures that are asked for

MedCondDiff (arXiv 2512.00350) is this with PVT v2 B1, no text, additive fusion and time in every map; what the
priors make of image and text never depends on the noise, so it is worked out once, however many steps and members
follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bundle.diffusion.consensus import consensus
from bundle.diffusion.sampling import Sampling, sample_masks
from bundle.diffusion.schedule import LogSnrSchedule, cosine_log_snr
from bundle.networks.denoiser import MaskDenoiser
from bundle.networks.fusion import PyramidTextConditioning
from bundle.networks.naming import StructureNaming
from bundle.networks.prompt_reading import PromptReading, Prompts, batched_features, one_each
from bundle.networks.text_prior import TextFeatures, TextPrior
from bundle.networks.weights import WholeNetwork

#: A logit that no softmax in bfloat16 or float32 turns into anything but 0.
IMPOSSIBLE = -1e4


class MaskAndNaming(NamedTuple):
    """What a training step of a network that names structures gives.

    Attributes:
        mask: (B, classes, H, W) logits of the clean mask.
        naming: (texts, classes - 1) log-odds that each text names each structure.
    """

    mask: Tensor
    naming: Tensor


class DiffusionSegmenter(WholeNetwork):
    """Segments images by denoising masks, conditioned on an image prior and, with a text prior, on a text.

    Args:
        image_prior: maps at strides 4 to 32, see `PvtV2Prior`; None where the denoiser's fusion is 'none'.
        denoiser: see `MaskDenoiser`.
        schedule: log-SNR over time that training and sampling share.
        sampling: how `forward` samples.
        text_prior: None for a network that reads no text: prompts are accepted, as
            `bundle.networks.protocol.Segmenter` asks, and ignored.
        text_conditioning: brings the text into the image prior's maps.
        naming: tells which structures a prompt names; None where a prompt guides and chooses nothing.

    Raises:
        ValueError: parts that do not go together.
    """

    def __init__(
        self,
        image_prior: nn.Module | None,
        denoiser: MaskDenoiser,
        schedule: LogSnrSchedule = cosine_log_snr,
        sampling: Sampling | None = None,
        text_prior: TextPrior | None = None,
        text_conditioning: PyramidTextConditioning | None = None,
        naming: StructureNaming | None = None,
    ) -> None:
        super().__init__()
        if denoiser.needs_prior and image_prior is None:
            raise ValueError("the denoiser fuses an image prior, and none was given")
        if text_prior is None and (text_conditioning is not None or naming is not None):
            raise ValueError("text_conditioning and naming read a text prior, and none was given")
        if text_conditioning is not None and not denoiser.needs_prior:
            raise ValueError("the text conditions the image prior's maps, and the denoiser uses none")
        self.image_prior = image_prior if denoiser.needs_prior else None
        self.denoiser = denoiser
        self.text_prior = text_prior
        self.text_conditioning = text_conditioning
        self.naming = naming
        self.schedule = schedule
        self.sampling = sampling or Sampling()

    @property
    def classes(self) -> int:
        """Channels of the mask, background included."""
        return self.denoiser.classes

    @property
    def stride(self) -> int:
        """The sides of an image must be multiples of it."""
        return 32

    @property
    def mask_stride(self) -> int:
        """Of the noisy mask that the denoiser takes."""
        return self.denoiser.mask_stride

    @property
    def reads_text(self) -> bool:
        return self.text_prior is not None

    @property
    def learns_names(self) -> bool:
        """Whether a training step has to tell the names in texts, see `start_from`."""
        return self.naming is not None and any(p.requires_grad for p in self.naming.parameters())

    @property
    def names_structures(self) -> bool:
        return self.naming is not None

    @torch.no_grad()
    def read(self, prompt: str) -> PromptReading:
        if self.text_prior is None:
            return PromptReading(prompt)
        features = self.text_prior([prompt])
        log_odds = None if self.naming is None else self.naming(features)
        return PromptReading.of(prompt, features, log_odds, self.text_prior.cut_tokens(prompt))

    def encode(self, image: Tensor, text: TextFeatures | None = None) -> list[Tensor]:
        """All that depends on image and text alone.

        Args:
            image: (B, 3, H, W) in [0, 1], H and W multiples of `stride`.
            text: of B prompts; None for none.

        Returns:
            condition for `denoise`, batch first.
        """
        if image.shape[-2] % self.stride or image.shape[-1] % self.stride:
            raise ValueError(f"image sides must be multiples of {self.stride}, not {tuple(image.shape[-2:])}")
        pyramid = self.image_prior(image) if self.image_prior is not None else []
        if self.text_conditioning is not None and text is not None:
            pyramid = self.text_conditioning(pyramid, text)
        return self.denoiser.prepare(image, pyramid)

    def denoise(
        self, x_t: Tensor, log_snr: Tensor, condition: Sequence[Tensor], possible: Tensor | None = None
    ) -> Tensor:
        """Logits of the clean mask.

        Args:
            x_t: (B, classes, H / mask_stride, W / mask_stride) noisy mask.
            log_snr: (B,).
            condition: of `encode`.
            possible: (B, classes) bool, the classes an image can show at all; None for every one.

        Returns:
            (B, classes, H, W) float32.
        """
        return only_possible(self.denoiser(x_t, log_snr, condition).float(), possible)

    def predict(
        self,
        image: Tensor,
        keys: Sequence[str],
        sampling: Sampling,
        possible: Tensor | None = None,
        prompts: Prompts | None = None,
    ) -> Tensor:
        """Every prediction of every member, image prior and text prior run once.

        Args:
            image: as for `encode`.
            keys: one an image; noise is seeded with (sampling.seed, key).
            sampling: steps, members and how they are taken.
            possible: as for `denoise`.
            prompts: one an image, as written or as `read`; None for none.

        Returns:
            (members * steps, B, classes, H, W) probabilities.
        """
        condition = self.encode(image, batched_features(prompts, len(image), self.read))
        return sample_masks(
            lambda x_t, log_snr: self.denoise(x_t, log_snr, condition, possible),
            keys,
            (self.classes, *image.shape[-2:]),
            self.schedule,
            sampling,
            self.mask_stride,
            image.device,
        )

    def forward(
        self,
        image: Tensor,
        prompts: Sequence[str] | None = None,
        noisy: tuple[Tensor, Tensor] | None = None,
        possible: Tensor | None = None,
        texts: Sequence[str] = (),
    ) -> Tensor | MaskAndNaming:
        """Inference, or one prediction from a noisy mask.

        Args:
            image: (B, 3, H, W) in [0, 1].
            prompts: one an image; None for none.
            noisy: (x_t, log-SNR) for the training step, which goes through `forward` so that distributed
                wrappers see it; None samples with the settings the network was made with.
            possible: as for `denoise`; not in a training step, whose loss leaves out what an image cannot show.
            texts: of a training step, further prompts to name structures of, with no image.

        Returns:
            (B, classes, H, W) probabilities; with `noisy` the logits of x_0, and beside them the log-odds of
            the names in `prompts` and `texts`, if the network names.
        """
        if noisy is None:
            keys = [f"image {index}" for index in range(len(image))]
            predictions = self.predict(image, keys, self.sampling, possible, prompts)
            return consensus(predictions, self.sampling.steps, self.sampling.consensus)
        prompts = one_each(prompts, len(image))
        text = None if self.text_prior is None else self.text_prior([*prompts, *texts])
        own = None if text is None else text.first(len(image))
        logits = self.denoiser(*noisy, self.encode(image, own))
        if self.naming is None or text is None or not self.learns_names:
            return logits
        return MaskAndNaming(logits, self.naming(text))


def only_possible(logits: Tensor, possible: Tensor | None) -> Tensor:
    """(B, classes, H, W) logits, of which no softmax makes more than 0 where (B, classes) `possible` is False."""
    return logits if possible is None else logits.masked_fill(~possible[:, :, None, None], IMPOSSIBLE)


def count_parameters(module: nn.Module, trainable: bool = False) -> int:
    """Parameters of a module; with `trainable` only those that learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
