"""What a model zoo asks of a bundle, as far as it can be told offline, and the zip that a server gets."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.phantoms import write_phantoms
from scripts.make_bundle import LARGEST, NAME, packed_files, write_zip

ROOT = Path(__file__).resolve().parent.parent
#: Of the model zoo's template for a bundle's README.
SECTIONS = [
    "Model Overview",
    "Data",
    "Preprocessing",
    "Training configuration",
    "Input",
    "Output",
    "Performance",
    "MONAI Bundle Commands",
    "References",
    "License",
]
pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="what belongs to the bundle is what git tracks"
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Path:
    """The zip, with the weights of the small network."""
    path = tmp_path_factory.mktemp("zip") / "bundle.zip"
    write_zip(ROOT, path, tiny.random)
    return path


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a server's models")
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder / NAME


@pytest.fixture
def run_in(unpacked: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in the unpacked bundle, where nothing of this repository can be imported."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, cwd=unpacked, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_required_packages_are_pinned_as_the_requirements_are() -> None:
    described = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    pins: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / "core.txt").read_text(encoding="utf-8").splitlines():
        found = re.match(r"([\w.-]+)==([\w.+]+)", line)
        if found:
            pins.setdefault(found[1].lower(), set()).add(found[2])
    named = {
        "monai": described["monai_version"],
        "torch": described["pytorch_version"],
        "numpy": described["numpy_version"],
        **described["required_packages_version"],
    }
    assert {name: version for name, version in named.items() if version not in pins.get(name, set())} == {}


def test_the_description_has_the_sections_of_the_template_in_their_order() -> None:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS
    parts = re.split(r"^#+ .+$", text, flags=re.MULTILINE)[1:]
    assert all(part.strip() for part in parts)


def test_no_file_is_too_large_for_a_model_zoo() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in packed_files(ROOT)}
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}


def test_a_file_that_is_too_large_stops_the_packing(tmp_path: Path) -> None:
    large = tmp_path / "model.pt"
    with large.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(RuntimeError, match="model.pt: 25,000,001 bytes are more than a model zoo takes"):
        write_zip(ROOT, tmp_path / "out" / "bundle.zip", large)
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(RuntimeError, match="is no git clone"):
        write_zip(tmp_path, tmp_path / "bundle.zip")


def test_the_zip_holds_what_runs_and_nothing_else(archive: Path, tiny: Any) -> None:
    with zipfile.ZipFile(archive) as file:
        entries = {entry.filename: entry for entry in file.infolist()}
        metadata = file.read(f"{NAME}/metadata.json")
        assert metadata == file.read(f"{NAME}/configs/metadata.json")
        assert file.read(f"{NAME}/models/model.pt") == tiny.random.read_bytes()
    assert all(stat.S_ISREG(entry.external_attr >> 16) for entry in entries.values())
    names = {name.removeprefix(f"{NAME}/") for name in entries}
    assert not any(name.startswith(NAME) or name.startswith("/") or ".." in name for name in names)
    assert {"LICENSE", "README.md", "docs/README.md", "docs/data_license.txt", "configs/train.yaml"} <= names
    assert {"bundle/results/page/static/niivue.js", "models/text_prior/tokenizer.json"} <= names
    tops = {name.split("/")[0] for name in names}
    assert {"bundle", "configs", "docs", "models", "scripts"} <= tops
    assert [name for name in names if name.startswith("tests/")] == ["tests/meta_schema.json"]
    assert not tops & {".ci", ".git", ".gitignore", "out", "runs", ".venv"}


def test_the_same_files_give_the_same_zip(archive: Path, tiny: Any, tmp_path: Path) -> None:
    write_zip(ROOT, tmp_path / "again.zip", tiny.random)
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


@pytest.mark.slow
def test_the_unpacked_bundle_segments(
    run_in: Callable[..., subprocess.CompletedProcess[str]], tiny: Any, tmp_path: Path
) -> None:
    sample = write_phantoms(tmp_path / "sample", "X-ray", [4], split="demo", size=96)
    for name, command in {
        "bundle": ["segment", sample, "--config", tiny.config, "--output"],
        "monai.bundle": [
            *("run", "--config_file", f"['configs/inference.yaml','{tiny.config}']"),
            *("--input", sample, "--output_dir"),
        ],
    }.items():
        done = run_in("-m", name, *command, tmp_path / name)
        assert done.returncode == 0, done.stderr[-2000:]
        run = json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8"))
        (case,) = run["cases"]
        assert case["status"] == "done" and "mask.png" in " ".join(case["files"])
    folders = [tmp_path / name / case["id"] / "mask.png" for name in ("bundle", "monai.bundle")]
    assert folders[0].read_bytes() == folders[1].read_bytes()


@pytest.mark.slow
def test_the_unpacked_bundle_passes_monais_own_checks(
    run_in: Callable[..., subprocess.CompletedProcess[str]], tiny: Any
) -> None:
    meta = ["--meta_file", "configs/metadata.json"]
    done = run_in("-m", "monai.bundle", "verify_metadata", *meta, "--filepath", "tests/meta_schema.json")
    assert done.returncode == 0, done.stderr[-2000:]
    files = f"['configs/inference.yaml','{tiny.config}']"
    network = ["--net_id", "network_def", "--config_file", files, "--device", "cpu", "--n", 2]
    done = run_in("-m", "monai.bundle", "verify_net_in_out", *meta, *network)
    assert done.returncode == 0, done.stderr[-2000:]
