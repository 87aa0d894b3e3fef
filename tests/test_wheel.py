"""The wheel, outside the checkout: configurations and weights are in it, and it segments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import bundle
from bundle.phantoms import write_phantoms

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 30_000_000
FROM_PYTHON = """
import sys
from pathlib import Path
import bundle
from bundle import Segmenter
assert Path(bundle.__file__).is_relative_to(sys.argv[1]), bundle.__file__
print(bundle.__version__, Segmenter(device="cpu")(sys.argv[2]).report["modality"])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git tracks, so that nothing is left in the checkout."""
    pytest.importorskip("setuptools")
    if not (ROOT / ".git").exists():
        pytest.skip("what belongs to the wheel is what git tracks")
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--wheel-dir", str(made), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = made.iterdir()
    return path


def test_it_is_small_and_has_what_runs(wheel: Path) -> None:
    assert wheel.stat().st_size <= MOST_BYTES
    names = set(zipfile.ZipFile(wheel).namelist())
    own = {name for name in names if ".dist-info/" not in name}
    assert all(name.startswith("bundle/") for name in own)
    for folder, shipped in (("configs", "*"), ("models", "**/*"), ("bundle", "**/*")):
        for path in (ROOT / folder).glob(shipped):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and "__pycache__" not in name and not name.startswith("models/label-"):
                assert (name if folder == "bundle" else f"bundle/shipped/{name}") in names, name


def test_it_segments_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    sample = write_phantoms(tmp_path / "sample", "X-ray", [4], split="demo", size=96)
    film = next((sample.parent / "images").iterdir())
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def run(*arguments: object) -> str:
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert run("-m", "bundle", "--version").split()[-1] == bundle.__version__
    run("-m", "bundle", "segment", film, "--output", "out", "--prompt", "infection")
    (case,) = json.loads((elsewhere / "out" / "run.json").read_text())["cases"]
    assert case["status"] == "done" and "mask.png" in " ".join(case["files"])
    assert run("-c", FROM_PYTHON, site, film).split() == [bundle.__version__, "X-ray"]
