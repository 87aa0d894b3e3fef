"""The page of a case: its slices are those of the arrays, its numbers those of the report."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bundle.results import Prediction, write_prediction
from bundle.results.page.histogram import BINS, probability_histogram
from bundle.results.page.slices import image_stacks
from bundle.results.page.volume import viewer_volume
from tests.support.html_reader import Element, check_safe, content_of, read_html

Make = Callable[..., Prediction]
pytestmark = pytest.mark.usefixtures("quick_preview")
NASTY = "<script>alert(1)</script> & \"quoted\" 'single' </script><img src=https://example.org/x.png>"


def _page(prediction: Prediction, folder: Path) -> tuple[Element, dict[str, Any]]:
    result = write_prediction(prediction, folder)
    root = read_html((folder / "case_1" / "index.html").read_text(encoding="utf-8"))
    check_safe(root)
    return root, result["report"]


def _labels(stack: dict[str, Any], index: int) -> NDArray[np.uint8]:
    columns, rows = stack["grid"]
    encoded = stack["slices"][index]["labels"]
    if not encoded:
        return np.zeros((rows, columns), np.uint8)
    return np.frombuffer(zlib.decompress(base64.b64decode(encoded)), np.uint8).reshape(rows, columns)


def _image(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


@pytest.mark.parametrize(
    "prompt", [NASTY, "\u202egnp.exe عربي", "liver " * 2000, "{{ 7*7 }}", "\x00\ud800", ""]
)
def test_whatever_is_given_is_text(tmp_path: Path, make_prediction: Make, prompt: str) -> None:
    prediction = make_prediction(
        prompt=prompt, labels={1: "<i>" + prompt[:90]}, warnings=["<u>" + prompt[:90]]
    )
    root, _ = _page(prediction, tmp_path)
    said = " ".join(prompt.split())
    if prompt.isprintable() and prompt:
        assert root.find("p", class_="prompt")[0].text == said
        assert content_of(root)["structures"][0]["name"] == "<i>" + prompt[:90]
    assert root.find("ul", class_="warnings")[0].text.startswith("<u>")
    assert not root.find("u") and all(letter.attributes["class"] for letter in root.find("i"))
    assert "49" not in root.find("section", aria_labelledby="prompt-title")[0].text
    assert root.find("title")[0].text == "case_1"


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_slices_are_upright_whatever_the_files_order(
    tmp_path: Path, make_prediction: Make, signs: tuple[int, ...]
) -> None:
    affine = np.diag([*signs, 1.0]) * [1.5, 1.5, 3.0, 1.0]
    prediction = make_prediction(affine=affine, labels={3: "liver"}, empty=True)
    shape = prediction.mask.shape
    # One voxel at the patient's right, anterior, superior corner, wherever the file keeps it.
    corner = tuple(edge - 1 if sign > 0 else 0 for edge, sign in zip(shape, signs, strict=True))
    prediction.mask[corner] = 3
    root, _ = _page(prediction, tmp_path)
    axial, coronal, sagittal = content_of(root)["stacks"]
    assert [stack["title"] for stack in (axial, coronal, sagittal)] == ["Axial", "Coronal", "Sagittal"]
    assert [stack["grid"] for stack in (axial, coronal, sagittal)] == [[24, 20], [24, 10], [20, 10]]
    assert axial["size"] == pytest.approx((36.0, 30.0)) and coronal["size"] == pytest.approx((36.0, 30.0))
    # Axial: right on the left, anterior up. Coronal: right on the left, superior up. Sagittal: anterior on the left.
    for stack in (axial, coronal, sagittal):
        [shown] = [index for index, one in enumerate(stack["slices"]) if one["labels"]]
        assert np.argwhere(_labels(stack, shown)).tolist() == [[0, 0]], stack["title"]
        number = {"Axial": corner[2], "Coronal": corner[1], "Sagittal": corner[0]}[stack["title"]] + 1
        assert stack["slices"][shown]["title"].startswith(f"slice {number} of ")
    letters = [letter.text for letter in root.find("i")]
    assert letters == ["R", "L", "A", "P", "R", "L", "S", "I", "A", "P", "S", "I"]


def test_the_slices_of_a_long_volume_are_chosen_evenly_and_say_so(
    tmp_path: Path, make_prediction: Make
) -> None:
    prediction = make_prediction(shape=(24, 20, 130), empty=True, affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    prediction.mask[4:9, 4:9, 77] = 1
    root, _ = _page(prediction, tmp_path)
    axial = content_of(root)["stacks"][0]
    numbers = [int(one["title"].split()[1]) for one in axial["slices"]]
    assert set(np.diff(numbers)) == {5} and 78 in numbers
    start = int(root.find("input", type="range", max=str(len(numbers) - 1))[0].attributes["value"])
    assert numbers[start] == 78 and _labels(axial, start).sum() == 25
    assert "axial: 1 of 5" in root.text


def test_a_large_picture_is_shown_smaller(tmp_path: Path, make_prediction: Make) -> None:
    prediction = make_prediction(shape=(2000, 3300), labels={1: "nucleus"}, empty=True)
    prediction.mask[1000:1400, 300:900] = 1
    root, report = _page(prediction, tmp_path)
    [stack] = content_of(root)["stacks"]
    assert stack["grid"] == [1100, 667] and stack["size"] == [3300.0, 2000.0]
    assert _image(stack["slices"][0]["image"]).size == (1100, 667)
    assert max(_image(stack["slices"][0]["uncertainty"]).size) <= 256
    rows, columns = np.nonzero(_labels(stack, 0))
    assert (rows.min(), columns.min()) == (334, 100) and len(rows) == pytest.approx(400 * 600 / 9, rel=0.02)
    assert not root.find("canvas", id="viewer") and not (tmp_path / "case_1" / "viewer.js").exists()
    assert f"{report['labels']['nucleus']['area_px']:,} px" in root.text


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {}},
        {"shape": (30, 20, 1)},
        {"shape": (1, 1, 1), "empty": True},
        {"shape": (24, 20, 3), "affine": np.diag([0.5, 0.5, 8.0, 1.0])},
        {"shape": (24, 20, 10), "affine": np.zeros((4, 4))},
        {"shape": (60, 1500)},
        {"labels": {value: f"structure {value}" for value in range(1, 5)}},
    ],
)
def test_any_case_has_a_page(tmp_path: Path, make_prediction: Make, changes: dict[str, Any]) -> None:
    prediction = make_prediction(**changes)
    root, report = _page(prediction, tmp_path)
    assert content_of(root)["stacks"] and root.find("h1")[0].text == "case_1"
    degenerate = prediction.case.affine is None or not prediction.case.affine.any()
    assert (tmp_path / "case_1" / "viewer.js").exists() is not degenerate
    assert len(root.find("input", class_="show")) == sum(
        entry["found"] for entry in report["labels"].values()
    )


def test_tables_and_facts_are_those_of_the_report(tmp_path: Path, make_prediction: Make) -> None:
    prediction = make_prediction(
        labels={1: "liver", 2: "spleen", 5: "stomach"}, settings={"steps": 10}, source_series={"slices": 10}
    )
    prediction.mask[prediction.mask == 5] = 0
    root, report = _page(prediction, tmp_path)
    [table] = root.find("table")
    rows = {
        row.find("th")[0].text: [cell.text for cell in row.find("td")]
        for row in table.find("tbody")[0].find("tr")
    }
    liver = report["labels"]["liver"]
    inside = prediction.mask == 1
    assert liver["mean_hu"] == pytest.approx(prediction.case.array[0][inside].mean(), abs=1e-3)
    assert rows["liver"] == [
        "yes",
        f"{liver['volume_ml']:.1f} ml",
        f"{liver['mean_hu']:.0f}",
        f"{liver['mean_probability']:.2f}",
        f"{liver['mean_uncertainty']:.3f}",
        "1",
    ]
    assert rows["stomach"] == ["no", "", "", "", "", "5"]
    links = {anchor.text for anchor in root.find("a")}
    assert {"mask.nii.gz", "probability.nii.gz", "uncertainty.nii.gz", "preview.png", "report.json"} <= links
    titles = {details.find("summary")[0].text: details.text for details in root.find("details")}
    assert "slices 10" in titles["Source series"] and "steps 10" in titles["Settings"]
    assert "Research use only" in root.text


def test_histograms_count_every_voxel_once() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((30, 20, 7), np.float32)
    probability[0, 0, 0], probability[0, 0, 1] = 1.0, 0.0
    inside = rng.random(probability.shape) < 0.3
    histogram = probability_histogram([(probability, inside)])
    for counts, where in ((histogram.inside, inside), (histogram.outside, ~inside)):
        naive, _ = np.histogram(probability[where], bins=BINS, range=(0, 1))
        assert counts == naive[1:].tolist()
    assert histogram.highest == max(
        one + other for one, other in zip(histogram.inside, histogram.outside, strict=True)
    )


def test_the_viewers_volume_lies_where_the_case_does(make_prediction: Make) -> None:
    affine = np.array([[-0.8, 0.1, 0, 91.0], [0, -0.8, 0.4, -13.0], [0, 0.2, 2.5, 401.0], [0, 0, 0, 1]])
    prediction = make_prediction(shape=(61, 50, 17), affine=affine, empty=True)
    prediction.mask[20:41, 11:32, 3:12] = 1
    whole, reduced = viewer_volume(prediction), viewer_volume(prediction, most_voxels=9000)
    assert whole is not None and reduced is not None
    assert whole.shape == (61, 50, 17) and whole.spacing == pytest.approx(prediction.case.spacing)
    assert np.prod(reduced.shape) <= 9000 and max(reduced.spacing) / min(reduced.spacing) < 1.6

    def loaded(content: bytes) -> Any:
        return nib.Nifti1Image.from_bytes(gzip.decompress(content))

    def middle(image: Any) -> NDArray[np.float64]:
        indices = np.argwhere(np.asarray(image.dataobj) == 1).mean(axis=0)
        return np.asarray(nib.affines.apply_affine(image.affine, indices))

    assert (np.asarray(loaded(whole.mask).dataobj) == prediction.mask).all()
    np.testing.assert_allclose(loaded(whole.mask).affine, affine, rtol=1e-6)
    # Within half of a merged voxel, and the image's blocks are the means of what they hold.
    assert (
        np.linalg.norm(middle(loaded(reduced.mask)) - middle(loaded(whole.mask))) < max(reduced.spacing) / 2
    )
    factor = [round(new / old) for new, old in zip(reduced.spacing, whole.spacing, strict=True)]
    block = np.asarray(loaded(whole.image).dataobj, dtype=float)[: factor[0], : factor[1], : factor[2]]
    assert abs(float(np.asarray(loaded(reduced.image).dataobj)[0, 0, 0]) - block.mean()) < 3


def test_the_viewers_data_are_a_script_without_anything_else(tmp_path: Path, make_prediction: Make) -> None:
    write_prediction(make_prediction(prompt=NASTY), tmp_path)
    script = (tmp_path / "case_1" / "viewer.js").read_text(encoding="utf-8")
    prefix = "globalThis.caseVolume = "
    assert script.startswith(prefix) and script.endswith(";\n")
    content = json.loads(script[len(prefix) : -2])
    assert {name: base64.b64decode(part)[:2] for name, part in content.items()} == {
        "image": b"\x1f\x8b",
        "mask": b"\x1f\x8b",
    }


def test_stacks_of_one_prediction_are_equal(make_prediction: Make) -> None:
    assert image_stacks(make_prediction()) == image_stacks(make_prediction())
