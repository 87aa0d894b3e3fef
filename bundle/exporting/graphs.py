"""The parts of a `DiffusionSegmenter` as graphs for other runtimes, cut where they run at different times.

`text_prior` runs once a prompt, `image_prior` once an image, `denoiser` once a step; sampling stays outside.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from bundle.diffusion.schedule import LogSnrSchedule, cosine_log_snr
from bundle.networks.segmenter import DiffusionSegmenter
from bundle.networks.text_prior import TextFeatures
from bundle.networks.weights import WeightsError

#: Of the images that graphs are traced with; none is 0 or 1, which a tracer takes for constants.
_BATCH, _TOKENS, _HEIGHT, _WIDTH = 2, 7, 64, 96
_MOST = 4096  # of images in a batch, and of 32 pixels along a side


class TextGraph(nn.Module):
    """Token ids and their mask, both (B, N) -> tokens (B, N, width), pooled (B, width), log-odds (B, structures).

    The last only where the network names structures, see `StructureNaming`.
    """

    def __init__(self, network: DiffusionSegmenter) -> None:
        super().__init__()
        assert network.text_prior is not None
        self.encoder = network.text_prior.model
        self.naming = network.naming

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        hidden = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        tokens = hidden * mask[..., None]
        pooled = tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        if self.naming is None:
            return tokens, pooled
        return tokens, pooled, self.naming(TextFeatures(tokens, mask, pooled))


class ImageGraph(nn.Module):
    """Image (B, 3, H, W) in [0, 1] and, where a text guides, its tokens and mask -> the denoiser's conditions."""

    def __init__(self, network: DiffusionSegmenter) -> None:
        super().__init__()
        self.image_prior = network.image_prior
        self.text_conditioning = network.text_conditioning
        self.denoiser = network.denoiser

    def forward(
        self, image: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        assert self.image_prior is not None
        pyramid = self.image_prior(image)
        if self.text_conditioning is not None and tokens is not None and mask is not None:
            # the conditioning reads tokens; what stands for the pooled vector leaves the graph with it
            pyramid = self.text_conditioning(pyramid, TextFeatures(tokens, mask, pooled=tokens[:, 0]))
        return tuple(self.denoiser.prepare(image, pyramid))


class DenoiserGraph(nn.Module):
    """Noisy mask, log-SNR (B,), conditions -> logits of the clean mask (B, classes, H, W) float32."""

    def __init__(self, network: DiffusionSegmenter) -> None:
        super().__init__()
        self.denoiser = network.denoiser

    def forward(self, x_t: Tensor, log_snr: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        logits: Tensor = self.denoiser(x_t, log_snr, condition)
        return logits.float()


@dataclass(frozen=True)
class Graph:
    """A traced part.

    Attributes:
        program: with sizes of batch, image and text left open.
        inputs, outputs: names, in the order of its arguments and results.
    """

    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def check_exportable(network: nn.Module) -> DiffusionSegmenter:
    """The network, if it has the three parts.

    Raises:
        WeightsError: another architecture, no image prior, or a schedule that has no name.
    """
    if not isinstance(network, DiffusionSegmenter) or network.image_prior is None:
        raise WeightsError(
            f"{type(network).__name__}: only a DiffusionSegmenter with an image prior can be exported; "
            "leave the other configurations out."
        )
    schedule_shift(network.schedule)
    return network


def schedule_shift(schedule: LogSnrSchedule) -> float:
    """What a cosine schedule is shifted by in log-SNR, see `bundle.diffusion.cosine_log_snr`.

    Raises:
        WeightsError: it is another schedule, which a runner would not know.
    """
    settings: dict[str, Any] = {}
    function: Any = schedule
    if isinstance(function, partial):
        function, settings = function.func, function.keywords
    if function is not cosine_log_snr or not set(settings) <= {"shift"}:
        raise WeightsError("only a network with the cosine schedule can be exported.")
    return float(settings.get("shift", 0.0))


@torch.no_grad()
def trace(network: DiffusionSegmenter) -> dict[str, Graph]:
    """Name -> graph of each part, on the CPU and in evaluation mode.

    Batch, sides (multiples of 32, for torch.export from 64 on) and number of tokens stay open.
    """
    network = network.eval().cpu()
    longest = _MOST if network.text_prior is None else network.text_prior.max_tokens
    batch, tokens = Dim("batch", min=1, max=_MOST), Dim("tokens", min=2, max=longest)
    # torch.export takes a map of one row or column for another case; in ONNX it is none
    rows, columns = (Dim(f"{side}_by_{network.stride}", min=2, max=_MOST) for side in ("height", "width"))
    image = torch.rand(_BATCH, 3, _HEIGHT, _WIDTH)
    mask = torch.ones(_BATCH, _TOKENS, dtype=torch.bool)
    mask[1, _TOKENS // 2 :] = False
    text_axes = {0: batch, 1: tokens}

    def map_axes(shape: torch.Size) -> dict[int, Any]:
        """Open axes of a map, which has one pixel or more for each `stride` of the image."""
        times = shape[-2] * network.stride // _HEIGHT
        return (
            {0: batch, 2: rows, 3: columns} if times == 1 else {0: batch, 2: times * rows, 3: times * columns}
        )

    graphs = {}
    image_inputs: tuple[Tensor, ...] = (image,)
    image_axes: tuple[dict[int, Any], ...] = (map_axes(image.shape),)
    if network.text_prior is not None:
        ids = torch.randint(0, int(network.text_prior.model.config.vocab_size), mask.shape)  # type: ignore[union-attr, arg-type]
        text = TextGraph(network)
        outputs = ("tokens", "pooled", "naming")[: 3 if network.names_structures else 2]
        graphs["text_prior"] = Graph(
            _traced(text, (ids, mask), (text_axes, text_axes)), ("ids", "mask"), outputs
        )
        if network.text_conditioning is not None:
            image_inputs = (image, text(ids, mask)[0], mask)
            image_axes = (*image_axes, text_axes, text_axes)
    encoder = ImageGraph(network)
    condition = encoder(*image_inputs)
    names = tuple(f"condition_{index}" for index in range(len(condition)))
    graphs["image_prior"] = Graph(
        _traced(encoder, image_inputs, image_axes), ("image", "tokens", "mask")[: len(image_inputs)], names
    )
    noisy = torch.randn(
        _BATCH, network.classes, _HEIGHT // network.mask_stride, _WIDTH // network.mask_stride
    )
    graphs["denoiser"] = Graph(
        _traced(
            DenoiserGraph(network),
            (noisy, torch.zeros(_BATCH), condition),
            (map_axes(noisy.shape), {0: batch}, tuple(map_axes(part.shape) for part in condition)),
        ),
        ("x_t", "log_snr", *names),
        ("logits",),
    )
    return graphs


def _traced(module: nn.Module, arguments: tuple[Any, ...], axes: Iterable[Any]) -> ExportedProgram:
    return torch.export.export(module.eval(), arguments, dynamic_shapes=tuple(axes), strict=False)
