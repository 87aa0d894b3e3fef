"""A run replaces nothing that is not its own, and `--resume` takes nothing for done that is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.phantoms import histology_phantom


def tile(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(histology_phantom(seed, size=64).image).save(path)
    return path


def entries(output: Path) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in json.loads((output / "run.json").read_text())["cases"]}


def test_a_folder_of_the_user_that_is_named_like_a_case_stays(
    segment: Callable[..., int], tmp_path: Path
) -> None:
    tile(tmp_path / "patient1.png", 0)
    tile(tmp_path / "patient2.png", 1)
    source = tmp_path / "patient1" / "IM0001.dcm"
    source.parent.mkdir()
    source.write_bytes(b"the only copy")
    code = segment(tmp_path / "patient1.png", tmp_path / "patient2.png", "--output", tmp_path)
    assert code == 1
    assert source.read_bytes() == b"the only copy"
    assert entries(tmp_path)["patient1"]["status"] == "failed"
    assert "is not a result of an earlier run" in entries(tmp_path)["patient1"]["error"]
    assert entries(tmp_path)["patient2"]["status"] == "done"


def test_an_earlier_result_is_replaced(segment: Callable[..., int], tmp_path: Path) -> None:
    image, output = tile(tmp_path / "a.png", 0), tmp_path / "out"
    assert segment(image, "--output", output) == 0
    before = (output / "a" / "probability.png").read_bytes()
    tile(image, 5)
    assert segment(image, "--output", output) == 0
    assert (output / "a" / "probability.png").read_bytes() != before


def test_resume_does_not_take_another_patients_file_of_the_same_name_for_done(
    segment: Callable[..., int], tmp_path: Path
) -> None:
    first, second = tile(tmp_path / "p1" / "scan.png", 0), tile(tmp_path / "p2" / "scan.png", 7)
    output = tmp_path / "out"
    assert segment(first, "--output", output, "--identifiers", "keep") == 0
    before = np.asarray(Image.open(output / "scan" / "probability.png")).copy()
    assert segment(second, "--output", output, "--resume", "--identifiers", "keep") == 0
    assert entries(output)["scan"]["input"] == str(second)
    assert not np.array_equal(np.asarray(Image.open(output / "scan" / "probability.png")), before)


def test_resume_does_again_what_has_changed_since(segment: Callable[..., int], tmp_path: Path) -> None:
    image, output = tile(tmp_path / "a.png", 0), tmp_path / "out"
    assert segment(image, "--output", output) == 0
    written = (output / "a" / "report.json").stat().st_mtime_ns
    assert segment(image, "--output", output, "--resume") == 0
    assert (output / "a" / "report.json").stat().st_mtime_ns == written
    assert segment(image, "--output", output, "--resume", "--prompt", "nuclei") == 0
    assert (output / "a" / "report.json").stat().st_mtime_ns != written


def test_resume_refuses_to_mix_settings(
    segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image, output = tile(tmp_path / "a.png", 0), tmp_path / "out"
    assert segment(image, "--output", output, "--steps", 1) == 0
    tile(tmp_path / "b.png", 1)
    assert segment(tmp_path / "b.png", "--output", output, "--steps", 3, "--resume") == 2
    assert "holds results made with steps 1, not 3" in capfd.readouterr().err
    assert set(entries(output)) == {"a"}


def test_a_run_without_a_usable_case_says_why_and_leaves_a_record(
    segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    assert segment(broken, "--output", tmp_path / "out") == 1
    assert "is not a picture" in capfd.readouterr().err
    assert entries(tmp_path / "out")["broken"]["status"] == "failed"
    assert (tmp_path / "out" / "index.html").is_file()
