"""TextDiff and FastTextDiff: features of a frozen image DDPM attend to a report; a pixel classifier reads them.

Feng, 'Enhancing Label-Efficient Medical Image Segmentation with Text-guided Diffusion Models' (2024), with Clinical
BioBERT; FastTextDiff (arXiv 2512.00084) is the same with ModernBERT in its place, which reads long notes.
Differences from the published code, all of them faults there: reports are not cut to ten tokens, batches may hold
more than one image, padding is masked.
"""

from __future__ import annotations

from torch import Tensor, nn

from bundle.diffusion.sampling import Sampling
from bundle.networks.fusion import CrossModalBlock
from bundle.networks.image_ddpm_prior import ImageDdpmPrior
from bundle.networks.pixel_classifier import Normalisation, PixelClassifier, PixelSegmenter
from bundle.networks.text_prior import TextFeatures, TextPrior


class TextDiff(PixelSegmenter):
    """Text-guided pixel classifier.

    Args:
        classes: channels of the mask, background included.
        image_prior: features of the image.
        text_prior: of the report; None to classify without one.
        width: of the maps that attend to the text.
        heads, head_width: of the attention.
        normalisation: of the pixel classifier, see `PixelClassifier`.
        sampling: how `forward` samples.
    """

    def __init__(
        self,
        classes: int,
        image_prior: ImageDdpmPrior,
        text_prior: TextPrior | None = None,
        width: int = 768,
        heads: int = 8,
        head_width: int = 64,
        normalisation: Normalisation = "instance",
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__(classes, image_prior.stride, text_prior, sampling)
        self.image_prior = image_prior
        # as published: the coarsest map has a projection of its own, the others share one where they are
        # equally wide, and maps that have the width already have none
        self.projections = nn.ModuleDict()
        self._projection_of = []
        for scale, channels in enumerate(image_prior.channels):
            name = f"coarsest_{channels}" if scale == 0 else f"finer_{channels}"
            if channels != width and name not in self.projections:
                self.projections[name] = nn.Conv2d(channels, width, 1)
            self._projection_of.append(name if channels != width else None)
        self.fusion = CrossModalBlock(width, self.text_width, heads, head_width)
        self.classifier = PixelClassifier(
            len(image_prior.channels) * width, classes, normalisation=normalisation
        )

    def logits(self, image: Tensor, text: TextFeatures, member: int = 0) -> Tensor:
        fused = []
        for features, name in zip(self.image_prior(image, member=member), self._projection_of, strict=True):
            projected = features if name is None else self.projections[name](features)
            fused.append(self.fusion(projected, text))
        return self.classifier(fused, image.shape[-2:])
