"""Masks as polygons in GeoJSON, as QuPath reads them: a feature a connected piece, along the edges of its pixels."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from bundle.cases.structures import Structures, shipped_structures
from bundle.results.files.contours import pieces_of, pixel_edges
from bundle.results.instances import Instances
from bundle.results.prediction import Prediction
from bundle.results.result_files import GEOJSON_FILES, ReportAdditions

_DECIMALS = 3


@dataclass(frozen=True)
class GeoJsonResults:
    """A `ResultWriter` of mask.geojson for H&E images.

    Args:
        images: whether it does.

    Raises:
        ValueError: `images` is neither true nor false.
    """

    images: bool = False
    files = GEOJSON_FILES

    def __post_init__(self) -> None:
        if not isinstance(self.images, bool):
            raise ValueError(f"geojson must be true or false, not {self.images!r}")

    def __call__(self, prediction: Prediction, folder: Path) -> ReportAdditions | None:
        if not self.images or prediction.case.modality != "H&E" or prediction.is_overview:
            return None
        pieces = write_geojson(
            folder / "mask.geojson",
            prediction.mask,
            prediction.labels,
            structures=prediction.structures,
            instances=prediction.instances,
        )
        names = {prediction.labels[value]: count for value, count in pieces.items()}
        return ReportAdditions({"geojson": {"file": "mask.geojson", "pieces": names}})


def write_geojson(
    path: Path,
    mask: NDArray[np.uint8],
    labels: Mapping[int, str],
    scale: tuple[float, float] = (1.0, 1.0),
    structures: Structures | None = None,
    instances: Instances | None = None,
) -> dict[int, int]:
    """Write a FeatureCollection of `polygon_features`. It says nothing of the patient or the file.

    Args:
        path: the file.
        mask, labels, scale, structures, instances: see `polygon_features`.

    Returns:
        Mask value -> number of features.

    Raises:
        OSError: the file cannot be written.
    """
    counts = dict.fromkeys(labels, 0)
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for value, feature in polygon_features(mask, labels, scale, structures, instances=instances):
            counts[value] += 1
            stream.write(separator + json.dumps(feature, ensure_ascii=False))
            separator = ",\n"
        stream.write("\n]}\n")
    return counts


def polygon_features(
    mask: NDArray[np.uint8],
    labels: Mapping[int, str],
    scale: tuple[float, float] = (1.0, 1.0),
    structures: Structures | None = None,
    offset: tuple[float, float] = (0.0, 0.0),
    least_area: float = 0.0,
    instances: Instances | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """A GeoJSON feature a connected piece, pieces that meet at a corner apart; of cells, a feature a cell.

    A ring runs along the edges of pixels, so the polygons cover the mask exactly. Coordinates count pixels from the
    upper left corner of the image; holes are the rings after the first (RFC 7946, 3.1.6).

    Args:
        mask: (H, W) of labels.
        labels: mask value -> name; with its colour that is the classification.
        scale: pixels of the coordinates per pixel of the mask, across and down.
        structures: of the network; None for the shipped one's. Pieces of those that are one connected piece are
            annotations, others detections.
        offset: coordinates of the mask's upper left corner, across and down.
        least_area: in square pixels of the coordinates; smaller pieces are left out.
        instances: the cells of the mask, which become detections with measurements, named as QuPath names its own;
            None for pieces alone.

    Yields:
        Mask value, and the feature.
    """
    structures = shipped_structures() if structures is None else structures
    cells = {} if instances is None else {value: labels[value] for value in structures.cells(labels)}
    others = {value: name for value, name in labels.items() if value not in cells}

    def feature(
        name: str, corner: NDArray[np.int64], piece: NDArray[np.bool_], measurements: dict[str, float]
    ) -> dict[str, Any]:
        known = structures.get(name)
        rings = ((ring + corner)[:, ::-1] * scale + np.asarray(offset) for ring in pixel_edges(piece))
        coordinates = [np.round(ring, _DECIMALS).tolist() for ring in rings]
        properties: dict[str, Any] = {
            "objectType": "annotation" if known is not None and known.one_piece else "detection",
            "classification": {"name": name, "color": list(structures.colour(name))},
        }
        if measurements:
            properties["measurements"] = measurements
        geometry = {"type": "Polygon", "coordinates": coordinates}
        return {"type": "Feature", "geometry": geometry, "properties": properties}

    pixel_area = scale[0] * scale[1]
    for value, corner, piece in _pieces(mask, others):
        if piece.sum() * pixel_area >= least_area:
            yield value, feature(labels[value], corner, piece, {})
    if instances is None:
        return
    for number, (corner, piece) in enumerate(pieces_of(instances.numbers)):
        value, pixels = int(instances.values[number]), int(instances.pixels[number])
        if value in cells and pixels * pixel_area >= least_area:
            measurements = {"Mean probability": round(float(instances.probability[number]), _DECIMALS)}
            if instances.mpp is None:
                measurements["Area px^2"] = round(pixels * pixel_area, _DECIMALS)
            else:
                measurements["Area µm^2"] = round(pixels * instances.mpp[0] * instances.mpp[1], _DECIMALS)
            yield value, feature(cells[value], corner, piece, measurements)


def _pieces(
    mask: NDArray[np.uint8], labels: Iterable[int]
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.bool_]]]:
    """Mask value, corner and pixels of each connected piece."""
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as other:
        # of a slide these are large; in files, the system may take their memory back
        pieces = np.memmap(file, np.int32, "w+", shape=mask.shape)
        chosen = np.memmap(other, np.bool_, "w+", shape=mask.shape)
        for value in labels:
            np.equal(mask, value, out=chosen)
            ndimage.label(chosen, output=pieces)
            for corner, piece in pieces_of(pieces):
                yield value, corner, piece


def joined_ring(rings: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """A polygon with holes as one closed ring, for formats whose polygons have none.

    The ring goes to each hole and back on the same way, along edges of pixels from a corner nearby, and runs round
    holes the other way: it encloses the same area by the even-odd and by the non-zero rule.

    Args:
        rings: of `polygon_features`: (N, 2) each, closed, the outer one first, holes turning the other way.
    """
    corners = np.concatenate([np.asarray(ring, dtype=np.float64) for ring in rings])
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    tree = cKDTree(corners)
    begin = np.searchsorted(owner, np.arange(len(rings) + 1))
    holes: dict[int, list[int]] = {}  # by the corner from which the way to them leads
    for hole in range(1, len(rings)):
        holes.setdefault(_nearest_before(tree, owner, corners[begin[hole]], hole), []).append(hole)

    def along(ring: int) -> Iterator[NDArray[np.float64] | int]:
        """Corners, and holes where the way round them is to be put in."""
        for at in range(begin[ring], begin[ring + 1]):
            yield corners[at]
            for hole in holes.get(at, ()):
                bend = np.array([corners[begin[hole], 0], corners[at, 1]])
                yield from (bend, hole, bend, corners[at])

    path: list[list[float]] = []
    ways = [along(0)]  # no recursion: holes may be reached from one another, thousands deep
    while ways:
        step = next(ways[-1], None)
        if step is None:
            ways.pop()
        elif isinstance(step, int):
            ways.append(along(step))
        else:
            path.append(step.tolist())
    return path


def _nearest_before(tree: cKDTree, owner: NDArray[np.intp], corner: NDArray[np.float64], ring: int) -> int:
    """The nearest corner of a ring that comes before."""
    count = 8
    while True:
        near = tree.query(corner, k=min(count, len(owner)), p=1)[1]
        before = near[owner[near] < ring]
        if len(before):
            return int(before[0])
        count *= 4
