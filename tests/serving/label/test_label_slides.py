"""Regions of slides in, polygons out, as QuPath's extension asks for them: they are the command's mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tests.support.label_server import MODEL, Server

pytestmark = pytest.mark.slow
#: Left, top, width and height in pixels of level 0; the second is odd on every side, the last is all of it.
REGIONS = [(0, 0, 640, 480), (201, 133, 777, 501), (0, 0, 0, 0)]


def ask(
    server: Server,
    image: str,
    box: tuple[int, int, int, int],
    output: str,
    least_area: int = 0,
    **params: Any,
) -> requests.Response:
    """As QuPath's extension does."""
    wsi = {
        "level": 0,
        "location": box[:2],
        "size": box[2:],
        "tile_size": [1024, 1024],
        "min_poly_area": least_area,
        "params": {"foreground": [], "background": [], "max_workers": 1, **params},
    }
    url = f"{server.url}/infer/wsi/{MODEL}"
    return requests.post(url, params={"image": image, "output": output}, json=wsi, timeout=300)


def filled(rings: list[Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels of level 0 whose middles lie in a polygon, by Pillow's rule; holes are rings after the first.

    Pixels are squares of four by four, whose middles no line meets.
    """
    found = np.zeros(shape, dtype=bool)
    for number, ring in enumerate(rings):
        corners = np.asarray(ring)
        left, top = np.floor(corners.min(axis=0)).astype(int)
        right, bottom = np.ceil(corners.max(axis=0)).astype(int)
        image = Image.new("1", (4 * int(right - left), 4 * int(bottom - top)))
        points = (corners - (left, top)) * 4 - 0.5
        ImageDraw.Draw(image).polygon([tuple(point) for point in points.tolist()], fill=1)
        inside = np.asarray(image)[2::4, 2::4]
        part = found[top:bottom, left:right]
        part[inside[: shape[0] - top, : shape[1] - left]] = number == 0
    return found


def from_geojson(answer: requests.Response, shape: tuple[int, int]) -> NDArray[np.bool_]:
    features = answer.json()["features"]
    assert {one["properties"]["classification"]["name"] for one in features} == {"nucleus"}
    found = np.zeros(shape, dtype=bool)
    for one in features:
        found |= filled(one["geometry"]["coordinates"], shape)
    return found


def from_asap(answer: requests.Response, shape: tuple[int, int]) -> NDArray[np.bool_]:
    tree = ElementTree.fromstring(answer.content)
    found = np.zeros(shape, dtype=bool)
    for one in tree.iter("Annotation"):
        assert one.attrib["Name"] == "nucleus" and int(one.attrib["Color"].removeprefix("#"), 16)
        points = [(float(point.attrib["X"]), float(point.attrib["Y"])) for point in one.iter("Coordinate")]
        found |= filled([points], shape)
    return found


def from_dsa(answer: requests.Response, shape: tuple[int, int]) -> NDArray[np.bool_]:
    found = np.zeros(shape, dtype=bool)
    for one in answer.json()["elements"]:
        assert one["type"] == "polyline" and one["closed"]
        found |= filled([[point[:2] for point in one["points"]]], shape)
    return found


READERS = {"json": from_geojson, "asap": from_asap, "dsa": from_dsa}


def overlap(found: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    assert expected.any() and not expected.all(), "a mask of one value would prove little"
    return float((found & expected).sum() / (found | expected).sum())


@pytest.mark.parametrize("box", REGIONS, ids=str)
@pytest.mark.parametrize("output", READERS)
def test_polygons_of_a_region_are_the_mask_of_the_slide(
    server: Server, command: Any, box: tuple[int, int, int, int], output: str
) -> None:
    whole = np.kron(command("slide") > 0, np.ones((2, 2), dtype=bool))  # 0.5 to 0.25 micrometres
    left, top, width, height = box
    answer = ask(server, "slide", box, output)
    assert answer.status_code == 200, answer.text
    found = READERS[output](answer, whole.shape)
    region = np.s_[top : top + height, left : left + width] if width else np.s_[:]
    assert overlap(found[region], whole[region]) >= 0.98
    # beyond the region no more than the pixel of the mask that its edge cuts
    left, top = left - left % 2, top - top % 2
    outside = np.ones(whole.shape, dtype=bool)
    outside[top : box[1] + height + 1, left : box[0] + width + 1] = False
    assert not width or not (found & outside).any()


def test_a_slide_is_known_by_the_name_of_its_file(server: Server) -> None:
    """As the extension asks before; where it is not, a picture of the region is sent."""
    for image, known in (("slide", True), ("other", False)):
        answer = requests.head(f"{server.url}/datastore/image", params={"image": image}, timeout=60)
        assert answer.ok == known


def test_what_extensions_send_by_default(server: Server, command: Any) -> None:
    whole = np.kron(command("slide") > 0, np.ones((2, 2), dtype=bool))
    every, large = (ask(server, "slide", REGIONS[0], "json", least).json()["features"] for least in (0, 80))
    areas = [filled(one["geometry"]["coordinates"], whole.shape).sum() for one in every]
    assert len(large) == sum(area >= 80 for area in areas) < len(every)


def test_a_region_that_was_cut_out_before(server: Server, command: Any, files: dict[str, Path]) -> None:
    """Of an image that the server does not have, the extension sends a picture."""
    for kind in ("tile", "tiff"):
        mask = command(kind) > 0
        for output, reader in READERS.items():
            answer = requests.post(
                f"{server.url}/infer/wsi_v2/{MODEL}",
                params={"output": output},
                data={"wsi": json.dumps({"location": [0, 0], "size": [0, 0], "min_poly_area": 0})},
                files={"file": (files[kind].name, files[kind].read_bytes())},
                timeout=300,
            )
            assert answer.status_code == 200, answer.text
            assert overlap(reader(answer, mask.shape), mask) >= 0.98
    mask = command("tile") > 0
    part = from_geojson(ask(server, "tile", (16, 32, 64, 48), "json"), mask.shape)
    assert overlap(part[32:80, 16:80], mask[32:80, 16:80]) >= 0.98 and not part[:, :16].any()


def test_a_prompt_that_names_nothing_of_it_leaves_it_empty(server: Server) -> None:
    answer = ask(server, "slide", REGIONS[0], "json", prompt="no finding")
    assert answer.status_code == 200 and answer.json()["type"] == "FeatureCollection"


@pytest.mark.parametrize(
    ("image", "box", "options", "status", "said"),
    [
        ("slide", (5000, 0, 50, 50), {}, 422, "1300 x 900"),
        ("slide", (0, 0, 50, 0), {}, 400, "size"),
        ("slide", (-5, 0, 50, 50), {}, 400, "location"),
        ("slide", (0, 0, 1 << 40, 50), {}, 400, "size"),
        ("slide", (0, 0, 50, 50), {"level": 2}, 400, "level"),
        ("slide", (0, 0, 50, 50), {"location": "$1/0"}, 400, "location"),
        ("slide", (0, 0, 50, 50), {"min_poly_area": "@x"}, 400, "min_poly_area"),
        ("slide", (0, 0, 50, 50), {"model_filename": "../x.pt"}, 400, "weights"),
        ("slide", (0, 0, 50, 50), {"image": "/etc/hostname"}, 400, "file name"),
        ("slide", (0, 0, 50, 50), {"prompt": 7}, 400, "prompt"),
        ("nifti", (0, 0, 0, 0), {}, 422, "H&E"),
        ("unknown", (0, 0, 0, 0), {}, 400, "unknown"),
        ("../../x", (0, 0, 0, 0), {}, 400, "file name"),
    ],
)
def test_what_cannot_be_answered(
    server: Server, image: str, box: Any, options: dict[str, Any], status: int, said: str
) -> None:
    answer = ask(**{"server": server, "image": image, "box": box, "output": "json", **options})
    assert answer.status_code == status and said in answer.json()["detail"], answer.text
    assert "\n" not in answer.json()["detail"]


def test_an_unknown_output_is_refused(server: Server) -> None:
    """Before the request reaches the bundle, by the types of MONAI Label's interface."""
    answer = ask(server, "slide", REGIONS[0], "../x")
    assert answer.status_code == 422 and "'asap', 'dsa' or 'json'" in answer.text
