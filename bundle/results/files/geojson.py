"""Masks as polygons in GeoJSON, as QuPath reads them: a feature a connected piece, along the edges of its pixels."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import find_contours

from bundle.results.pictures.colours import structure_colour
from bundle.results.prediction import Prediction
from bundle.results.result_files import GEOJSON_FILES, ReportAdditions

Ring = NDArray[np.float64]
_DECIMALS = 3


@dataclass(frozen=True)
class GeoJsonResults:
    """A `ResultWriter` of mask.geojson for H&E images.

    Args:
        pictures: whether it does.

    Raises:
        ValueError: `pictures` is neither true nor false.
    """

    pictures: bool = False
    files = GEOJSON_FILES

    def __post_init__(self) -> None:
        if not isinstance(self.pictures, bool):
            raise ValueError(f"geojson must be true or false, not {self.pictures!r}")

    def __call__(self, prediction: Prediction, folder: Path) -> ReportAdditions | None:
        if not self.pictures or prediction.case.modality != "H&E" or prediction.is_overview:
            return None
        pieces = write_geojson(folder / "mask.geojson", prediction.mask, prediction.labels)
        names = {prediction.labels[value]: count for value, count in pieces.items()}
        return ReportAdditions({"geojson": {"file": "mask.geojson", "pieces": names}})


def write_geojson(
    path: Path,
    mask: NDArray[np.uint8],
    labels: Mapping[int, str],
    scale: tuple[float, float] = (1.0, 1.0),
    one_piece: Collection[int] = (),
) -> dict[int, int]:
    """Write a FeatureCollection of `polygon_features`. It says nothing of the patient or the file.

    Args:
        path: the file.
        mask, labels, scale, one_piece: see `polygon_features`.

    Returns:
        Mask value -> number of pieces.

    Raises:
        OSError: the file cannot be written.
    """
    counts = dict.fromkeys(labels, 0)
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for value, feature in polygon_features(mask, labels, scale, one_piece):
            counts[value] += 1
            stream.write(separator + json.dumps(feature, ensure_ascii=False))
            separator = ",\n"
        stream.write("\n]}\n")
    return counts


def polygon_features(
    mask: NDArray[np.uint8],
    labels: Mapping[int, str],
    scale: tuple[float, float] = (1.0, 1.0),
    one_piece: Collection[int] = (),
    offset: tuple[float, float] = (0.0, 0.0),
    least_area: float = 0.0,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """A GeoJSON feature a connected piece, pieces that meet at a corner apart.

    A ring runs along the edges of pixels, so the polygons cover the mask exactly. Coordinates count pixels from the
    upper left corner of the image; holes are the rings after the first (RFC 7946, 3.1.6).

    Args:
        mask: (H, W) of labels.
        labels: mask value -> name; with its colour that is the classification.
        scale: pixels of the coordinates per pixel of the mask, across and down.
        one_piece: values whose pieces are annotations; those of others are detections.
        offset: coordinates of the mask's upper left corner, across and down.
        least_area: in square pixels of the coordinates; smaller pieces are left out.

    Yields:
        Mask value, and the feature.
    """
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as other:
        # of a slide these are large; in files, the system may take their memory back
        pieces = np.memmap(file, np.int32, "w+", shape=mask.shape)
        chosen = np.memmap(other, np.bool_, "w+", shape=mask.shape)
        for value, name in labels.items():
            properties = {
                "objectType": "annotation" if value in one_piece else "detection",
                "classification": {
                    "name": name,
                    "color": [round(255 * channel) for channel in structure_colour(name)],
                },
            }
            np.equal(mask, value, out=chosen)
            ndimage.label(chosen, output=pieces)
            for rings in _polygons(pieces, least_area / (scale[0] * scale[1])):
                coordinates = [_coordinates(ring, scale, offset) for ring in rings]
                geometry = {"type": "Polygon", "coordinates": coordinates}
                yield value, {"type": "Feature", "geometry": geometry, "properties": properties}


def joined_ring(rings: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """A polygon with holes as one closed ring, for formats whose polygons have none.

    The ring goes to each hole and back on the same way, along edges of pixels from a corner nearby, and runs round
    holes the other way: it encloses the same area by the even-odd and by the non-zero rule.

    Args:
        rings: (N, 2) each, closed, the outer one first.
    """
    turned = [
        _turning(np.asarray(ring, dtype=np.float64), -1.0 if number else 1.0)
        for number, ring in enumerate(rings)
    ]
    corners = np.concatenate(turned)
    owner = np.repeat(np.arange(len(turned)), [len(ring) for ring in turned])
    tree = cKDTree(corners)
    begin = np.searchsorted(owner, np.arange(len(turned) + 1))
    holes: dict[int, list[int]] = {}  # by the corner from which the way to them leads
    for hole in range(1, len(turned)):
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


def _turning(ring: Ring, sign: float) -> Ring:
    return ring if np.sign(_area(ring)) == sign else ring[::-1]


def _polygons(pieces: NDArray[np.int32], least_area: float) -> Iterator[list[Ring]]:
    """The rings of each piece of no less than some pixels, the outer one first."""
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        piece = pieces[box] == number
        if piece.sum() >= least_area:
            corner = np.array([box[0].start, box[1].start])
            yield [ring + corner for ring in rings_of(piece)]


def rings_of(piece: NDArray[np.bool_]) -> list[Ring]:
    """The rings around a piece whose pixels are connected by their edges, and around its holes.

    Args:
        piece: (H, W).

    Returns:
        (N, 2) row and column of corners, closed, in pixels from the upper left corner of the array; the outer ring
        first. Where pixels meet at a corner only, rings touch there, and none of them itself.
    """
    # 'high': the pieces of a pinch belong together, so that what they enclose becomes a hole
    contours = find_contours(np.pad(piece, 1).astype(np.float32), 0.5, fully_connected="high")
    rings = [_corners(contour) for contour in contours]
    return sorted(rings, key=lambda ring: -abs(_area(ring)))


def _corners(contour: NDArray[np.float64]) -> Ring:
    """From the middles of pixel edges, which the contour of a binary image consists of, to the corners between them.

    At a corner the contour goes from an upright edge, whose column is that of the corner, to a level one, whose row
    is; or the other way round.
    """
    contour = contour[:-1]
    following = np.roll(contour, -1, axis=0)
    level = contour[:, 0] % 1 != 0  # between two rows
    turns = level != np.roll(level, -1)
    rows = np.where(level, contour[:, 0], following[:, 0])
    columns = np.where(level, following[:, 1], contour[:, 1])
    # without the padding, and from the middles of pixels to their upper left corners
    corners = np.stack([rows, columns], axis=1)[turns] - 0.5
    return np.concatenate([corners, corners[:1]])


def _area(ring: Ring) -> float:
    rows, columns = ring.T
    return float(np.dot(rows[:-1], columns[1:]) - np.dot(rows[1:], columns[:-1])) / 2.0


def _coordinates(ring: Ring, scale: tuple[float, float], offset: tuple[float, float]) -> list[list[float]]:
    """As x and y."""
    points = np.round(ring[:, ::-1] * scale + np.asarray(offset), _DECIMALS)
    plain: list[list[float]] = points.tolist()
    return plain
