"""What is wrong with some cases costs nothing but those cases: the others are done, and each reason is a sentence."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from bundle.phantoms import ct_phantom, xray_phantom
from bundle.results import write_prediction

SCALED = np.diag([-12.0, -12.0, 24.0, 1.0])


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray = SCALED) -> None:
    image: Any = nibabel.Nifti1Image(array, None)  # type: ignore[no-untyped-call]
    image.header.set_sform(affine, code=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], set[str]]:
    """A folder; case id -> words that its error must have; ids of the good cases."""
    folder = tmp_path_factory.mktemp("batch")
    phantom = ct_phantom(0, shape=(32, 32, 8), spacing=(12.0, 12.0, 24.0))
    volume = phantom.image
    save_nifti(folder / "good_ct.nii.gz", volume)
    # two cases of one base name
    save_nifti(folder / "p1" / "series.nii.gz", volume)
    save_nifti(folder / "p2" / "series.nii.gz", volume[::-1].copy())
    Image.fromarray(xray_phantom(1, size=64).image).save(folder / "good_film.png")

    whole = (folder / "good_ct.nii.gz").read_bytes()
    (folder / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    save_nifti(folder / "nan.nii.gz", np.full((8, 8, 4), np.nan, dtype=np.float32))
    save_nifti(folder / "some_nan.nii.gz", np.where(volume > 100, np.nan, volume).astype(np.float32))
    save_nifti(folder / "four.nii.gz", np.stack([volume, volume], axis=-1))
    save_nifti(folder / "nothing.nii.gz", np.zeros((8, 0, 4), dtype=np.int16))
    save_nifti(folder / "flat.nii.gz", volume, np.diag([1.0, 1.0, 0.0, 1.0]))
    (folder / "text.nii.gz").write_text("patient 7, liver, no finding\n")
    (folder / "empty.nii.gz").write_bytes(b"")
    Image.new("L", (1, 1), 3).save(folder / "one_pixel.png")
    film = (folder / "good_film.png").read_bytes()
    (folder / "half.png").write_bytes(film[: len(film) // 2])
    (folder / "text.png").write_text("no picture")
    wrong = {
        "truncated": "truncated",
        "nan": "not finite",
        "some_nan": "not finite",
        "four": "4 dimensions",
        "nothing": "no voxels",
        "flat": "cannot be inverted",
        "text_nii.gz": "is not a NIfTI file",
        "empty": "is empty",
        "one_pixel": "too small",
        "half": "truncated",
        "text_png": "is not a picture",
    }
    return folder, wrong, {"good_ct", "good_film", "p1__series", "p2__series"}


def check(output: Path, stderr: str, batch: tuple[Path, dict[str, str], set[str]]) -> None:
    folder, wrong, good = batch
    entries = {entry["id"]: entry for entry in json.loads((output / "run.json").read_text())["cases"]}
    assert set(entries) == set(wrong) | good
    for name, words in wrong.items():
        entry = entries[name]
        assert entry["status"] == "failed" and entry["files"] == [], name
        source, _, told = entry["error"].partition(": ")
        assert (folder / source).exists() and source == entry["input"], entry
        problem, _, remedy = told.partition("; ")
        assert words in problem and len(remedy) > 8 and remedy.endswith("."), entry
        assert "\n" not in told and "Error" not in told and "run with debug" not in told, entry
        assert f"failed: {entry['error']}" in stderr
        assert not (output / name).exists()
    for name in good:
        entry = entries[name]
        assert entry["status"] == "done" and entry["error"] is None
        assert {"mask", "probability", "uncertainty", "preview", "report", "index", "thumbnail"} == {
            Path(file).name.split(".")[0] for file in entry["files"] if not file.endswith("viewer.js")
        }
        assert all((output / file).stat().st_size > 0 for file in entry["files"])
    assert "Traceback" not in stderr
    one, other = (nibabel.load(output / name / "mask.nii.gz") for name in ("p1__series", "p2__series"))  # type: ignore[attr-defined]
    assert not np.array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))  # type: ignore[attr-defined]
    assert (output / "index.html").read_text().count("not finite") >= 2


def test_segment_names_what_failed_and_completes_the_rest(
    batch: Any, segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert segment(batch[0], "--output", tmp_path / "out") == 1
    output = capfd.readouterr()
    assert "4 done, 11 failed" in output.out
    check(tmp_path / "out", output.err, batch)


def test_the_bundle_command_names_what_failed_and_completes_the_rest(
    batch: Any, commands: Any, tiny: Any, tmp_path: Path
) -> None:
    done = commands(
        "monai.bundle",
        "run",
        "--config_file",
        f"['configs/inference.yaml','{tiny.config}']",
        *("--input", batch[0], "--output_dir", tmp_path / "out", "--weights", tiny.random),
    )
    assert done.code == 1
    check(tmp_path / "out", done.stderr, batch)


def test_paths_that_do_not_exist_beside_some_that_do(
    batch: Any, segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good, missing = batch[0] / "good_film.png", tmp_path / "missing.png"
    assert segment(good, missing, "--output", tmp_path / "out") == 1
    entries = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert {entry["id"]: entry["status"] for entry in entries} == {"good_film": "done", "missing": "failed"}
    assert "missing.png: does not exist" in entries[1]["error"]
    assert entries[1]["error"] in capfd.readouterr().err


def test_a_result_that_cannot_be_written_fails_its_case_alone(
    batch: Any,
    segment: Callable[..., int],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full_disk(prediction: Any, *arguments: Any) -> Any:
        if prediction.case.reference.id == "good_ct":
            raise OSError(errno.ENOSPC, "No space left on device", "mask.nii.gz")
        return write_prediction(prediction, *arguments)

    monkeypatch.setattr("bundle.inference.entries.write_prediction", full_disk)
    assert segment(batch[0] / "good_ct.nii.gz", batch[0] / "good_film.png", "--output", tmp_path) == 1
    entries = {entry["id"]: entry for entry in json.loads((tmp_path / "run.json").read_text())["cases"]}
    assert entries["good_film"]["status"] == "done" and entries["good_ct"]["status"] == "failed"
    error = entries["good_ct"]["error"]
    assert "good_ct.nii.gz: the result could not be written" in error and "No space left" in error
    assert error in capfd.readouterr().err


def test_the_exit_code_is_0_when_all_is_done(batch: Any, segment: Callable[..., int], tmp_path: Path) -> None:
    good = [batch[0] / name for name in ("good_ct.nii.gz", "good_film.png", "p1", "p2")]
    assert segment(*good, "--output", tmp_path) == 0
