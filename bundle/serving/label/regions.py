"""Regions of slides for viewers of pathology: what they ask for, and the polygons that they are answered with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bundle.results.files.geojson import joined_ring
from bundle.serving.label.requests import RequestError, checked_whole

#: Pixels of level 0, along a side of a slide.
_MOST_PIXELS = 1 << 24
#: Square pixels of the mask in a region. What is larger is for `python -m bundle segment`, which answers with files.
MOST_MASK_PIXELS = 100_000_000
OUTPUTS = ("json", "asap", "dsa")

Feature = dict[str, Any]


@dataclass(frozen=True)
class RegionRequest:
    """A region of a slide.

    Attributes:
        box: left, top, right and bottom in pixels of level 0; None for all of the image.
        least_area: of a polygon, in square pixels of level 0.
        output: json (GeoJSON), asap (XML of ASAP, which QuPath's extension reads) or dsa (JSON of the Digital Slide
            Archive).
    """

    box: tuple[int, int, int, int] | None
    least_area: int
    output: str


def checked_region(request: Mapping[str, Any]) -> RegionRequest:
    """The fields of a request that say what of a slide is wanted, and how.

    'location' and 'size' are two whole numbers each, both 0 for all of the image, 'min_poly_area' is one. 'level' must
    be 0, since coordinates are those of the largest level. 'tile_size' is left to the bundle.

    Raises:
        RequestError: a field has a value that it cannot have.
    """
    checked_whole("level", request.get("level") or 0, 0, 0)
    left, top = _pair("location", request.get("location"))
    width, height = _pair("size", request.get("size"))
    output = request.get("output") or "json"
    if output not in OUTPUTS:
        raise RequestError(f"The output is not known; ask for one of {', '.join(OUTPUTS)}.")
    if bool(width) != bool(height):
        raise RequestError(f"The size is {width} x {height}; send two numbers above 0, or 0 and 0 for all.")
    least = checked_whole("min_poly_area", request.get("min_poly_area") or 0, 0, _MOST_PIXELS)
    return RegionRequest((left, top, left + width, top + height) if width else None, least, output)


def _pair(name: str, value: Any) -> tuple[int, int]:
    if value is None:
        return 0, 0
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise RequestError(f"The {name} has to be two whole numbers, across and down, in pixels of level 0.")
    first, second = (checked_whole(name, one, 0, _MOST_PIXELS) for one in value)
    return first, second


def as_geojson(features: Iterable[Feature]) -> dict[str, Any]:
    """A FeatureCollection."""
    return {"type": "FeatureCollection", "features": list(features)}


def as_annotations(name: str, features: Iterable[Feature], request: RegionRequest) -> dict[str, Any]:
    """What MONAI Label makes files for ASAP and the Digital Slide Archive of.

    Their polygons have no holes; a ring leads to each and back, see `bundle.results.files.geojson.joined_ring`.
    """
    contours: dict[str, list[Any]] = {}
    colours: dict[str, list[int]] = {}
    for feature in features:
        label = feature["properties"]["classification"]
        colours[label["name"]] = label["color"]
        # without the last point, which is the first
        ring = joined_ring(feature["geometry"]["coordinates"])[:-1]
        contours.setdefault(label["name"], []).append(ring)
    left, top, right, bottom = request.box or (0, 0, 0, 0)
    elements = [{"label": label, "contours": rings} for label, rings in contours.items()]
    return {
        "name": name,
        "description": "For research use only",
        "model": name,
        "location": [left, top],
        "size": [right - left, bottom - top],
        "annotations": [{"annotation": {"labels": colours, "elements": elements}}],
    }
