"""Image prior: features of a frozen image DDPM, read at several timesteps.

Baranchuk et al., 'Label-Efficient Semantic Segmentation with Diffusion Models' (2022), sec. 3; TextDiff and LCPDN
read t = 50, 150, 250 and four decoder blocks, with one noise for all images and timesteps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from bundle.diffusion.sampler import seeded_noise
from bundle.diffusion.schedule import DDPM_STEPS, linear_beta_log_snr, noised
from bundle.networks.frozen import Frozen
from bundle.networks.image_ddpm import GuidedLayout, GuidedUNet, load_guided_unet
from bundle.networks.tensor_store import TensorStore


class ImageDdpmPrior(nn.Module):
    """Maps of decoder blocks, the timesteps of a block concatenated; runs once an image.

    Args:
        source: file or folder of weights, see `load_guided_unet`; None for random ones of `layout`.
        layout: see `load_guided_unet`.
        blocks: decoder blocks, in ascending order: coarse to fine.
        timesteps: from 0 to 999.
        seed: of the noise.
        store: keeps features, in half precision, where they do not depend on a text; None to work them out
            anew each time.

    Attributes:
        channels: of each map.
        embedding_width: of the timesteps' embedding, to which LCPDN adds its prompt.
        stride: the sides of an image must be multiples of it.
    """

    def __init__(
        self,
        source: str | Path | None = None,
        layout: GuidedLayout | str | None = None,
        blocks: Sequence[int] = (6, 8, 12, 16),
        timesteps: Sequence[int] = (50, 150, 250),
        seed: int = 0,
        store: TensorStore | None = None,
    ) -> None:
        super().__init__()
        if list(blocks) != sorted(set(blocks)) or not blocks:
            raise ValueError(f"blocks must be decoder blocks in ascending order, not {list(blocks)}")
        if not timesteps or not all(0 <= step < DDPM_STEPS for step in timesteps):
            raise ValueError(f"timesteps must lie in 0 to {DDPM_STEPS - 1}, not {list(timesteps)}")
        if source is None:
            if layout is None:
                raise ValueError("an image DDPM needs a source of weights or a layout")
            unet = GuidedUNet(layout)
        else:
            unet = load_guided_unet(source, layout)
        widths = unet.layout.decoder_widths
        if not 0 <= blocks[0] <= blocks[-1] < len(widths):
            raise ValueError(f"decoder blocks are numbered 0 to {len(widths) - 1}, not {list(blocks)}")
        reading = f"{list(blocks)} {list(timesteps)} {seed}"
        self.unet = Frozen(unet, "image DDPM", reading)
        self.blocks, self.timesteps = list(blocks), list(timesteps)
        self.seed = seed
        self.store = store
        self.channels = tuple(widths[block] * len(timesteps) for block in blocks)
        self.embedding_width = unet.embedding_width
        self.stride = unet.layout.stride

    def forward(self, image: Tensor, prompt: Tensor | None = None, member: int = 0) -> list[Tensor]:
        """Features of images.

        Args:
            image: (B, 3, H, W) in [0, 1], sides multiples of `stride`.
            prompt: (B, embedding_width) for the embedding of the timesteps (LCPDN, eq. 5 and 6); gradients
                flow back to it. None for none.
            member: each has a noise of its own.

        Returns:
            maps (B, channels[i], h, w), coarse to fine.
        """
        if prompt is not None:
            return self._features(image, prompt, member)
        # the same in a training in reduced precision as at inference
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            if self.store is None:
                return self._features(image.float(), None, member)
            # one image at a time, or its features would depend on what else was missing in a batch
            kept = [self._stored(self.store, one[None].float(), member) for one in image]
        return [torch.cat([one.to(image) for one in maps]) for maps in zip(*kept, strict=True)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ImageDdpmPrior:
        super()._apply(fn, recurse)
        # with so many group normalisations, channels last is slower on a CPU
        if next(self.unet.module.parameters()).device.type == "cpu":
            self.unet.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return self

    def _stored(self, store: TensorStore, image: Tensor, member: int) -> list[Tensor]:
        settings = f"{self.unet.digest} {member} {tuple(image.shape)}"
        content = image.detach().cpu().contiguous().numpy().tobytes()
        key = hashlib.sha256(settings.encode() + content).hexdigest()
        found = store.get(key)
        if found is None:
            maps = self._features(image, None, member)
            found = {str(index): features.half().cpu() for index, features in enumerate(maps)}
            store.put(key, found)
        return [found[str(index)] for index in range(len(self.blocks))]

    def _features(self, image: Tensor, prompt: Tensor | None, member: int) -> list[Tensor]:
        # every timestep of every image in one batch
        batch, steps = len(image), len(self.timesteps)
        timesteps = torch.tensor(self.timesteps, device=image.device).repeat_interleave(batch)
        noise = seeded_noise(self.seed, [f"member {member}"], image.shape[1:], image.device)()
        x_0 = (image * 2.0 - 1.0).repeat(steps, 1, 1, 1)
        if x_0.device.type == "cpu":
            x_0 = x_0.contiguous()
        x_t = noised(x_0, noise.to(image.dtype), linear_beta_log_snr(timesteps / (DDPM_STEPS - 1)))
        repeated = None if prompt is None else prompt.repeat(steps, 1)
        unet = cast(GuidedUNet, self.unet.module)
        maps = unet.features(x_t, timesteps, self.blocks, repeated)
        return [torch.cat(features.split(batch), dim=1) for features in maps]
