"""LCPDN: lightweight cross-text-vision prompting diffusion network (ICLR 2026 submission).

    image -> CLIP ----+
    text  -> BioBERT -+-> prompt (eq. 1-5) -> image DDPM's timestep embedding -> features (eq. 6)
                      +-> LTFR at every scale (eq. 7-10) -> upsample, concatenate (eq. 11) -> pixel classifier

The image DDPM, CLIP and BioBERT are frozen. The prompt changes what the DDPM makes of the image, so gradients pass
through it and its features cannot be kept; without the prompt block (CPRFL) they can.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from bundle.diffusion.sampling import Sampling
from bundle.networks.alignment import TextVisionPrompt
from bundle.networks.fusion import TextFusionName, build_text_fusion
from bundle.networks.image_ddpm_prior import ImageDdpmPrior
from bundle.networks.pixel_classifier import Normalisation, PixelClassifier, PixelSegmenter
from bundle.networks.text_prior import TextFeatures, TextPrior
from bundle.networks.vision_prior import VisionPrior


class Lcpdn(PixelSegmenter):
    """Text-guided pixel classifier whose image features are prompted by text and image.

    Args:
        classes: channels of the mask, background included.
        image_prior: features of the image.
        text_prior: of the report; None to segment without one.
        vision_prior: image tokens for the prompt block; None leaves the block out (the paper's ablation of
            CPRFL).
        text_fusion: 'ltfr', or 'cross_attention' in its place (the paper's ablation of LTFR).
        fusion_width: of maps and tokens in the fusion. The paper states 4.52M trainable parameters and no
            widths: 136 with decoder blocks 4, 6, 8, 12 and 160 with 6, 8, 12, 16 meet it.
        prompt_width: shared latent dimension of the prompt block; None for the text prior's width.
        normalisation: of the pixel classifier, see `PixelClassifier`.
        sampling: how `forward` samples.
    """

    def __init__(
        self,
        classes: int,
        image_prior: ImageDdpmPrior,
        text_prior: TextPrior | None = None,
        vision_prior: VisionPrior | None = None,
        text_fusion: TextFusionName = "ltfr",
        fusion_width: int = 136,
        prompt_width: int | None = None,
        normalisation: Normalisation = "instance",
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__(classes, image_prior.stride, text_prior, sampling)
        self.image_prior = image_prior
        self.vision_prior = vision_prior
        self.prompt = (
            None
            if vision_prior is None
            else TextVisionPrompt(
                self.text_width,
                vision_prior.width,
                image_prior.embedding_width,
                prompt_width or self.text_width,
            )
        )
        self.text_projection = nn.Linear(self.text_width, fusion_width)
        self.image_projections = nn.ModuleList(
            nn.Conv2d(channels, fusion_width, 1) for channels in image_prior.channels
        )
        self.fusions = nn.ModuleList(
            build_text_fusion(text_fusion, fusion_width) for _ in image_prior.channels
        )
        self.classifier = PixelClassifier(
            len(image_prior.channels) * fusion_width, classes, normalisation=normalisation
        )

    def logits(self, image: Tensor, text: TextFeatures, member: int = 0) -> Tensor:
        prompt = None
        if self.prompt is not None and self.vision_prior is not None:
            prompt = self.prompt(text, self.vision_prior(image))
        maps = self.image_prior(image, prompt, member)
        narrow = replace(text, tokens=self.text_projection(text.tokens))
        fused = [
            fusion(projection(features), narrow)
            for features, projection, fusion in zip(maps, self.image_projections, self.fusions, strict=True)
        ]
        return self.classifier(fused, image.shape[-2:])
