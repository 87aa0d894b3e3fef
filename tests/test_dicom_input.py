"""DICOM through the commands: folders of DICOM beside NIfTI and pictures, results in the series' geometry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from bundle.phantoms import ct_phantom, xray_phantom
from tests.support.dicom_files import Ct, film, report, save, set_pixels


def series(folder: Path, seed: int = 0) -> Ct:
    """A phantom of 32 x 32 x 8 as DICOM, and the same as NIfTI beside the folder."""
    volume = ct_phantom(seed, shape=(32, 32, 8), spacing=(12.0, 12.0, 24.0)).image
    ct = Ct(count=8, step=24.0)
    for index, dataset in enumerate(ct.slices):
        dataset.PixelSpacing = [12.0, 12.0]
        set_pixels(dataset, np.asarray(volume[:, :, index]).T.astype(np.int16) + 1024, intercept=-1024)
    ct.write(folder)
    affine = ct.truth()[1]
    affine[:3, :2] *= 12.0 / np.linalg.norm(affine[:3, :2], axis=0)
    image: Any = nibabel.Nifti1Image(np.asarray(volume).astype(np.int16), None)  # type: ignore[no-untyped-call]
    image.header.set_sform(affine, code=1)
    nibabel.save(image, folder.parent / f"{folder.name}_nifti.nii.gz")  # type: ignore[attr-defined]
    return ct


def entries(output: Path) -> dict[str, Any]:
    return {entry["id"]: entry for entry in json.loads((output / "run.json").read_text())["cases"]}


def load(path: Path) -> Any:
    return nibabel.load(path)  # type: ignore[attr-defined]


def test_a_folder_of_everything(
    segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "export"
    ct = series(export / "thorax")
    scout = Ct(count=1)
    scout.slices[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.write(export / "scout")
    save(report(ct.study, ("Findings", "The liver is large.")), export / "report.dcm")
    picture = np.asarray(xray_phantom(1, size=64).image)
    values = picture.astype(np.uint16) * 16
    bits = {"BitsStored": 12, "HighBit": 11}
    save(film(values, **bits), export / "films" / "two")
    Image.fromarray(picture).save(export / "picture.png")
    missing = Ct(count=9)
    missing.write(export / "missing")
    (export / "missing" / "IM0004.dcm").unlink()

    photometric = ["--photometric", "MONOCHROME2"]
    assert segment(export, "--output", tmp_path / "out", *photometric) == 1
    output = capfd.readouterr()
    assert "4 done (1 with warnings), 1 failed" in output.out and "Traceback" not in output.err
    assert "left out:" in output.err and "is a localizer" in output.err
    found = entries(tmp_path / "out")
    assert found["missing"]["status"] == "failed" and "resample_slices" in found["missing"]["error"]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    reasons = ["is a structured report (SR), not an image", "is a localizer"]
    assert [one["reason"] for one in record["left_out"]] == reasons
    everything = "".join(
        path.read_text(errors="replace")
        for path in (tmp_path / "out").rglob("*")
        if path.suffix in (".json", ".html")
    )
    assert not any(sign in everything + output.err for sign in ("Sorrow", "48151", "19550312", "20200229"))

    mask, other = (load(tmp_path / "out" / name / "mask.nii.gz") for name in ("thorax", "thorax_nifti"))
    np.testing.assert_allclose(mask.affine, other.affine, atol=1e-4)
    told = json.loads((tmp_path / "out" / "thorax" / "report.json").read_text())
    assert told["prompt"] == "The liver is large." and told["prompt_source"] == "DICOM SR"
    assert told["source_series"]["series_instance_uid"] == ct.series and told["source_series"]["slices"] == 8

    # What is done stays done, and a slice that changes is a case that changed.
    assert (
        segment(export / "thorax", export / "films", "--output", tmp_path / "out", "--resume", *photometric)
        == 0
    )
    before = (tmp_path / "out" / "thorax" / "report.json").stat().st_mtime_ns
    save(ct.slices[3], export / "thorax" / "IM0003.dcm")
    assert segment(export, "--output", tmp_path / "out", "--resume", *photometric) == 1
    assert (tmp_path / "out" / "thorax" / "report.json").stat().st_mtime_ns > before


def test_dicom_and_nifti_give_one_mask(segment: Callable[..., int], tmp_path: Path) -> None:
    series(tmp_path / "export" / "thorax", seed=3)
    assert segment(tmp_path / "export", "--output", tmp_path / "out") == 0
    for name in ("mask", "probability", "uncertainty"):
        one, other = (load(tmp_path / "out" / case / f"{name}.nii.gz") for case in ("thorax", "thorax_nifti"))
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))


def test_both_polarities_of_a_film_give_one_mask(segment: Callable[..., int], tmp_path: Path) -> None:
    values = np.asarray(xray_phantom(1, size=64).image).astype(np.uint16) * 16
    bits = {"BitsStored": 12, "HighBit": 11}
    save(film(values, **bits), tmp_path / "in" / "two.dcm")
    save(film((4095 - values).astype(np.uint16), "MONOCHROME1", **bits), tmp_path / "in" / "one.dcm")
    assert segment(tmp_path / "in", "--output", tmp_path / "out") == 0
    one, two = (np.asarray(Image.open(tmp_path / "out" / name / "mask.png")) for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


def test_the_options_reach_the_series(
    segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ct = series(tmp_path / "in" / "thorax")
    Ct(count=2).write(tmp_path / "in" / "short")
    (tmp_path / "in" / "thorax_nifti.nii.gz").unlink()
    assert segment(tmp_path / "in", "--output", tmp_path / "a", "--min-slices", 5) == 0
    assert segment(tmp_path / "in", "--output", tmp_path / "b", "--series", ct.series) == 0
    assert set(entries(tmp_path / "a")) == set(entries(tmp_path / "b")) == {"thorax"}
    assert segment(tmp_path / "in", "--output", tmp_path / "c", "--series-description", "*head*") == 2
    assert segment(tmp_path / "in", "--output", tmp_path / "c", "--series", "$exit()") == 2
    assert "is no UID" in capfd.readouterr().err
    (tmp_path / "in" / "thorax" / "IM0004.dcm").unlink()
    assert segment(tmp_path / "in" / "thorax", "--output", tmp_path / "d", "--resample-slices") == 0
    told = json.loads((tmp_path / "d" / "thorax" / "report.json").read_text())
    assert told["source_series"]["resampled"] and any("resampled to 8" in text for text in told["warnings"])
    assert load(tmp_path / "d" / "thorax" / "mask.nii.gz").shape == (32, 32, 8)


def test_the_bundle_command_takes_dicom(commands: Any, tiny: Any, tmp_path: Path) -> None:
    ct = series(tmp_path / "in" / "thorax")
    Ct(count=2).write(tmp_path / "in" / "short")
    done = commands(
        "monai.bundle",
        "run",
        "--config_file",
        f"['configs/inference.yaml','{tiny.config}']",
        *("--input", tmp_path / "in" / "thorax", "--output_dir", tmp_path / "out", "--weights", tiny.random),
        *("--series", ct.series, "--min_slices", "3"),
    )
    assert done.code == 0, done.stderr
    assert set(entries(tmp_path / "out")) == {"thorax"}


def test_a_tilted_series_goes_through_the_network(segment: Callable[..., int], tmp_path: Path) -> None:
    ct = Ct(count=8, step=24.0, lean=6.0)
    for dataset in ct.slices:
        dataset.PixelSpacing = [12.0, 12.0]
    ct.write(tmp_path / "tilted")
    assert segment(tmp_path / "tilted", "--output", tmp_path / "out") == 0
    mask = load(tmp_path / "out" / "tilted" / "mask.nii.gz")
    np.testing.assert_allclose(mask.affine[:3, 2], np.diag([-1, -1, 1]) @ ct.vectors[2], atol=1e-4)
