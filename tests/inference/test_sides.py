"""Left and right: of the patient where a report or a film says so, of the image where nothing does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from bundle.cases.case import FilmTurn
from bundle.phantoms import xray_phantom
from bundle.serving.pacs.segmenter import SeriesSegmenter
from tests.support.dicom_files import film, report, save
from tests.support.fake_segmenter import READER, TextReader

RIGHT = "infection of the lower right lung"
USUAL = xray_phantom(3, size=96).image
# PatientOrientation -> how the usual film stands then, and back
STANDS: dict[tuple[str, str], Callable[[np.ndarray], np.ndarray]] = {
    ("L", "F"): lambda image: image,
    ("R", "F"): lambda image: image[:, ::-1],
    ("L", "H"): lambda image: image[::-1],
    ("R", "H"): lambda image: image[::-1, ::-1],
    ("F", "L"): lambda image: image.T,
    ("H", "R"): lambda image: image[::-1, ::-1].T,
}


@pytest.fixture
def run(workflow: Callable[..., ConfigWorkflow], tmp_path: Path) -> Callable[..., ConfigWorkflow]:
    torch.save(TextReader(12).state_dict(), tmp_path / "reader.pt")

    def made(**overrides: Any) -> ConfigWorkflow:
        TextReader.told.clear()
        fixed = {
            "output_dir": str(tmp_path / "out"),
            "weights": str(tmp_path / "reader.pt"),
            "network_def": READER,
        }
        return workflow("inference.yaml", **fixed, **overrides)

    return made


def segmented(made: ConfigWorkflow, tmp_path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    made.run()
    [path] = (tmp_path / "out").glob("*/report.json")
    with Image.open(path.parent / "mask.png") as mask:
        return np.array(mask) > 0, json.loads(path.read_text())


def half(side: str) -> np.ndarray:
    """The patient's side on the usual film, whose right half shows the patient's left."""
    mask = np.zeros(USUAL.shape, dtype=bool)
    middle = USUAL.shape[1] // 2
    mask[:, :middle] = side == "right"
    mask[:, middle:] = side == "left"
    return mask


def study(folder: Path, orientation: tuple[str, str] | None, words: str | None) -> Path:
    image = film((STANDS[orientation or ("L", "F")](USUAL)).copy())
    if orientation is not None:
        image.PatientOrientation = list(orientation)
    save(image, folder / "film.dcm")
    if words is not None:
        save(report(image.StudyInstanceUID, ("Findings", words)), folder / "report.dcm")
    return folder


@pytest.mark.parametrize("orientation", STANDS)
@pytest.mark.parametrize("from_report", [True, False])
def test_a_film_that_states_its_sides(
    run: Callable[..., ConfigWorkflow], tmp_path: Path, orientation: tuple[str, str], from_report: bool
) -> None:
    folder = study(tmp_path / "in", orientation, RIGHT if from_report else None)
    (tmp_path / "prompt.txt").write_text(RIGHT)
    asked = {} if from_report else {"prompt_file": str(tmp_path / "prompt.txt")}
    mask, told = segmented(run(input=str(folder), **asked), tmp_path)
    assert np.array_equal(mask, STANDS[orientation](half("right")))
    assert told["settings"]["sides"] == "patient" and not told["notices"]
    assert told["prompt_source"] == ("DICOM SR" if from_report else "file")


@pytest.mark.parametrize(
    ("words", "from_report", "sides", "marked", "notice"),
    [
        (RIGHT, True, "auto", "right", "The film does not say where the patient's left is"),
        (RIGHT, False, "auto", "left", "Nothing says whose left and right"),
        (RIGHT, False, "patient", "right", "The film does not say"),
        (RIGHT, False, "image", "left", None),
        ("left and right lung", False, "auto", None, "Nothing says whose"),
        ("infection", True, "auto", None, None),
    ],
)
def test_a_film_that_states_nothing(
    run: Callable[..., ConfigWorkflow],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    words: str,
    from_report: bool,
    sides: str,
    marked: str | None,
    notice: str | None,
) -> None:
    folder = study(tmp_path / "in", None, words if from_report else None)
    (tmp_path / "prompt.txt").write_text(words)
    asked = {} if from_report else {"prompt_file": str(tmp_path / "prompt.txt")}
    mask, told = segmented(run(input=str(folder), **asked, **{"xray#sides": sides}), tmp_path)
    if marked:
        assert np.array_equal(mask, half(marked))
    assert [text.startswith(notice or "") for text in told["notices"]] == [True] * bool(notice)
    said = capfd.readouterr().err
    assert said.count("note: ") == bool(notice)


def test_a_run_says_once_what_it_assumed(
    run: Callable[..., ConfigWorkflow], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(USUAL).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "prompt.txt").write_text(RIGHT)
    run(input=str(tmp_path / "in"), prompt_file=str(tmp_path / "prompt.txt")).run()
    assert capfd.readouterr().err.count("note: Nothing says whose left and right the prompt means") == 1
    assert TextReader.told == [RIGHT] * 3


@pytest.mark.parametrize("orientation", [("L", "F"), ("R", "F")])
def test_the_pacs_node(
    run: Callable[..., ConfigWorkflow], tmp_path: Path, orientation: tuple[str, str]
) -> None:
    folder = study(tmp_path / "in", orientation, RIGHT)
    reports = (folder / "report.dcm").rename(tmp_path / "report.dcm")
    content = run(input=str(folder)).parser.get_parsed_content
    outcome = SeriesSegmenter(content, ["DX"], {"prompt": None}, "0" * 64, True)(
        folder, tmp_path / "out", [reports]
    )
    assert outcome.prompt_source == "DICOM SR"
    [file] = [name for name in outcome.objects.values() if name.endswith("seg.dcm")]
    seg = pydicom.dcmread(tmp_path / "out" / file).pixel_array
    assert np.array_equal(seg.reshape(USUAL.shape) > 0, STANDS[orientation](half("right")))


@pytest.mark.parametrize("orientation", [("L", "F"), ("R", "F")])
def test_a_request_of_monai_label(
    run: Callable[..., ConfigWorkflow], tmp_path: Path, orientation: tuple[str, str]
) -> None:
    folder = study(tmp_path / "in", orientation, None)
    content = run(input=str(folder)).parser.get_parsed_content
    item = content("preprocessing")({"image": str(folder / "film.dcm"), "prompt": RIGHT})
    item["pred"] = content("inferer")(item["image"][None], content("network"))[0]
    done = content("postprocessing")(item)
    assert np.array_equal(done["prediction"].mask > 0, STANDS[orientation](half("right")))
    assert not done["result"]["warnings"]


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (None, FilmTurn()),
        (("L", "F"), FilmTurn()),
        (("LA", "FP"), FilmTurn()),
        (("R", "F"), FilmTurn(mirrored=True)),
        (("RP", "FL"), FilmTurn(mirrored=True)),
        (("A", "F"), FilmTurn()),
        (("P", "H"), FilmTurn(upside_down=True)),
        (("F", "R"), FilmTurn(transposed=True, mirrored=True)),
        (("XX", "??"), FilmTurn()),
    ],
)
def test_turns(orientation: tuple[str, str] | None, turn: FilmTurn) -> None:
    assert FilmTurn.of(orientation) == turn
