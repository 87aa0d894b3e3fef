"""The UNet of a diffusion model of images, whose decoder features serve as an image prior.

Architecture of Dhariwal & Nichol, 'Diffusion Models Beat GANs on Image Synthesis' (2021), sec. 3 and table 4:
residual blocks that scale and shift by the timestep (adaptive group normalisation), residual blocks for up- and
downsampling, multi-head self-attention at low resolutions. Names and shapes of its parameters are those of the
published `256x256_diffusion_uncond.pt` (openai/guided-diffusion, MIT), which loads key for key.

Features for segmentation: Baranchuk et al., 'Label-Efficient Semantic Segmentation with Diffusion Models' (2022).
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bundle.atomic import write_atomically
from bundle.networks.weights import WeightsError, check_complete, read_state_dict


@dataclass(frozen=True)
class GuidedLayout:
    """Sizes of a `GuidedUNet`.

    Attributes:
        channels: width at full resolution, before `multipliers`.
        multipliers: of the width at full, half, quarter, ... resolution.
        blocks: residual blocks a resolution in the encoder; the decoder has one more.
        attention_strides: downsampling factors at which there is self-attention.
        head_channels: of an attention head.
        image_channels: 3 for RGB.
        out_channels: twice as many where the variance is learnt too (Nichol & Dhariwal 2021).
        norm_groups: of the group normalisation; must divide every width.
    """

    channels: int
    multipliers: tuple[float, ...]
    blocks: int
    attention_strides: tuple[int, ...]
    head_channels: int
    image_channels: int = 3
    out_channels: int = 6
    norm_groups: int = 32

    @property
    def widths(self) -> list[int]:
        """Of each resolution, full first."""
        return [int(self.channels * multiplier) for multiplier in self.multipliers]

    @property
    def stride(self) -> int:
        """The sides of an image must be multiples of it."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def decoder_widths(self) -> list[int]:
        """Channels of each decoder block's output, coarsest first."""
        return [width for width in reversed(self.widths) for _ in range(self.blocks + 1)]


GUIDED_LAYOUTS: dict[str, GuidedLayout] = {
    # openai/guided-diffusion, 256x256_diffusion_uncond.pt: 552,814,086 parameters
    "guided_diffusion_256": GuidedLayout(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), 64),
    # small enough to be trained and used on a CPU, for images of about 128 x 128
    "compact": GuidedLayout(16, (1, 2, 4, 6, 6), 1, (8, 16), 32, out_channels=3, norm_groups=16),
}


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoidal features, cosines first (Ho et al. 2020, after Vaswani et al. 2017, sec. 3.5).

    Args:
        timesteps: (B,) from 0 to 999.
        width: even.

    Returns:
        (B, width) float32.
    """
    half = width // 2
    rates = torch.exp(
        torch.arange(half, dtype=torch.float32, device=timesteps.device) * (-math.log(10000.0) / half)
    )
    angles = timesteps.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _start_at_nothing(layer: nn.Module) -> nn.Module:
    """The last layer of a residual branch with weights of zero, so that the block starts as identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class TimedResidualBlock(nn.Module):
    """Two 3x3 convolutions, scaled and shifted by the timestep between; may halve or double the resolution."""

    def __init__(self, width_in: int, width: int, embedding: int, groups: int, resample: float = 1.0) -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, width_in), nn.SiLU(), nn.Conv2d(width_in, width, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * width))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, width),
            nn.SiLU(),
            nn.Identity(),  # dropout in the published code, which counts it
            _start_at_nothing(nn.Conv2d(width, width, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if width == width_in else nn.Conv2d(width_in, width, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, width_in, H, W), (B, embedding) -> (B, width, H * resample, W * resample)."""
        norm, activation, convolution = self.in_layers
        h = convolution(self._resampled(activation(norm(x))))
        scale, shift = self.emb_layers(embedding)[:, :, None, None].chunk(2, dim=1)
        norm, *rest = self.out_layers
        h = norm(h) * (1.0 + scale) + shift
        for layer in rest:
            h = layer(h)
        return self.skip_connection(self._resampled(x)) + h

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == 2.0:
            return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return nn.functional.avg_pool2d(x, 2) if self.resample == 0.5 else x


class SelfAttention2d(nn.Module):
    """Multi-head self-attention over the pixels of a map."""

    def __init__(self, width: int, head_channels: int, groups: int) -> None:
        super().__init__()
        if width % head_channels:
            raise ValueError(f"a width of {width} does not divide into heads of {head_channels} channels")
        self.heads = width // head_channels
        self.norm = nn.GroupNorm(groups, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = _start_at_nothing(nn.Conv1d(width, width, 1))

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        """(B, width, H, W) -> the same shape."""
        batch, width, *sides = x.shape
        flat = x.flatten(2)
        # the published weights keep query, key and value of a head together
        heads = self.qkv(self.norm(flat)).view(batch, self.heads, 3, width // self.heads, -1)
        q, k, v = heads.transpose(3, 4).unbind(dim=2)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        out = self.proj_out(attended.transpose(2, 3).reshape(batch, width, -1))
        return (flat + out).view(batch, width, *sides)


class TimedSequential(nn.ModuleList):
    """Layers one after the other; all but plain convolutions are given the embedding too."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, embedding)
        return x


class GuidedUNet(nn.Module):
    """Predicts the noise in an image, and on the way features of it.

    Args:
        layout: sizes, or a name in `GUIDED_LAYOUTS`.
    """

    def __init__(self, layout: GuidedLayout | str) -> None:
        super().__init__()
        layout = _layout(layout)
        self.layout = layout
        self.embedding_width = 4 * layout.channels
        self.time_embed = nn.Sequential(
            nn.Linear(layout.channels, self.embedding_width),
            nn.SiLU(),
            nn.Linear(self.embedding_width, self.embedding_width),
        )
        widths = layout.widths
        self.input_blocks = nn.ModuleList(
            [TimedSequential([nn.Conv2d(layout.image_channels, widths[0], 3, padding=1)])]
        )
        width, skips = widths[0], [widths[0]]
        for level, level_width in enumerate(widths):
            for _ in range(layout.blocks):
                self.input_blocks.append(self._stage(width, level_width, level))
                width = level_width
                skips.append(width)
            if level < len(widths) - 1:
                self.input_blocks.append(TimedSequential([self._block(width, width, 0.5)]))
                skips.append(width)
        self.middle_block = TimedSequential(
            [self._block(width, width), self._attention(width), self._block(width, width)]
        )
        self.output_blocks = nn.ModuleList()
        for level, level_width in reversed(list(enumerate(widths))):
            for index in range(layout.blocks + 1):
                stage = self._stage(width + skips.pop(), level_width, level)
                width = level_width
                if level and index == layout.blocks:
                    stage.append(self._block(width, width, 2.0))
                self.output_blocks.append(stage)
        self.out = nn.Sequential(
            nn.GroupNorm(layout.norm_groups, width),
            nn.SiLU(),
            nn.Conv2d(width, layout.out_channels, 3, padding=1),
        )

    def _block(self, width_in: int, width: int, resample: float = 1.0) -> TimedResidualBlock:
        return TimedResidualBlock(width_in, width, self.embedding_width, self.layout.norm_groups, resample)

    def _attention(self, width: int) -> SelfAttention2d:
        return SelfAttention2d(width, self.layout.head_channels, self.layout.norm_groups)

    def _stage(self, width_in: int, width: int, level: int) -> TimedSequential:
        stage = TimedSequential([self._block(width_in, width)])
        if 2**level in self.layout.attention_strides:
            stage.append(self._attention(width))
        return stage

    def forward(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """The prediction of the noise, followed by the variance's where it is learnt.

        Args:
            x_t: (B, image_channels, H, W) noisy image in about [-1, 1], sides multiples of `layout.stride`.
            timesteps: (B,) from 0 to 999.

        Returns:
            (B, out_channels, H, W).
        """
        (decoded,) = self.features(x_t, timesteps, [len(self.output_blocks) - 1])
        return self.out(decoded)

    def features(
        self,
        x_t: Tensor,
        timesteps: Tensor,
        blocks: Collection[int],
        prompt: Tensor | None = None,
    ) -> list[Tensor]:
        """Outputs of some decoder blocks; what lies behind the last of them is not worked out.

        Args:
            x_t, timesteps: as for `forward`.
            blocks: numbers of decoder blocks, from 0 at the coarsest.
            prompt: (B, embedding_width), added to the embedding of the timesteps (LCPDN, eq. 5).

        Returns:
            a map (B, channels, h, w) for each of `blocks`, in ascending order.

        Raises:
            ValueError: no such block, or sides that the UNet cannot halve often enough.
        """
        wanted = sorted(set(blocks))
        if not wanted or wanted[0] < 0 or wanted[-1] >= len(self.output_blocks):
            raise ValueError(
                f"decoder blocks are numbered 0 to {len(self.output_blocks) - 1}, not {list(blocks)}"
            )
        if any(side % self.layout.stride for side in x_t.shape[-2:]):
            raise ValueError(
                f"image sides must be multiples of {self.layout.stride}, not {tuple(x_t.shape[-2:])}"
            )
        embedding = self.time_embed(timestep_embedding(timesteps, self.layout.channels))
        if prompt is not None:
            embedding = embedding + prompt
        skips, h = [], x_t
        for stage in self.input_blocks:
            h = stage(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        found = []
        for number, stage in enumerate(self.output_blocks[: wanted[-1] + 1]):
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
            if number in wanted:
                found.append(h)
        return found


def load_guided_unet(source: str | Path, layout: GuidedLayout | str | None = None) -> GuidedUNet:
    """A UNet with its weights.

    Args:
        source: a .pt or .safetensors file, or a folder that holds one of them and, as `save_guided_unet`
            writes it, its layout.
        layout: sizes, or a name in `GUIDED_LAYOUTS`; None for those beside the weights.

    Raises:
        WeightsError: no such file, or weights that do not fit the layout key for key.
    """
    source = Path(source).expanduser()
    path = _weights_file(source)
    layout = _layout_beside(path) if layout is None else _layout(layout)
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{path}: is not a readable safetensors file; copy or download it again."
            ) from error
    else:
        state = read_state_dict(path)
    with torch.device("meta"):
        network = GuidedUNet(layout)
    check_complete(network.state_dict(), state, str(path))
    network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    return network


def save_guided_unet(state: Mapping[str, Tensor], layout: GuidedLayout, folder: Path) -> None:
    """Write weights in half precision and their layout, as `load_guided_unet` reads them."""
    halves = {key: value.detach().cpu().half().contiguous() for key, value in state.items()}
    with write_atomically(folder / _WEIGHTS) as path:
        save_file(halves, path)
    with write_atomically(folder / _LAYOUT) as path:
        path.write_text(json.dumps(asdict(layout), indent=2) + "\n", encoding="utf-8")


_WEIGHTS, _LAYOUT = "model.safetensors", "layout.json"


def _layout(layout: GuidedLayout | str) -> GuidedLayout:
    if isinstance(layout, GuidedLayout):
        return layout
    if layout not in GUIDED_LAYOUTS:
        raise ValueError(
            f"layout of an image DDPM must be one of {', '.join(GUIDED_LAYOUTS)}, not {layout!r}"
        )
    return GUIDED_LAYOUTS[layout]


def _weights_file(source: Path) -> Path:
    if not source.is_dir():
        if not source.is_file():
            raise WeightsError(f"{source}: no such image DDPM; give a folder or file with its weights.")
        return source
    found = sorted([*source.glob("*.safetensors"), *source.glob("*.pt")])
    if len(found) != 1:
        raise WeightsError(f"{source}: holds {len(found)} weights files instead of one; name the file.")
    return found[0]


def _layout_beside(path: Path) -> GuidedLayout:
    file = path.parent / _LAYOUT
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        return GuidedLayout(**values)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path}: has no {_LAYOUT} beside it; name the layout, one of {', '.join(GUIDED_LAYOUTS)}."
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{file}: is not a layout of an image DDPM; write it again.") from error
