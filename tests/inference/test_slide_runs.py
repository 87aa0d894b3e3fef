"""Runs over slides survive what runs over other cases survive, and give the same over several processes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tifffile

from bundle.phantoms.slide import write_slide_phantom
from tests.inference.test_survival import contents, journalled, kill, when_done
from tests.support.dicom_slides import write_dicom_slide

pytest.importorskip("openslide", reason="the extra 'slides' is not installed")
pytest.importorskip("imagecodecs", reason="the extra 'slides' is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides, one of them DICOM, and one that shows no tissue."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(2):
        write_slide_phantom(folder / f"slide_{number}.tif", 1200, 900, tissue=0.35, seeds=(number,))
    write_slide_phantom(folder / "slide_2.tif", 1024, 1024, tissue=0.0)
    with tifffile.TiffFile(folder / "slide_1.tif") as tiff:
        write_dicom_slide(folder / "slide_3", [page.asarray() for page in tiff.pages])
    return folder


@pytest.fixture(scope="module")
def undisturbed(slides: Path, commands: Any, tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed")
    done = commands("bundle", "segment", slides, "--output", output, *network(tiny))
    assert done.code == 1 and "3 done" in done.stdout and "1 failed" in done.stdout, done
    assert "shows no tissue" in done.stderr
    return output


def network(tiny: Any) -> list[object]:
    return ["--config", tiny.config, "--weights", tiny.random]


def test_all_slides_have_results(undisturbed: Path) -> None:
    cases = {one["id"]: one for one in json.loads((undisturbed / "run.json").read_text())["cases"]}
    assert {name for name, one in cases.items() if one["status"] == "failed"} == {"slide_2"}
    for name in ("slide_0", "slide_1", "slide_3"):
        assert {f"{name}/{kind}" for kind in ("mask.tif", "mask.geojson", "preview.png")} <= set(
            cases[name]["files"]
        )
    # the same picture as TIFF and as DICOM
    masks = [tifffile.imread(undisturbed / name / "mask.tif") for name in ("slide_1", "slide_3")]
    assert (masks[0] == masks[1]).all()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_cut_short_is_finished(
    number: signal.Signals, slides: Path, undisturbed: Path, commands: Any, tiny: Any, tmp_path: Path
) -> None:
    def end(process: int) -> None:
        if number == signal.SIGKILL:
            kill(process)
        else:
            os.kill(process, number)

    arguments = ["segment", slides, "--output", tmp_path, *network(tiny)]
    cut = commands("bundle", *arguments, watch=when_done(tmp_path, 1, end))
    assert cut.code in (-signal.SIGKILL, 130), cut
    done = journalled(tmp_path)
    assert 1 <= done < 4
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/mask.tif")}
    resumed = commands("bundle", *arguments, "--resume")
    assert resumed.code == 1 and "3 done" in resumed.stdout, resumed
    assert contents(tmp_path) == contents(undisturbed)
    # what was done was not done again
    assert before and all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert not list(tmp_path.glob(".*"))


def test_two_processes_give_the_same(
    slides: Path, undisturbed: Path, commands: Any, tiny: Any, tmp_path: Path
) -> None:
    done = commands("bundle", "segment", slides, "--output", tmp_path, "--jobs", 2, *network(tiny))
    assert done.code == 1 and "3 done" in done.stdout and "1 failed" in done.stdout, done
    assert contents(tmp_path) == contents(undisturbed)
