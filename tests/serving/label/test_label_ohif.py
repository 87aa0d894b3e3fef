"""The OHIF viewer that MONAI Label brings, in a real browser, over Orthanc: it shows the bundle's segmentation.

OHIF_PICTURES=docs/images makes the pictures of docs/monai_label.md, with the shipped weights and a larger phantom.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import CONFIGS, ROOT
from tests.serving.conftest import Orthanc
from tests.support.label_server import Server, mask_below, segment, started
from tests.support.pacs_node import phantom_series

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed (make chromium)"),
]
SOFTWARE_GL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PICTURES = os.environ.get("OHIF_PICTURES")
NAMES = [one["name"] for one in yaml.safe_load((CONFIGS / "structures.yaml").read_text())]
PANEL = ".monaiLabelPanel"
#: What the viewer holds of the segmentation, first index fastest, and where it draws it.
LABELMAP = """() => {
  const volume = services.segmentationService.getLabelmapVolume('1');
  const values = volume.voxelManager.getCompleteScalarDataArray();
  const segments = services.segmentationService.getSegmentations()[0].segments;
  const names = Object.fromEntries(Object.values(segments).map(one => [one.segmentIndex, one.label]));
  return {size: [...volume.dimensions], origin: [...volume.origin], direction: [...volume.direction],
          names, values: [...values]};
}"""


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=EXECUTABLE, args=[*SOFTWARE_GL, *options])
        page = browser.new_page(viewport={"width": 1400, "height": 620})
        page.set_default_timeout(300_000)
        yield page
        browser.close()


def picture(page: Any, folder: Path, name: str) -> None:
    page.wait_for_timeout(5_000)
    page.screenshot(path=Path(PICTURES or folder, f"monai_label_{name}.png"))


def test_the_panel_and_the_stored_segmentation(
    request: pytest.FixtureRequest, orthanc: Orthanc, page: Any, tmp_path: Path
) -> None:
    if PICTURES:
        root, ct = ROOT, phantom_series(7, (192, 192, 64), (2.0, 2.0, 3.0))
    else:
        root, ct = request.getfixturevalue("root"), phantom_series(3)
    for dataset in ct.slices:
        dataset.PatientName, dataset.PatientID, dataset.SeriesDescription = "Phantom", "PHANTOM", "Phantom CT"
        dataset.WindowCenter, dataset.WindowWidth = 60, 400
    orthanc.store(ct.write(tmp_path / "series"))
    segment(root, tmp_path / "series", tmp_path / "out")
    expected = mask_below(tmp_path / "out")
    for server in started(root, orthanc.dicomweb, tmp_path / "label"):
        check_panel(server, page, ct, expected, tmp_path)
        [seg] = (tmp_path / "out").rglob("seg.dcm")
        orthanc.post("/instances", seg.read_bytes())
        check_stored(server, page, ct.study, expected, tmp_path)


def check_panel(server: Server, page: Any, ct: Any, expected: Any, folder: Path) -> None:
    """Run in the panel gives the command's mask, voxel by voxel, where the slices lie."""
    page.goto(f"{server.url}/ohif/monai-label?StudyInstanceUIDs={ct.study}")
    page.wait_for_selector(f"text=/\\(\\d+\\/{len(ct.slices)}\\)/")
    page.click("text=Confirm and Hide")
    page.fill("#monailabelServerURL", f"{server.url}/")
    page.click(f"{PANEL} .actionButton")
    run = page.locator(f"{PANEL} .tab:has-text('Auto-Segmentation') button:text-is('Run')")
    run.wait_for()
    page.wait_for_function("services.segmentationService.getLabelmapVolume('1')")
    with page.expect_response(
        lambda answer: "/infer/" in answer.url and answer.request.method == "POST"
    ) as got:
        run.click()
    assert got.value.status == 200
    page.wait_for_selector("text=Running Segmentation - Successful")
    page.wait_for_function(
        "services.segmentationService.getLabelmapVolume('1').voxelManager.getCompleteScalarDataArray().some(x => x)"
    )
    picture(page, folder, "ohif_panel")
    shown = page.evaluate(LABELMAP)
    first = ct.slices[0]
    assert np.allclose(shown["origin"], [float(one) for one in first.ImagePositionPatient], atol=1e-3)
    assert np.allclose(shown["direction"], np.eye(3).ravel(), atol=1e-6)
    table = np.zeros(256, dtype=np.uint8)
    for index, name in shown["names"].items():
        table[int(index)] = [one.lower() for one in NAMES].index(name.lower()) + 1
    values = table[np.asarray(shown["values"], dtype=np.uint8)].reshape(shown["size"], order="F")
    assert expected.any() and np.array_equal(values, expected)


def check_stored(server: Server, page: Any, study: str, expected: Any, folder: Path) -> None:
    """DICOM SEG of the command is offered beside its series, and opens with the names of its structures."""
    page.goto(f"{server.url}/ohif/segmentation?StudyInstanceUIDs={study}")
    page.dblclick("text=Segmentation, Text-prior")
    page.click("button:text-is('Yes')")
    for value in np.unique(expected[expected > 0]):
        page.wait_for_selector(f"text={NAMES[value - 1]}")
    picture(page, folder, "ohif_seg")
