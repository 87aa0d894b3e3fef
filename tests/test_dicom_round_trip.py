"""A real DICOM series through the command with the shipped weights: other software reads the same voxels back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from bundle.cases import collect, read_case

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "dicom"
SERIES = DATA / "ct_jpeg2000_20_slices"
LIVER = DATA / "ct_jpeg2000_20_slices.totalsegmentator.nii.gz"
LIVER_VALUE = 5  # TotalSegmentator's
pytestmark = pytest.mark.skipif(not SERIES.is_dir(), reason="the shared DICOM data are not on this machine")


def segment(source: Path, output: Path, *options: str) -> Path:
    command = [sys.executable, "-m", "bundle", "segment", str(source), "--output", str(output), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (entry,) = json.loads((output / "run.json").read_text(encoding="utf-8"))["cases"]
    return output / str(entry["id"])


def load(path: Path) -> Any:
    return nibabel.load(path)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segment(SERIES, tmp_path_factory.mktemp("dicom"))


@pytest.fixture(scope="module")
def segments(result: Path) -> dict[int, int]:
    """Segment number -> value in the mask."""
    report = json.loads((result / "report.json").read_text(encoding="utf-8"))
    numbers = report["dicom"]["seg"]["segments"]
    return {number: report["labels"][name]["value"] for name, number in numbers.items()}


def in_ras(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    image = nibabel.as_closest_canonical(load(path))  # type: ignore[attr-defined]
    return np.asarray(image.dataobj).astype(np.uint8), np.asarray(image.affine)


def test_dcmqi_and_highdicom_read_the_mask_back(
    result: Path, segments: dict[int, int], tmp_path: Path
) -> None:
    mask, affine = in_ras(result / "mask.nii.gz")
    assert len(set(np.unique(mask)) - {0}) >= 4
    tool = Path(sys.executable).parent / "segimage2itkimage"
    command = [tool, "--inputDICOM", result / "seg.dcm", "--outputDirectory", tmp_path, "-t", "nii"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    present = {number: value for number, value in segments.items() if (mask == value).any()}
    for number, value in present.items():
        found, its_affine = in_ras(next(iter(tmp_path.glob(f"*{number}.nii.gz"))))
        # dcmqi keeps the slices that a segment has
        indices = np.argwhere(found)
        points = indices @ its_affine[:3, :3].T + its_affine[:3, 3]
        at = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        assert np.abs(at - at.round()).max() < 1e-2
        back = np.zeros(mask.shape, dtype=bool)
        back[tuple(at.round().astype(int).T)] = True
        assert np.array_equal(back, mask == value)
    seg = hd.seg.segread(result / "seg.dcm")
    volume = seg.get_volume(combine_segments=True)
    numbers = np.zeros(256, dtype=np.uint8)
    numbers[list(segments)] = list(segments.values())
    assert np.array_equal(
        np.bincount(numbers[volume.array].ravel(), minlength=256)[1:],
        np.bincount(mask.ravel(), minlength=256)[1:],
    )


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is missing"
)
def test_dciodvfy_finds_no_error(result: Path) -> None:
    for name in ("seg.dcm", "sr.dcm"):
        done = subprocess.run(
            ["dciodvfy", str(result / name)], capture_output=True, text=True, timeout=60, check=False
        )
        lines = (done.stdout + done.stderr).splitlines()
        assert lines and not [line for line in lines if line.startswith("Error")]
    assert pydicom.dcmread(result / "sr.dcm").Modality == "SR"


def test_the_liver_is_where_the_liver_is(result: Path) -> None:
    mask, affine = in_ras(result / "mask.nii.gz")
    other, its_affine = in_ras(LIVER)
    assert np.allclose(affine, its_affine, atol=1e-2)
    report = json.loads((result / "report.json").read_text(encoding="utf-8"))
    ours, theirs = mask == report["labels"]["liver"]["value"], other == LIVER_VALUE
    assert 2.0 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.9


def test_the_same_study_as_nifti_has_the_same_mask(result: Path, tmp_path: Path) -> None:
    (reference,) = collect(SERIES).references
    case = read_case(reference)
    path = tmp_path / "study.nii.gz"
    nibabel.save(  # type: ignore[attr-defined]
        nibabel.Nifti1Image(case.array[0], case.affine),  # type: ignore[no-untyped-call]
        path,
    )
    again = segment(path, tmp_path / "out", "--modality", "CT")
    one, other = in_ras(result / "mask.nii.gz"), in_ras(again / "mask.nii.gz")
    assert np.array_equal(one[0], other[0])
    assert np.allclose(one[1], other[1], atol=1e-3)
