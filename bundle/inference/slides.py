"""A whole-slide image through the network: tiles over tissue, row by row, in memory that does not grow with the slide.

Of all rows of tiles only those that the next row overlaps are held, and the mask lies in a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bundle.cases import Case, CaseError, CaseReference, Modality
from bundle.cases.dicom import DicomSource
from bundle.cases.modality_settings import LEAST_MPP, MOST_MPP
from bundle.cases.slides import SHOWN_SIDE, Overview, Slide, SlideGrid, open_slide, overview_of, tissue_mask
from bundle.cases.structures import Structures
from bundle.inference.inferer import SegmentationInferer
from bundle.inference.prompts import PromptReader, prompt_warnings
from bundle.inference.slide_tiles import Box, Tiles, blended
from bundle.networks.prompt_reading import PromptReading
from bundle.networks.protocol import Segmenter
from bundle.results.files.images import to_bytes
from bundle.results.instances import Instances, find_instances
from bundle.results.slide_prediction import RegionPrediction, SlidePrediction, StructureSums
from bundle.transforms.content_key import content_key

_MODALITY: Modality = "H&E"
_Number = TypeVar("_Number", np.uint8, np.int32)


@dataclass(frozen=True)
class SlideSegmenter:
    """Segments slides with what segments pictures.

    Args:
        structures: of the network.
        inferer: of the run; its tiles, batches and overlap are those of slides too.
        slide_mpp: of level 0, whatever slides state; None for what they state.

    Raises:
        ValueError: a resolution that no slide scanner has.
    """

    structures: Structures
    inferer: SegmentationInferer
    slide_mpp: float | None = None

    def __post_init__(self) -> None:
        value = self.slide_mpp
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and LEAST_MPP <= value <= MOST_MPP):
            raise ValueError(
                f"slide_mpp must be micrometres per pixel from {LEAST_MPP} to {MOST_MPP}, not {value!r}"
            )

    @property
    def mpp(self) -> float:
        """Micrometres per pixel that the network works at."""
        return self.inferer.modalities.histology.resolution

    @torch.inference_mode()
    def __call__(
        self,
        reference: CaseReference,
        network: nn.Module,
        device: torch.device | str = "cpu",
        reader: PromptReader | None = None,
    ) -> SlidePrediction:
        """Segment a slide.

        Args:
            reader: of the run, which may have read the prompt already.

        Raises:
            CaseError: the slide cannot be read, states no resolution, or shows no tissue.
        """
        with self._opened(reference) as (slide, overview, tissue):
            segmenter = cast(Segmenter, network)
            reading = self.inferer.read(segmenter, _MODALITY, reference.prompt, reader)
            return self._segmented(reference, slide, overview, tissue, segmenter, reading, device)

    @torch.inference_mode()
    def region(
        self,
        reference: CaseReference,
        network: nn.Module,
        box: Box | None = None,
        device: torch.device | str = "cpu",
        most_pixels: int | None = None,
        reader: PromptReader | None = None,
    ) -> RegionPrediction:
        """Segment a region of a slide, which gives what the whole slide would have there.

        Args:
            box: in pixels of level 0; what lies outside the slide is left out, and the rest is widened to whole pixels
                of the mask. None for the whole slide.
            most_pixels: of the mask, which is held in memory.
            reader: as for the whole slide.

        Raises:
            CaseError: as for the whole slide; the box lies outside it, or has more pixels.
        """
        with self._opened(reference) as (slide, overview, tissue):
            segmenter = cast(Segmenter, network)
            grid = slide.grid(self.mpp)
            inside = _on_grid(grid, slide, box)
            if inside[0] >= inside[2] or inside[1] >= inside[3]:
                size = f"{slide.width} x {slide.height}"
                problem = "does not reach to the region that was asked for"
                raise CaseError(reference.image, problem, f"name one inside its {size} pixels")
            pixels = (inside[2] - inside[0]) * (inside[3] - inside[1])
            if most_pixels is not None and pixels > most_pixels:
                problem = f"would have a mask of {pixels / 1e6:,.0f} million pixels in this region"
                remedy = (
                    f"ask for regions of at most {most_pixels / 1e6:,.0f} million at {grid.mpp[0]:.2g} "
                    "micrometres, or segment the whole slide into files"
                )
                raise CaseError(reference.image, problem, remedy)
            reading = self.inferer.read(segmenter, _MODALITY, reference.prompt, reader)
            known = self.structures.of_modality(_MODALITY)
            labels = reading.named(known)
            tiles = self._tiles(grid, overview, tissue, inside)
            result = _RegionResult(inside, tiles.left, known, labels)
            self._run(slide, overview, tiles, segmenter, reading, device, result.add)
            numbers = np.zeros(result.mask.shape, dtype=np.int32)
            return RegionPrediction(
                mask=result.mask,
                grid=grid,
                corner=inside[:2],
                labels=labels,
                structures=self.structures,
                warnings=prompt_warnings(reading, self.structures, _MODALITY),
                instances=self._instances(result.mask, result.probability, numbers, labels, grid),
            )

    def _instances(
        self,
        mask: NDArray[np.uint8],
        probability: NDArray[np.uint8],
        numbers: NDArray[np.int32],
        labels: Mapping[int, str],
        grid: SlideGrid,
    ) -> Instances | None:
        cells = self.structures.cells(labels)
        if not (self.inferer.modalities.histology.instances and cells):
            return None
        pixel = float(np.sqrt(grid.mpp[0] * grid.mpp[1]))
        return find_instances(mask, probability, cells, pixel, grid.mpp, numbers)

    @contextmanager
    def _opened(self, reference: CaseReference) -> Iterator[tuple[Slide, Overview, NDArray[np.bool_]]]:
        """The slide, made small, and where it shows tissue."""
        if reference.modality not in (None, _MODALITY):
            problem = f"is a whole-slide image, but the modality is stated as {reference.modality}"
            raise CaseError(reference.image, problem, "state H&E, or leave the modality out")
        if self.inferer.modalities.histology.stain_borders:
            problem = "is a whole-slide image, in which the stain has no say in borders"
            raise CaseError(reference.image, problem, "set histology#stain_borders to False")
        with open_slide(reference.image, self.slide_mpp, reference.series) as slide:
            overview = overview_of(slide, self.mpp)
            tissue = tissue_mask(overview)
            if not tissue.any():
                raise CaseError(reference.image, "shows no tissue", "check that it is a stained slide")
            yield slide, overview, tissue

    def _tiles(
        self, grid: SlideGrid, overview: Overview, tissue: NDArray[np.bool_], box: Box | None = None
    ) -> Tiles:
        return Tiles(grid, self.inferer.tile_size, self.inferer.tile_overlap, overview.grid, tissue, box)

    def _run(
        self,
        slide: Slide,
        overview: Overview,
        tiles: Tiles,
        network: Segmenter,
        reading: PromptReading,
        device: torch.device | str,
        add: Callable[[int, NDArray[np.float32], NDArray[np.float32]], None],
    ) -> int:
        """The tiles through the network, as `blended`."""
        key = content_key(overview.image)

        def segmented(places: Sequence[tuple[int, int]]) -> Iterator[NDArray[np.float32]]:
            for start in range(0, len(places), self.inferer.batch_size):
                batch = places[start : start + self.inferer.batch_size]
                read = [slide.read(tiles.grid, left, top, tiles.width, tiles.height) for top, left in batch]
                images = torch.from_numpy(np.stack(read)).movedim(-1, 1).to(device).float() / 255.0
                keys = [f"{key}/tile {top} {left}" for top, left in batch]
                yield from self.inferer.images(network, images, keys, _MODALITY, reading).numpy()

        channels = len(self.structures.of_modality(_MODALITY)) + 2  # background and uncertainty
        return blended(tiles, channels, segmented, add)

    def _segmented(
        self,
        reference: CaseReference,
        slide: Slide,
        overview: Overview,
        tissue: NDArray[np.bool_],
        network: Segmenter,
        reading: PromptReading,
        device: torch.device | str,
    ) -> SlidePrediction:
        grid = slide.grid(self.mpp)
        known = self.structures.of_modality(_MODALITY)
        labels = reading.named(known)
        # of a small slide a finer one is looked at; what tissue is and the noise do not depend on that
        is_fine = max(overview.image.shape) >= SHOWN_SIDE
        shown = overview if is_fine else overview_of(slide, self.mpp, SHOWN_SIDE)
        result = _Result(grid, shown.grid, known, labels)
        tiles = self._tiles(grid, overview, tissue)
        count = self._run(slide, overview, tiles, network, reading, device, result.add)
        image = np.ascontiguousarray(shown.image.transpose(2, 0, 1), dtype=np.float32)
        source = "file" if reference.modality is None else reference.modality_source
        series, header = reference.series, None
        if series is not None:
            header = DicomSource(series.files, series.study_uid, series.series_uid, repaired=series.repaired)
        warnings = [*reference.notes, *slide.pyramid.notes]
        case = Case(reference, image, None, _MODALITY, source, header, warnings, full_scale=255.0)
        cell_mm2 = overview.grid.mpp[0] * overview.grid.mpp[1] * 1e-6
        about = {
            "format": slide.pyramid.format,
            "width": slide.width,
            "height": slide.height,
            "levels": len(slide.pyramid.sizes),
            "mpp": slide.mpp,
            "mpp_source": slide.mpp_source,
            "mask_mpp": grid.mpp,
            "mask_scale": grid.scale,
            "overview_mpp": shown.grid.mpp,
            "tissue_mm2": float(tissue.sum()) * cell_mm2,
            "tiles": count,
        }
        return SlidePrediction(
            case=case,
            mask=result.mask,
            grid=grid,
            probability=result.overview(slice(0, len(labels))),
            uncertainty=result.overview(slice(len(labels), None))[0],
            labels=labels,
            structures=self.structures,
            sums=result.sums(),
            mean_uncertainty=result.mean_uncertainty,
            about=about,
            warnings=prompt_warnings(reading, self.structures, _MODALITY),
            settings=self.inferer.settings(_MODALITY),
            instances=self._instances(
                result.mask, result.probability, _in_file(np.int32, result.mask.shape), labels, grid
            ),
        )


def _in_file(dtype: type[_Number], shape: tuple[int, ...]) -> NDArray[_Number]:
    """Zeros in a file without a name: it goes when the process does, however that ends."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    return np.memmap(file, dtype, "w+", shape=shape)


def _on_grid(grid: SlideGrid, slide: Slide, box: Box | None) -> Box:
    """A box of level 0 as the pixels of a grid that it touches."""
    left, top, right, bottom = box or (0, 0, slide.width, slide.height)
    across, down = grid.scale
    return (
        max(0, int(left / across)),
        max(0, int(top / down)),
        min(grid.width, int(np.ceil(right / across))),
        min(grid.height, int(np.ceil(bottom / down))),
    )


def _values(known: Mapping[int, str], labels: Mapping[int, str]) -> NDArray[np.uint8]:
    """Mask value of each channel, background first; 0 for those that are not kept."""
    return np.array([0, *(value if value in labels else 0 for value in known)], dtype=np.uint8)


def _decided(
    total: NDArray[np.float32], weight: NDArray[np.float32], values: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]]:
    """Of weighted sums the means in [0, 1], the mask, and which pixels lie in a tile."""
    covered = weight > 0
    maps = np.divide(total, weight, out=np.zeros_like(total), where=covered)
    np.clip(maps, 0.0, 1.0, out=maps)
    mask = values[maps[:-1].argmax(axis=0)]
    mask[~covered] = 0
    return maps, mask, covered


def _own_probability(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Of each pixel, that of the label that it is given, in 255ths."""
    return to_bytes(maps[:-1].max(axis=0))


class _RegionResult:
    """Takes rows of pixels, as `_Result` does, and keeps the mask of a box alone.

    Args:
        box: of the grid.
        left: column of the grid that rows begin at.
        known, labels: as for `_Result`.
    """

    def __init__(self, box: Box, left: int, known: Mapping[int, str], labels: Mapping[int, str]) -> None:
        self._left, self._top, right, self._bottom = box
        self._columns = slice(self._left - left, right - left)
        self._values = _values(known, labels)
        self.mask = np.zeros((self._bottom - self._top, right - self._left), dtype=np.uint8)
        self.probability = np.zeros_like(self.mask)

    def add(self, top: int, total: NDArray[np.float32], weight: NDArray[np.float32]) -> None:
        """Rows of pixels from `top` on; see `blended`."""
        first, last = max(top, self._top), min(top + len(weight), self._bottom)
        if first >= last:
            return
        rows = slice(first - top, last - top)
        maps, mask, _ = _decided(total[:, rows, self._columns], weight[rows, self._columns], self._values)
        self.mask[first - self._top : last - self._top] = mask
        self.probability[first - self._top : last - self._top] = _own_probability(maps)


class _Result:
    """Takes rows of pixels, and makes of them the mask, an overview and sums.

    Args:
        grid: of the mask.
        overview: of the overview.
        known: mask value -> name, in the order of the channels after background.
        labels: those of them that are kept.
    """

    def __init__(
        self, grid: SlideGrid, overview: SlideGrid, known: Mapping[int, str], labels: Mapping[int, str]
    ) -> None:
        self.labels = labels
        self._values = _values(known, labels)
        self._kept = [channel for channel, value in enumerate(known, start=1) if value in labels]
        self.mask = _in_file(np.uint8, (grid.height, grid.width))
        self.probability = _in_file(np.uint8, self.mask.shape)
        self._columns = -(-np.arange(overview.width) * grid.width // overview.width)
        self._rows = np.arange(grid.height) * overview.height // grid.height
        self._overview = np.zeros((len(self._kept) + 1, overview.height, overview.width))
        cells = np.diff(np.append(self._columns, grid.width))
        self._cells = np.bincount(self._rows, minlength=overview.height)[:, None] * cells
        self._sums = {value: np.zeros(3) for value in labels}
        self._uncertainty = np.zeros(2)

    def add(self, top: int, total: NDArray[np.float32], weight: NDArray[np.float32]) -> None:
        """Rows of pixels from `top` on; see `blended`."""
        maps, mask, covered = _decided(total, weight, self._values)
        self.mask[top : top + len(mask)] = mask
        self.probability[top : top + len(mask)] = _own_probability(maps)
        for value, channel in zip(self.labels, self._kept, strict=True):
            inside = mask == value
            probability = maps[channel][inside].sum(dtype=np.float64)
            self._sums[value] += inside.sum(), probability, maps[-1][inside].sum(dtype=np.float64)
        self._uncertainty += maps[-1].sum(dtype=np.float64), covered.sum()
        shown = np.add.reduceat(maps[[*self._kept, -1]], self._columns, axis=2)
        rows = self._rows[top : top + len(mask)]
        for overview, part in zip(self._overview, shown, strict=True):
            np.add.at(overview, rows, part)

    def overview(self, channels: slice) -> NDArray[np.float32]:
        """(channels, h, w) of the kept structures and, last, of the uncertainty."""
        return (self._overview[channels] / self._cells).clip(0.0, 1.0).astype(np.float32)

    def sums(self) -> dict[int, StructureSums]:
        """Label value -> sums over the pixels of that value."""
        return {
            value: StructureSums(int(pixels), float(probability), float(uncertainty))
            for value, (pixels, probability, uncertainty) in self._sums.items()
        }

    @property
    def mean_uncertainty(self) -> float | None:
        """Over the pixels of tiles."""
        total, pixels = self._uncertainty
        return float(total / pixels) if pixels else None
