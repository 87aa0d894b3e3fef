"""The results of a whole-slide image: mask as pyramid TIFF, polygons, overviews, report and page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from bundle.cases.slides import SlideGrid
from bundle.results.files.geojson import write_geojson
from bundle.results.plausibility import flags_of
from bundle.results.prediction import Prediction
from bundle.results.result_files import ResultWriter
from bundle.results.slide_prediction import SlidePrediction
from bundle.results.writer import write_case, write_png_maps

_TILE = 512
_SMALLEST_LEVEL = 512  # pixels along its longer side
_BIG = 1 << 31  # bytes uncompressed, beyond which offsets have 64 bits
_PROBABILITY_NOTE = (
    "overview: probability of any of the structures (clipped sum), mean over slide.overview_mpp"
)


def write_slide(
    prediction: SlidePrediction,
    output_dir: Path,
    elapsed_seconds: float | None = None,
    writers: Sequence[ResultWriter] = (),
) -> dict[str, Any]:
    """Write mask.tif, mask.geojson, probability.png, uncertainty.png, preview, report and page of a slide.

    probability.png and uncertainty.png are overviews, whose resolution the report states. Further writers are called
    with the overview. Otherwise as `bundle.results.write_prediction`.
    """

    def write_maps(overview: Prediction, folder: Path) -> dict[str, Any]:
        write_mask_pyramid(folder / "mask.tif", prediction.mask, prediction.grid)
        polygons = folder / "mask.geojson"
        pieces = write_geojson(
            polygons,
            prediction.mask,
            prediction.labels,
            prediction.grid.scale,
            prediction.structures,
            prediction.instances,
        )
        write_png_maps(overview, folder)
        return _measured(prediction, pieces)

    return write_case(_overview(prediction), output_dir, elapsed_seconds, writers, write_maps)


def _overview(prediction: SlidePrediction) -> Prediction:
    """The slide as an image of the overview's size; its mask has the value at the middle of each pixel."""
    height, width = prediction.case.array.shape[1:]
    rows, columns = (
        (np.arange(count) * 2 + 1) * whole // (2 * count)
        for count, whole in ((height, prediction.grid.height), (width, prediction.grid.width))
    )
    mask = np.stack([np.asarray(prediction.mask[row])[columns] for row in rows])
    return Prediction(
        case=prediction.case,
        mask=mask,
        probability=prediction.probability,
        uncertainty=prediction.uncertainty,
        labels=prediction.labels,
        warnings=prediction.warnings,
        settings=prediction.settings,
        source_series=prediction.case.source_series,
        is_overview=True,
        structures=prediction.structures,
        flags=flags_of(prediction.case, mask, prediction.labels, prediction.structures, small=True),
    )


def _measured(prediction: SlidePrediction, pieces: dict[int, int]) -> dict[str, Any]:
    """What the report has of the whole mask, in place of what the overview shows of it."""
    pixel_mm2 = prediction.grid.mpp[0] * prediction.grid.mpp[1] * 1e-6
    tissue = prediction.about["tissue_mm2"]
    labels: dict[str, Any] = {}
    for value, name in prediction.labels.items():
        sums = prediction.sums[value]
        many: dict[str, Any] = (
            {} if value in prediction.structures.in_one_piece() else {"count": pieces[value]}
        )
        if prediction.instances is not None and value in prediction.structures.cells(prediction.labels):
            many = prediction.instances.measured(value)
        if many and tissue:
            many["per_mm2_tissue"] = many["count"] / tissue
        labels[name] = {
            "value": value,
            "colour": prediction.structures.colour(name),
            "found": sums.pixels > 0,
            "pixels": sums.pixels,
            "area_px": sums.pixels,
            "area_mm2": sums.pixels * pixel_mm2,
            **many,
            "mean_probability": sums.probability / sums.pixels if sums.pixels else None,
            "mean_uncertainty": sums.uncertainty / sums.pixels if sums.pixels else None,
        }
    found = sum(sums.pixels for sums in prediction.sums.values())
    unsure = sum(sums.uncertainty for sums in prediction.sums.values())
    return {
        "found": found > 0,
        "labels": labels,
        "probability_file": _PROBABILITY_NOTE,
        "mean_uncertainty": prediction.mean_uncertainty,
        "mean_uncertainty_foreground": unsure / found if found else None,
        "shape": prediction.mask.shape,
        "slide": prediction.about,
    }


def write_mask_pyramid(path: Path, mask: NDArray[np.uint8], grid: SlideGrid) -> None:
    """Write a mask as tiled TIFF with deflate; each smaller level has every second pixel of the one before it.

    Levels are pages of reduced resolution (NewSubfileType 1, TIFF 6.0 page 36), which OpenSlide and QuPath take for a
    pyramid. Each has its resolution in pixels per centimetre. Identical masks give identical bytes.

    Args:
        mask: (H, W).
        grid: of the mask, for its resolution.

    Raises:
        OSError: the file cannot be written.
    """
    with tifffile.TiffWriter(path, bigtiff=mask.size > _BIG) as writer:
        step = 1
        while True:
            level = mask[::step, ::step]
            writer.write(
                _tiles(level),
                shape=level.shape,
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                compression="zlib",
                photometric="minisblack",
                resolution=tuple(1e4 / (mpp * step) for mpp in grid.mpp),
                resolutionunit="CENTIMETER",
                subfiletype=0 if step == 1 else 1,
                metadata=None,
                software=False,
                maxworkers=1,
            )
            if max(level.shape) <= _SMALLEST_LEVEL:
                return
            step *= 2


def _tiles(level: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for top in range(0, level.shape[0], _TILE):
        for left in range(0, level.shape[1], _TILE):
            tile = np.zeros((_TILE, _TILE), dtype=np.uint8)
            part = level[top : top + _TILE, left : left + _TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
