"""EfficientNet-Lite0 takes published weights whole or not at all, and gives the features that they stand for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bundle.networks import EfficientNetLitePrior, WeightsError, count_parameters
from bundle.networks.efficientnet_lite import PUBLISHED_LITE0, ScaledConv

#: Blocks whose filter strides, of sixteen.
STRIDED = (1, 3, 5, 11)
#: (kernel, width, inner width, out) of each block, TensorFlow's EfficientNet-Lite0.
BLOCKS = (
    *((3, 32, 32, 16), (3, 16, 96, 24), (3, 24, 144, 24), (5, 24, 144, 40), (5, 40, 240, 40)),
    *((3, 40, 240, 80), (3, 80, 480, 80), (3, 80, 480, 80)),
    *((5, 80, 480, 112), (5, 112, 672, 112), (5, 112, 672, 112)),
    *((5, 112, 672, 192), (5, 192, 1152, 192), (5, 192, 1152, 192), (5, 192, 1152, 192), (3, 192, 1152, 320)),
)


def published_layout(seed: int = 0) -> dict[str, Tensor]:
    """A state dict named as the published one, of weights that keep values within bounds, with a head."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def layer(convolution: str, normalisation: str, out: int, *shape: int) -> None:
        fan = shape[0] * shape[1] * shape[2]
        state[f"{convolution}.weight"] = drawn(out, *shape) * (2.0 / fan) ** 0.5
        state[f"{normalisation}.weight"] = 1.0 + 0.1 * drawn(out)
        state[f"{normalisation}.bias"] = 0.1 * drawn(out)
        state[f"{normalisation}.running_mean"] = 0.1 * drawn(out)
        state[f"{normalisation}.running_var"] = 1.0 + 0.1 * drawn(out).abs()
        state[f"{normalisation}.num_batches_tracked"] = torch.tensor(7)

    layer("_conv_stem", "_bn0", 32, 3, 3, 3)
    for number, (kernel, width, inner, out) in enumerate(BLOCKS):
        prefix = f"_blocks.{number}."
        if inner != width:
            layer(f"{prefix}_expand_conv", f"{prefix}_bn0", inner, width, 1, 1)
        layer(f"{prefix}_depthwise_conv", f"{prefix}_bn1", inner, 1, kernel, kernel)
        layer(f"{prefix}_project_conv", f"{prefix}_bn2", out, inner, 1, 1)
    layer("_conv_head", "_bn1", 1280, 320, 1, 1)
    return state | {"_fc.weight": drawn(1000, 1280), "_fc.bias": drawn(1000)}


def reference(state: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The maps, layer by layer as TensorFlow's documentation describes them, with batch normalisations as such."""

    def layer(x: Tensor, convolution: str, normalisation: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{convolution}.weight"]
        kernel, size = weight.shape[-1], x.shape[-1]
        padding = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        x = functional.pad(x, (padding // 2, padding - padding // 2) * 2)
        x = functional.conv2d(x, weight, stride=stride, groups=groups)
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{normalisation}.{name}"] for name in names), eps=1e-3)

    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (image - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    x = functional.relu6(layer(x, "_conv_stem", "_bn0", 2))
    maps = []
    for number, (_, width, inner, out) in enumerate(BLOCKS):
        prefix = f"_blocks.{number}."
        y = x
        if inner != width:
            y = functional.relu6(layer(y, f"{prefix}_expand_conv", f"{prefix}_bn0"))
        stride = 2 if number in STRIDED else 1
        y = functional.relu6(layer(y, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride, inner))
        y = layer(y, f"{prefix}_project_conv", f"{prefix}_bn2")
        x = x + y if stride == 1 and width == out else y
        if number in (2, 4, 10, 15):
            maps.append(x)
    return maps


def test_parameters_and_maps() -> None:
    with torch.device("meta"):
        prior = EfficientNetLitePrior()
        maps = prior(torch.empty(2, 3, 352, 320))
    # the published ones without the head and the normalisations' statistics
    assert count_parameters(prior) == 2_958_848
    assert [tuple(m.shape) for m in maps] == [
        (2, 24, 88, 80),
        (2, 40, 44, 40),
        (2, 112, 22, 20),
        (2, 320, 11, 10),
    ]
    assert prior.channels == (24, 40, 112, 320)


def test_weights_in_the_published_layout_give_the_features_they_stand_for(tmp_path: Path) -> None:
    state = published_layout()
    torch.save(state, tmp_path / "lite0.pth")
    prior = EfficientNetLitePrior(tmp_path / "lite0.pth").eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for found, expected in zip(prior(image), reference(state, image), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(
    find_spec(PUBLISHED_LITE0.replace("-", "_")) is None, reason=f"{PUBLISHED_LITE0} is not installed"
)
def test_the_published_weights_load_from_their_package() -> None:
    prior = EfficientNetLitePrior(PUBLISHED_LITE0).eval()
    ramp = torch.linspace(0.0, 1.0, 64).expand(1, 3, 64, 64)
    with torch.no_grad():
        means = [float(features.abs().mean()) for features in prior(ramp)]
    assert means == pytest.approx(PUBLISHED_MEANS, rel=1e-4)


#: Of the absolute values of the four maps of a ramp from black to white.
PUBLISHED_MEANS = [8.148176, 8.699103, 5.662051, 1.450994]


def test_weights_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"

    def refused(change: dict[str, Tensor | None]) -> str:
        state = {**published_layout(), **change}
        torch.save({name: value for name, value in state.items() if value is not None}, path)
        with pytest.raises(WeightsError) as caught:
            EfficientNetLitePrior(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
        return message

    assert "_blocks.3._bn1.running_var" in refused({"_blocks.3._bn1.running_var": None})
    assert "(32, 3, 5, 5)" in refused({"_conv_stem.weight": torch.zeros(32, 3, 5, 5)})
    assert "1 tensors are unknown" in refused({"_blocks.16._expand_conv.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="no such weights file"):
        EfficientNetLitePrior(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_filters_in_mixed_precision_are_those_in_full(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = ScaledConv(8, 8, kernel, stride, depthwise=True)
    with torch.no_grad():
        layer.scale.copy_(torch.rand(8) + 0.5)
        layer.shift.copy_(torch.randn(8))
    image = torch.rand(2, 8, 16, 16)
    exact = layer(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(image.bfloat16())
    assert exact.shape == (2, 8, 16 // stride, 16 // stride)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), exact, atol=0.05, rtol=0.05)


def test_every_weight_learns() -> None:
    torch.manual_seed(0)
    prior = EfficientNetLitePrior().train()
    maps = prior(torch.rand(1, 3, 64, 64))
    sum((features.square().mean() for features in maps), torch.zeros(())).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in prior.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in prior.modules())
