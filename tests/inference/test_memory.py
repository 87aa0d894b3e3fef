"""What the largest inputs take of memory, with the shipped weights, each command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from bundle.phantoms import ct_phantom
from bundle.phantoms.slide import write_slide_phantom

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 6 * 10**9

pytestmark = pytest.mark.slow


def write_large_volume(path: Path) -> None:
    """512 x 512 x 1,000 voxels of 0.7 x 0.7 x 1 mm: a phantom, each of its voxels four times along each axis."""
    small = ct_phantom(0, shape=(128, 128, 250), spacing=(2.8, 2.8, 4.0)).image.astype(np.int16)
    affine = np.diag([0.7, 0.7, 1.0, 1.0])
    large = nibabel.Nifti1Image(small.repeat(4, 0).repeat(4, 1).repeat(4, 2), affine)  # type: ignore[no-untyped-call]
    assert large.shape == (512, 512, 1000)
    nibabel.save(large, path)  # type: ignore[no-untyped-call]


def write_large_slide(path: Path) -> None:
    pytest.importorskip("openslide", reason="the extra 'slides' is not installed")
    pytest.importorskip("imagecodecs", reason="the extra 'slides' is not installed")
    write_slide_phantom(path, 20_000, 5_000)  # held are rows of tiles across it, however many there are


@pytest.mark.parametrize(
    ("name", "write", "result"),
    [("volume.nii", write_large_volume, "mask.nii.gz"), ("slide.tif", write_large_slide, "mask.tif")],
)
def test_the_largest_inputs_fit_into_six_gigabytes(
    name: str, write: Callable[[Path], None], result: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    command = [
        sys.executable,
        "-m",
        "bundle",
        "segment",
        str(tmp_path / name),
        "--output",
        str(tmp_path / "out"),
    ]
    started = time.monotonic()
    process = subprocess.Popen([*command, "--device", "cpu"], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, peak = time.monotonic() - started, usage.ru_maxrss * 1024
    print(f"{name}: {peak / 1e9:.2f} GB, {seconds:.0f} s")
    assert process.returncode == 0
    [entry] = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert (tmp_path / "out" / entry["id"] / result).is_file()
    assert peak < MOST_BYTES
