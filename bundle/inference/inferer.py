"""One preprocessed image through the network: slices of volumes, tiles of large pictures, steps and members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

import torch
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import Inferer
from torch import Tensor, nn

from bundle.cases.modality import Modality
from bundle.cases.modality_settings import ModalitySettings, View
from bundle.cases.structures import Structures
from bundle.diffusion.consensus import consensus
from bundle.diffusion.sampling import Sampling
from bundle.diffusion.uncertainty import disagreement, predictive_entropy, tempered, uncertainty
from bundle.inference.prompts import PromptReader, asked_for
from bundle.inference.stain_borders import at_stain_borders
from bundle.networks.prompt_reading import PromptReading
from bundle.networks.protocol import Segmenter
from bundle.transforms import back_from, neighbouring_slices, seen_from
from bundle.transforms.content_key import CONTENT_KEY
from bundle.wording import request_reader

#: What the noise of a view's slices is seeded with, beside what the volume shows and the slice.
_KEYS: Mapping[View, str] = {"axial": "slice", "coronal": "coronal slice", "sagittal": "sagittal slice"}
#: Of a result's meta, see `SegmentationInferer.__call__`.
READING = "reading"


class SegmentationInferer(Inferer):
    """Sample masks for a volume or a picture.

    The image is a MetaTensor whose meta says 'modality', 'content_key' and 'prompt', as preprocessing makes it; the
    prompt goes with every slice and tile. Noise is seeded with (seed, content key, slice, tile, member), so the
    result depends on neither batch size nor order, and on what the image shows, not on its name.

    Args:
        structures: of the network.
        modalities: their settings.
        sampling: steps, members, sampler, consensus, uncertainty and seed.
        batch_size: slices or tiles a pass.
        tile_size: longest side in pixels that goes through the network in one piece, a multiple of 32.
        tile_overlap: share by which neighbouring tiles overlap.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        structures: Structures,
        modalities: ModalitySettings | None = None,
        sampling: Sampling | None = None,
        batch_size: int = 8,
        tile_size: int = 384,
        tile_overlap: float = 0.25,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if tile_size < 32 or tile_size % 32:
            raise ValueError(f"tile_size must be a multiple of 32, not {tile_size}")
        if not 0.0 <= tile_overlap < 1.0:
            raise ValueError(f"tile_overlap must lie in [0, 1), not {tile_overlap}")
        self.structures = structures
        self.modalities = modalities or ModalitySettings()
        self.sampling = sampling or Sampling()
        self.batch_size = batch_size
        self.tile_size = tile_size
        self.tile_overlap = tile_overlap

    def settings(self, modality: Modality) -> dict[str, Any]:
        """All that decides on results for a modality beside weights and prompt, for reports."""
        tiles = {"tile_size": self.tile_size, "tile_overlap": self.tile_overlap}
        return {**asdict(self.sampling), **tiles, **asdict(self.modalities.of(modality))}

    @torch.inference_mode()
    def __call__(
        self,
        inputs: Tensor,
        network: nn.Module,
        *args: Any,
        prompt: str | None = None,
        reader: PromptReader | None = None,
        **kwargs: Any,
    ) -> MetaTensor:
        """(1, C, *spatial) -> (1, classes of the modality + 1, *spatial).

        The channels are probabilities of background and of the modality's structures in the order of their
        values, and last the uncertainty; all in [0, 1]. The meta holds under 'reading' what the network made of the
        prompt: only this network knows, and meta is all that MONAI hands on from an inferer.

        Args:
            inputs: one image, a MetaTensor.
            network: see `bundle.networks.protocol.Segmenter`.
            prompt: instead of the one in the meta.
            reader: of the run, which may have read the prompt already.
        """
        meta: dict[str, Any] = inputs.meta  # type: ignore[attr-defined]
        segmenter = cast(Segmenter, network)
        modality: Modality = meta["modality"]
        text = str(meta.get("prompt", "")) if prompt is None else prompt
        reading = self.read(segmenter, modality, text, reader, bool(meta.get("means_patient")))
        image = inputs.as_tensor()  # type: ignore[attr-defined]
        if image.ndim == 4:
            result = self.images(segmenter, image, [meta[CONTENT_KEY]], modality, reading)
            if self.modalities.histology.stain_borders and modality == "H&E":
                result = self._at_stain_borders(result, image)
            return MetaTensor(result, meta={**meta, READING: reading})
        seen = []
        for view in self.modalities.ct.views:
            key = f"{meta[CONTENT_KEY]}/{_KEYS[view]}"
            part = self._slices(segmenter, seen_from(image[0], view), key, modality, reading)
            seen.append(back_from(part, view))
        return MetaTensor(self._fused(seen)[None], meta={**meta, READING: reading})

    def _slices(
        self, network: Segmenter, volume: Tensor, key: str, modality: Modality, reading: PromptReading
    ) -> Tensor:
        """(1, A, B, N) -> (C, A, B, N), slice by slice across the last axis, channels as those of `__call__`."""
        result = torch.empty((len(self._channels(modality)) + 1, *volume.shape[1:]), dtype=torch.float32)
        distance = self.modalities.ct.slice_distance
        for start in range(0, volume.shape[-1], self.batch_size):
            positions = range(start, min(start + self.batch_size, volume.shape[-1]))
            slices = torch.stack(
                [neighbouring_slices(volume, place, distance=distance) for place in positions]
            )
            keys = [f"{key} {place}" for place in positions]
            images = self.images(network, slices, keys, modality, reading)
            result[..., positions.start : positions.stop] = images.movedim(0, -1)
        return result

    def _fused(self, seen: Sequence[Tensor]) -> Tensor:
        """Results of several views, (C, X, Y, Z) each -> one."""
        if len(seen) == 1:
            return seen[0]
        every = torch.stack(list(seen))
        mean = every.mean(dim=0)
        classes = len(mean) - 1
        if self.sampling.uncertainty == "entropy":
            mean[-1] = predictive_entropy(mean[None, :-1], classes)[0]
        else:  # within the views, and between them
            mean[-1] = (mean[-1] + disagreement(every[:, None, :-1], classes)[0]).clamp_max(1.0)
        return mean

    def read(
        self,
        network: Segmenter,
        modality: Modality,
        text: str,
        reader: PromptReader | None = None,
        means_patient: bool = False,
    ) -> PromptReading:
        """What `images` of a modality need to know of a text, read once for all of them.

        Args:
            means_patient: where the sides are to be told from the case, its `bundle.cases.Case.means_patient`.
        """
        sides = self.modalities.xray.sides
        means_patient = modality == "X-ray" and (means_patient if sides == "auto" else sides == "patient")
        exchanged = self.modalities.is_mirrored(modality) or means_patient
        request = request_reader(self.structures)(text)
        reading = (reader or PromptReader())(network, request.affirmed, exchanged)
        return replace(asked_for(reading, text, request, self.structures), means_patient=means_patient)

    def _channels(self, modality: Modality) -> list[int]:
        return [0, *self.structures.of_modality(modality)]

    @torch.inference_mode()
    def images(
        self,
        network: Segmenter,
        images: Tensor,
        keys: Sequence[str],
        modality: Modality,
        reading: PromptReading,
    ) -> Tensor:
        """(B, 3, H, W) -> (B, C, H, W) on the CPU, channels as those of `__call__`.

        Args:
            keys: one an image, what its noise is seeded with.
            reading: see `read`.
        """
        # MONAI's sliding_window_inference weighs a lone tile too and batches by image: other roundings, other bytes
        height, width = images.shape[-2:]
        tile = tuple(min(self.tile_size, _next_multiple(side, network.stride)) for side in (height, width))
        padded = nn.functional.pad(
            images, (0, max(tile[1] - width, 0), 0, max(tile[0] - height, 0)), mode="replicate"
        )
        steps = tuple(max(1, int(side * (1.0 - self.tile_overlap))) for side in tile)
        places = dense_patch_slices(padded.shape[-2:], tile, steps)
        if len(places) == 1:
            return self._tiles(network, padded, keys, modality, reading)[..., :height, :width]
        importance = tile_importance(tile)
        total = torch.zeros((len(images), len(self._channels(modality)) + 1, *padded.shape[-2:]))
        weight = torch.zeros(padded.shape[-2:])
        for batch in _batches(
            [(place, image) for place in range(len(places)) for image in range(len(images))], self.batch_size
        ):
            tiles = torch.stack([padded[(image, slice(None), *places[place])] for place, image in batch])
            tile_keys = [f"{keys[image]}/tile {place}" for place, image in batch]
            results = self._tiles(network, tiles, tile_keys, modality, reading)
            for (place, image), result in zip(batch, results, strict=True):
                total[(image, slice(None), *places[place])] += result * importance
                if image == 0:
                    weight[places[place]] += importance
        return (total / weight)[..., :height, :width]

    def _at_stain_borders(self, result: Tensor, image: Tensor) -> Tensor:
        probability, unsure = result[:, :-1], result[:, -1:]
        moved = torch.stack([at_stain_borders(*pair) for pair in zip(probability, image, strict=True)])
        if self.sampling.uncertainty == "entropy":
            unsure = predictive_entropy(moved, moved.shape[1])[:, None]
        return torch.cat([moved, unsure], dim=1)

    def _tiles(
        self,
        network: Segmenter,
        tiles: Tensor,
        keys: Sequence[str],
        modality: Modality,
        reading: PromptReading,
    ) -> Tensor:
        channels = self._channels(modality)
        possible = torch.zeros((len(tiles), self.structures.channels), dtype=torch.bool, device=tiles.device)
        possible[:, channels] = True

        def predict(images: Tensor, noise_keys: Sequence[str], text: PromptReading | None) -> Tensor:
            assert text is not None
            images = images.contiguous(memory_format=torch.channels_last)
            prompts = [text] * len(images)
            return network.predict(images, noise_keys, self.sampling, possible, prompts)[:, :, channels]

        texts = [reading, reading.exchanged]
        if reading.means_patient:
            texts.reverse()
        predictions = predict(tiles, keys, texts[0])
        if self.modalities.is_mirrored(modality):
            other = predict(tiles.flip(-1), [f"{key}/mirrored" for key in keys], texts[1])
            predictions = torch.cat([predictions, other.flip(-1)])
        fused = consensus(predictions, self.sampling.steps, self.sampling.consensus)
        fused = tempered(fused, self.modalities.of(modality).temperature)
        unsure = uncertainty(predictions, fused, len(channels), self.sampling.uncertainty)
        return torch.cat([fused, unsure[:, None]], dim=1).cpu()


def tile_importance(tile: tuple[int, ...]) -> Tensor:
    """(H, W): how much each pixel of a tile counts where tiles overlap, most in the middle."""
    importance: Tensor = compute_importance_map(tile, mode="gaussian", sigma_scale=0.125).clamp_min(1e-3)
    return importance


def _next_multiple(value: int, factor: int) -> int:
    return -(-value // factor) * factor


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
