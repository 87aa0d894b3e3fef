"""A whole-slide image through the network: tiles over tissue, row by row, in memory that does not grow with the slide.

Of all rows of tiles only those that the next row overlaps are held, and the mask lies in a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bundle.cases import Case, CaseError, CaseReference, Modality
from bundle.cases.dicom import DicomSource
from bundle.cases.slides import SHOWN_SIDE, Overview, Slide, SlideGrid, open_slide, overview_of, tissue_mask
from bundle.cases.slides.recognise import LEAST_MPP, MOST_MPP
from bundle.cases.structures import Structures
from bundle.inference.inferer import SegmentationInferer, tile_importance
from bundle.inference.postprocess import prompt_warnings
from bundle.networks.protocol import Segmenter
from bundle.results.slide_prediction import SlidePrediction, StructureSums
from bundle.transforms.content_key import content_key

_MODALITY: Modality = "H&E"


@dataclass(frozen=True)
class SlideSegmenter:
    """Segments slides with what segments pictures.

    Args:
        structures: of the network.
        inferer: of the run; its tiles, batches and overlap are those of slides too.
        mpp: micrometres per pixel that the network works at; 0.5 is 20x.
        slide_mpp: of level 0, whatever slides state; None for what they state.
        macenko: whether pictures have their stains normalised, which is not done for slides.
        settings: what else decides on results, for the report.

    Raises:
        ValueError: a resolution that no slide scanner has.
    """

    structures: Structures
    inferer: SegmentationInferer
    mpp: float = 0.5
    slide_mpp: float | None = None
    macenko: bool = False
    settings: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, value in (("slide_resolution", self.mpp), ("slide_mpp", self.slide_mpp)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and LEAST_MPP <= value <= MOST_MPP):
                raise ValueError(
                    f"{name} must be micrometres per pixel from {LEAST_MPP} to {MOST_MPP}, not {value!r}"
                )

    @torch.inference_mode()
    def __call__(
        self, reference: CaseReference, network: nn.Module, device: torch.device | str = "cpu"
    ) -> SlidePrediction:
        """Segment a slide.

        Raises:
            CaseError: the slide cannot be read, states no resolution, or shows no tissue.
        """
        if reference.modality not in (None, _MODALITY):
            problem = f"is a whole-slide image, but the modality is stated as {reference.modality}"
            raise CaseError(reference.image, problem, "state H&E, or leave the modality out")
        if self.macenko:
            problem = "is a whole-slide image, whose stains are not normalised"
            raise CaseError(reference.image, problem, "set macenko to false")
        with open_slide(reference.image, self.slide_mpp, reference.series) as slide:
            overview = overview_of(slide, self.mpp)
            tissue = tissue_mask(overview)
            if not tissue.any():
                raise CaseError(reference.image, "shows no tissue", "check that it is a stained slide")
            return self._segmented(reference, slide, overview, tissue, cast(Segmenter, network), device)

    def _segmented(
        self,
        reference: CaseReference,
        slide: Slide,
        overview: Overview,
        tissue: NDArray[np.bool_],
        network: Segmenter,
        device: torch.device | str,
    ) -> SlidePrediction:
        grid = slide.grid(self.mpp)
        known = self.structures.of_modality(_MODALITY)
        named = network.named_channels(reference.prompt)
        labels = known if named is None else {value: known[value] for value in known if value in named}
        asked = self.inferer.asked(network, _MODALITY, reference.prompt)
        tiles = _Tiles(grid, self.inferer.tile_size, self.inferer.tile_overlap, overview.grid, tissue)
        # of a small slide a finer one is looked at; what tissue is and the noise do not depend on that
        is_fine = max(overview.image.shape) >= SHOWN_SIDE
        shown = overview if is_fine else overview_of(slide, self.mpp, SHOWN_SIDE)
        result = _Result(grid, shown.grid, known, labels)
        key = content_key(overview.image)

        def segmented(places: Sequence[tuple[int, int]]) -> Iterator[NDArray[np.float32]]:
            for start in range(0, len(places), self.inferer.batch_size):
                batch = places[start : start + self.inferer.batch_size]
                read = [slide.read(grid, left, top, tiles.width, tiles.height) for top, left in batch]
                images = torch.from_numpy(np.stack(read)).movedim(-1, 1).to(device).float() / 255.0
                keys = [f"{key}/tile {top} {left}" for top, left in batch]
                yield from self.inferer.images(network, images, keys, asked).numpy()

        count = _blended(tiles, len(asked.channels) + 1, segmented, result.add)
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
            one_piece=self.structures.in_one_piece(),
            sums=result.sums(),
            mean_uncertainty=result.mean_uncertainty,
            about=about,
            warnings=prompt_warnings(network, self.structures, reference.prompt, named, _MODALITY),
            settings={**asdict(self.inferer.sampling), **(self.settings or {})},
        )


class _Tiles:
    """Where tiles lie over tissue.

    Args:
        grid: that they are cut from.
        size: longest side of a tile.
        overlap: share by which neighbours overlap.
        overview, tissue: (H, W) of the overview, where there is tissue.
    """

    def __init__(
        self, grid: SlideGrid, size: int, overlap: float, overview: SlideGrid, tissue: NDArray[np.bool_]
    ) -> None:
        self.grid = grid
        self.height, self.width = min(size, grid.height), min(size, grid.width)
        self.tops = _starts(grid.height, self.height, overlap)
        self.lefts = _starts(grid.width, self.width, overlap)
        self._tissue = tissue
        self._scale = overview.height / grid.height, overview.width / grid.width

    def row(self, top: int) -> list[tuple[int, int]]:
        """(top, left) of the tiles of a row that show tissue."""
        down, across = self._scale
        rows: NDArray[np.bool_] = np.any(
            self._tissue[int(top * down) : int(np.ceil((top + self.height) * down))], axis=0
        )
        return [
            (top, left)
            for left in self.lefts
            if rows[int(left * across) : int(np.ceil((left + self.width) * across))].any()
        ]


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along a side, the last one flush with its end."""
    step = max(1, int(tile * (1.0 - overlap)))
    return [*range(0, length - tile, step), length - tile]


def _blended(
    tiles: _Tiles,
    channels: int,
    segment: Callable[[Sequence[tuple[int, int]]], Iterator[NDArray[np.float32]]],
    add: Callable[[int, NDArray[np.float32], NDArray[np.float32]], None],
) -> int:
    """Blend tiles, weighted as those of pictures are, and hand on rows of pixels as soon as no tile can change them.

    Args:
        segment: places -> (channels, H, W) of each.
        add: gets the first row, (channels, rows, W) of weighted sums, and (rows, W) of weights.

    Returns:
        How many tiles there were.
    """
    importance = tile_importance((tiles.height, tiles.width)).numpy()
    total = np.zeros((channels, tiles.height, tiles.grid.width), dtype=np.float32)
    weight = np.zeros(total.shape[1:], dtype=np.float32)
    count = 0
    for number, top in enumerate(tiles.tops):
        places = tiles.row(top)
        for (_, left), maps in zip(places, segment(places), strict=True):
            total[:, :, left : left + tiles.width] += maps * importance
            weight[:, left : left + tiles.width] += importance
        count += len(places)
        last = number + 1 == len(tiles.tops)
        done = tiles.height if last else tiles.tops[number + 1] - top
        add(top, total[:, :done], weight[:done])
        for array in (total, weight):
            array[..., : tiles.height - done, :] = array[..., done:, :]
            array[..., tiles.height - done :, :] = 0.0
    return count


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
        self._values = np.array([0, *(value if value in labels else 0 for value in known)], dtype=np.uint8)
        self._kept = [channel for channel, value in enumerate(known, start=1) if value in labels]
        # without a name: it goes when the process does, however that ends
        file = tempfile.TemporaryFile()  # noqa: SIM115
        self.mask: NDArray[np.uint8] = np.memmap(file, np.uint8, "w+", shape=(grid.height, grid.width))
        self._columns = -(-np.arange(overview.width) * grid.width // overview.width)
        self._rows = np.arange(grid.height) * overview.height // grid.height
        self._overview = np.zeros((len(self._kept) + 1, overview.height, overview.width))
        cells = np.diff(np.append(self._columns, grid.width))
        self._cells = np.bincount(self._rows, minlength=overview.height)[:, None] * cells
        self._sums = {value: np.zeros(3) for value in labels}
        self._uncertainty = np.zeros(2)

    def add(self, top: int, total: NDArray[np.float32], weight: NDArray[np.float32]) -> None:
        """Rows of pixels from `top` on; see `_blended`."""
        covered = weight > 0
        maps = np.divide(total, weight, out=np.zeros_like(total), where=covered)
        np.clip(maps, 0.0, 1.0, out=maps)
        mask = self._values[maps[:-1].argmax(axis=0)]
        mask[~covered] = 0
        self.mask[top : top + len(mask)] = mask
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
