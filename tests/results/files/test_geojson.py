"""Polygons cover the mask exactly, holes included, and say nothing but what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.draw import disk, polygon2mask

from bundle.cases.structures import shipped_structures
from bundle.results.files.geojson import GeoJsonResults, joined_ring, polygon_features, write_geojson
from bundle.results.instances import find_instances


def random_mask(seed: int, sigma: float, shape: tuple[int, int] = (60, 80)) -> NDArray[np.uint8]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    return np.digitize(noise, np.quantile(noise, [0.4, 0.7])).astype(np.uint8)


def rasterised(content: dict[str, Any], shape: tuple[int, int], name: str) -> NDArray[np.bool_]:
    """The pixels whose middles lie in the polygons of a class."""
    found = np.zeros(shape, dtype=bool)
    for feature in content["features"]:
        if feature["properties"]["classification"]["name"] != name:
            continue
        piece = np.zeros(shape, dtype=bool)
        for number, ring in enumerate(feature["geometry"]["coordinates"]):
            assert ring[0] == ring[-1] and len(ring) >= 5
            inside = polygon2mask(shape, np.array(ring)[:, ::-1] - 0.5)
            assert inside.any() and (number == 0 or not (inside & ~piece).any())
            piece = piece | inside if number == 0 else piece & ~inside
        assert not (piece & found).any()
        found |= piece
    return found


@pytest.mark.parametrize("sigma", [0.0, 0.8, 3.0])
def test_polygons_rasterised_are_the_mask(tmp_path: Path, sigma: float) -> None:
    mask = random_mask(1, sigma)
    labels = {1: "nucleus", 2: "gland"}
    counts = write_geojson(tmp_path / "mask.geojson", mask, labels)
    content = json.loads((tmp_path / "mask.geojson").read_text())
    for value, name in labels.items():
        assert np.array_equal(rasterised(content, mask.shape, name), mask == value)
        assert counts[value] == ndimage.label(mask == value)[1] > 1
    assert len(content["features"]) == sum(counts.values())


def test_polygons_lie_in_pixels_of_level_0(tmp_path: Path) -> None:
    mask = random_mask(2, 1.5) == 1
    write_geojson(tmp_path / "mask.geojson", mask.astype(np.uint8), {1: "nucleus"}, scale=(2.0, 3.0))
    content = json.loads((tmp_path / "mask.geojson").read_text())
    large = np.kron(mask, np.ones((3, 2), dtype=bool))
    assert np.array_equal(rasterised(content, large.shape, "nucleus"), large)


def test_a_ring_that_meets_itself_becomes_a_hole(tmp_path: Path) -> None:
    mask = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]], dtype=np.uint8)
    write_geojson(tmp_path / "mask.geojson", mask, {1: "nucleus"})
    content = json.loads((tmp_path / "mask.geojson").read_text())
    first, second = content["features"]
    assert [len(one["geometry"]["coordinates"]) for one in (first, second)] == [2, 1]
    assert sorted(map(tuple, second["geometry"]["coordinates"][0][:-1])) == [(3, 3), (3, 4), (4, 3), (4, 4)]
    for ring in first["geometry"]["coordinates"]:
        assert len(set(map(tuple, ring))) == len(ring) - 1


def test_features_are_what_qupath_reads(tmp_path: Path) -> None:
    mask = np.array([[1, 0, 2]], dtype=np.uint8)
    write_geojson(tmp_path / "mask.geojson", mask, {1: "nucleus", 2: "liver"})
    content = json.loads((tmp_path / "mask.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    kinds = {}
    for feature in content["features"]:
        assert set(feature) == {"type", "geometry", "properties"}
        properties = feature["properties"]
        assert set(properties) == {"objectType", "classification"}
        name = properties["classification"]["name"]
        kinds[name] = properties["objectType"]
        assert properties["classification"]["color"] == list(shipped_structures().colour(name))
    assert kinds == {"nucleus": "detection", "liver": "annotation"}


def test_an_empty_mask_gives_an_empty_collection(tmp_path: Path) -> None:
    assert write_geojson(tmp_path / "m.geojson", np.zeros((4, 4), np.uint8), {1: "nucleus"}) == {1: 0}
    assert json.loads((tmp_path / "m.geojson").read_text()) == {"type": "FeatureCollection", "features": []}


def test_the_option_is_checked() -> None:
    with pytest.raises(ValueError, match="geojson must be true or false"):
        GeoJsonResults("yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.0, 0.8, 3.0])
def test_a_ring_with_its_holes_joined_encloses_the_same(sigma: float) -> None:
    mask = (random_mask(5, sigma) != 1).astype(np.uint8)
    found = np.zeros(mask.shape, dtype=np.uint8)
    holes = 0
    for _, feature in polygon_features(mask, {1: "nucleus"}):
        rings = feature["geometry"]["coordinates"]
        ring = np.array(joined_ring(rings))
        holes += len(rings) - 1
        assert (ring[0] == ring[-1]).all()
        # pixels as small squares, whose middles no line meets
        image = Image.new("1", (mask.shape[1] * 8, mask.shape[0] * 8))
        ImageDraw.Draw(image).polygon([tuple(point) for point in ring * 8 - 0.5], fill=1)
        found += np.asarray(image)[4::8, 4::8]
        winding = polygon2mask(mask.shape, ring[:, ::-1] - 0.5)
        assert np.array_equal(winding, np.asarray(image)[4::8, 4::8])
    assert holes and np.array_equal(found, mask)


def test_thousands_of_holes_are_joined_in_a_moment() -> None:
    mask = np.ones((121, 121), dtype=np.uint8)
    mask[1::2, 1::2] = 0
    [(_, feature)] = polygon_features(mask, {1: "nucleus"})
    rings = feature["geometry"]["coordinates"]
    ring = np.array(joined_ring(rings))
    assert len(rings) == 1 + 60**2 and len(ring) < 10 * len(rings)
    across, down = ring[:, 0], ring[:, 1]
    area = abs(np.sum(across[:-1] * down[1:] - across[1:] * down[:-1])) / 2  # holes count against it
    assert area == mask.sum()


def test_pieces_are_moved_and_small_ones_left_out() -> None:
    mask = np.array([[1, 0, 1], [1, 0, 0]], dtype=np.uint8)
    options = {"scale": (2.0, 2.0), "offset": (10.0, 20.0)}
    [(_, first), (_, second)] = polygon_features(mask, {1: "nucleus"}, **options)
    assert sorted(first["geometry"]["coordinates"][0][:-1]) == [[10, 20], [10, 24], [12, 20], [12, 24]]
    assert sorted(second["geometry"]["coordinates"][0][:-1]) == [[14, 20], [14, 22], [16, 20], [16, 22]]
    assert list(polygon_features(mask, {1: "nucleus"}, **options, least_area=5.0)) == [(1, first)]


@pytest.mark.parametrize("mpp", [None, (0.25, 0.5)])
def test_each_cell_is_a_detection_with_measurements(tmp_path: Path, mpp: tuple[float, float] | None) -> None:
    mask = np.zeros((60, 90), dtype=np.uint8)
    for column in (25, 44):
        mask[disk((30, column), 11)] = 1
    mask[:8] = 2
    cells = find_instances(mask, np.full(mask.shape, 0.75), [1], mpp=mpp)
    path = tmp_path / "mask.geojson"
    counts = write_geojson(path, mask, {1: "nucleus", 2: "liver"}, instances=cells)
    assert counts == {1: 2, 2: 1}
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    detections = [one for one in features if one["properties"]["objectType"] == "detection"]
    assert len(detections) == 2 and len(features) == 3
    rings = np.zeros(mask.shape, dtype=np.int64)
    for number, feature in enumerate(detections, start=1):
        [ring] = feature["geometry"]["coordinates"]
        inside = polygon2mask(mask.shape, np.array(ring)[:, ::-1] - 0.5)
        rings[inside] = number
        area = int(inside.sum())
        unit, expected = ("px^2", area) if mpp is None else ("µm^2", area * 0.125)
        measured = feature["properties"]["measurements"]
        assert measured == {"Mean probability": 0.75, f"Area {unit}": pytest.approx(expected)}
    assert np.array_equal(rings, cells.numbers)
    least = polygon_features(mask, {1: "nucleus"}, least_area=10_000, instances=cells)
    assert list(least) == []


def test_cells_of_a_structure_that_was_not_asked_for_have_no_polygon() -> None:
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[disk((20, 20), 9)] = 1
    cells = find_instances(mask, None, [1])
    assert list(polygon_features(mask, {2: "liver"}, instances=cells)) == []
