"""The whole network: image prior, then a mask denoiser that runs once a step.

    image -> image prior {C1..C4} -> neck -> fusion -> denoiser(x_t, log-SNR) -> x_0 -> sampler

MedCondDiff (arXiv 2512.00350) is this with PVT v2 B1, additive fusion and time in every map; what the prior
makes of an image never depends on the noise, so it is worked out once, however many steps and members follow.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bundle.diffusion.consensus import consensus
from bundle.diffusion.sampler import seeded_noise
from bundle.diffusion.sampling import Sampling, sample_members
from bundle.diffusion.schedule import LogSnrSchedule, cosine_log_snr
from bundle.networks.denoiser import MaskDenoiser
from bundle.networks.weights import WholeNetwork

#: A logit that no softmax in bfloat16 or float32 turns into anything but 0.
IMPOSSIBLE = -1e4


class DiffusionSegmenter(WholeNetwork):
    """Segments images by denoising masks under the guidance of an image prior.

    It reads no text: prompts are accepted, as `bundle.networks.protocol.Segmenter` asks, and ignored.

    Args:
        image_prior: maps at strides 4 to 32, see `PvtV2Prior`; None where the denoiser's fusion is 'none'.
        denoiser: see `MaskDenoiser`.
        schedule: log-SNR over time that training and sampling share.
        sampling: how `forward` samples.
    """

    reads_text = False

    def __init__(
        self,
        image_prior: nn.Module | None,
        denoiser: MaskDenoiser,
        schedule: LogSnrSchedule = cosine_log_snr,
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__()
        if denoiser.needs_prior and image_prior is None:
            raise ValueError("the denoiser fuses an image prior, and none was given")
        self.image_prior = image_prior if denoiser.needs_prior else None
        self.denoiser = denoiser
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

    def cut_tokens(self, prompt: str) -> int:
        """Always 0: nothing of a text is read."""
        return 0

    def encode(self, image: Tensor) -> list[Tensor]:
        """All that depends on the image alone.

        Args:
            image: (B, 3, H, W) in [0, 1], H and W multiples of `stride`.

        Returns:
            condition for `denoise`, batch first.
        """
        if image.shape[-2] % self.stride or image.shape[-1] % self.stride:
            raise ValueError(f"image sides must be multiples of {self.stride}, not {tuple(image.shape[-2:])}")
        pyramid = self.image_prior(image) if self.image_prior is not None else []
        return self.denoiser.prepare(image, pyramid)

    def denoise(
        self, x_t: Tensor, log_snr: Tensor, condition: Sequence[Tensor], possible: Tensor | None = None
    ) -> Tensor:
        """Logits of the clean mask.

        Args:
            x_t: (B, classes, H, W) noisy mask.
            log_snr: (B,).
            condition: of `encode`.
            possible: (B, classes) bool, the classes an image can show at all; None for every one.

        Returns:
            (B, classes, H, W) float32.
        """
        logits = self.denoiser(x_t, log_snr, condition).float()
        if possible is not None:
            logits = logits.masked_fill(~possible[:, :, None, None], IMPOSSIBLE)
        return logits

    def predict(
        self,
        image: Tensor,
        keys: Sequence[str],
        sampling: Sampling,
        possible: Tensor | None = None,
        prompts: Sequence[str] | None = None,
    ) -> Tensor:
        """Every prediction of every member, the image prior run once.

        Args:
            image: as for `encode`.
            keys: one an image; noise is seeded with (sampling.seed, key).
            sampling: steps, members and how they are taken.
            possible: as for `denoise`.
            prompts: ignored.

        Returns:
            (members * steps, B, classes, H, W) probabilities.
        """
        condition = self.encode(image)

        def denoiser(x_t: Tensor, log_snr: Tensor) -> Tensor:
            return self.denoise(x_t, log_snr, condition, possible).softmax(dim=1) * 2.0 - 1.0

        shape = (self.classes, *image.shape[-2:])
        noises = [
            seeded_noise(sampling.seed, [f"{key}/member {member}" for key in keys], shape, image.device)
            for member in range(sampling.members)
        ]
        return (sample_members(denoiser, noises, self.schedule, sampling) + 1.0) / 2.0

    def forward(
        self,
        image: Tensor,
        prompts: Sequence[str] | None = None,
        noisy: tuple[Tensor, Tensor] | None = None,
        possible: Tensor | None = None,
    ) -> Tensor:
        """Inference, or one prediction from a noisy mask.

        Args:
            image: (B, 3, H, W) in [0, 1].
            prompts: ignored.
            noisy: (x_t, log-SNR) for the training step, which goes through `forward` so that distributed
                wrappers see it; None samples with the settings the network was made with.
            possible: as for `denoise`.

        Returns:
            (B, classes, H, W): probabilities, or with `noisy` the logits of x_0.
        """
        if noisy is not None:
            return self.denoise(*noisy, self.encode(image), possible)
        keys = [f"image {index}" for index in range(len(image))]
        predictions = self.predict(image, keys, self.sampling, possible)
        return consensus(predictions, self.sampling.steps, self.sampling.consensus)


def count_parameters(module: nn.Module, trainable: bool = False) -> int:
    """Parameters of a module; with `trainable` only those that learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
