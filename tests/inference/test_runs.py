"""A result depends on the case, the weights and the seed; not on batches, order, workers, tiles or interruptions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from numpy.typing import NDArray
from PIL import Image

from bundle.networks import file_sha256
from bundle.phantoms import ct_phantom, histology_phantom, xray_phantom

FILES = {"index.html", "preview.png", "report.json", "thumbnail.jpg"}
VOLUME_FILES = FILES | {"viewer.js", "mask.nii.gz", "probability.nii.gz", "uncertainty.nii.gz"}
PICTURE_FILES = FILES | {"mask.png", "probability.png", "uncertainty.png"}


def save_ct(path: Path, seed: int) -> Path:
    phantom = ct_phantom(seed, shape=(48, 40, 10), spacing=(8.0, 8.0, 20.0))
    nibabel.save(nibabel.Nifti1Image(phantom.image, phantom.affine), path)  # type: ignore[attr-defined, no-untyped-call]
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two volumes, an X-ray and two H&E tiles, the last of which is larger than a tile of 64 pixels."""
    folder = tmp_path_factory.mktemp("inputs")
    paths = [save_ct(folder / f"ct_{seed}.nii.gz", seed) for seed in (1, 2)]
    pictures = {
        "film": xray_phantom(3, size=96),
        "tissue": histology_phantom(4, size=128),
        "large": histology_phantom(5, size=300),
    }
    for name, phantom in pictures.items():
        Image.fromarray(phantom.image).save(folder / f"{name}.png")
        paths.append(folder / f"{name}.png")
    return paths


@pytest.fixture
def tiled(segment: Callable[..., int], tmp_path: Path) -> Callable[..., Path]:
    """Segment with small tiles into a folder of that name: (name, what else the command takes)."""

    def run(name: str, *arguments: object, **options: Any) -> Path:
        (tmp_path / "tiles.yaml").write_text("tile_size: 64\n")
        tiles = ["--config", tmp_path / "tiles.yaml"]
        assert segment(*arguments, "--output", tmp_path / name, *tiles, **options) == 0
        return tmp_path / name

    return run


def read(path: Path) -> NDArray[np.uint8]:
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return np.array(picture)
    volume: Any = nibabel.load(path)  # type: ignore[attr-defined]
    return np.asarray(volume.dataobj)


def masks(output: Path) -> dict[str, NDArray[np.uint8]]:
    return {path.parent.name: read(path) for path in sorted(output.glob("*/mask.*"))}


def differing(one: Path, other: Path) -> tuple[int, int]:
    """How many voxels of the masks differ, and how many there are."""
    ours, theirs = masks(one), masks(other)
    assert ours.keys() == theirs.keys() and ours
    differ = sum(int((ours[case] != theirs[case]).sum()) for case in ours)
    return differ, sum(mask.size for mask in ours.values())


def bytes_of(
    output: Path, names: Iterable[str] = ("mask.nii.gz", "mask.png", "probability.png")
) -> dict[str, bytes]:
    files = {path for name in names for path in output.glob(f"*/{name}")}
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


@pytest.fixture
def reference(kept: Path, inputs: list[Path], tiled: Callable[..., Path]) -> Path:
    """All inputs with random weights: these answer everywhere, and to every change of the noise."""
    if not (kept / "out").exists():
        shutil.move(tiled("reference", *inputs), kept / "out")
    return kept / "out"


def test_every_case_has_its_files_and_its_geometry(reference: Path, inputs: list[Path], tiny: Any) -> None:
    record = json.loads((reference / "run.json").read_text())
    assert [entry["id"] for entry in record["cases"]] == ["ct_1", "ct_2", "film", "large", "tissue"]
    assert (record["seed"], record["steps"], record["members"]) == (0, 2, 1)
    assert record["weights_sha256"] == file_sha256(tiny.random)
    assert (reference / "index.html").is_file()
    for entry in record["cases"]:
        assert entry["status"] == "done" and entry["error"] is None and entry["seconds"] > 0
        volume = entry["id"].startswith("ct")
        names = VOLUME_FILES if volume else PICTURE_FILES
        if entry["id"] in ("large", "tissue"):
            names = names | {"instances.tif"}
        assert set(entry["files"]) == {f"{entry['id']}/{name}" for name in names}
        assert all((reference / name).is_file() for name in entry["files"])
        (path,) = (one for one in inputs if one.name == entry["input"])
        source, mask = (
            read(path),
            read(reference / entry["id"] / f"mask.{'nii.gz' if volume else 'png'}"),
        )
        assert mask.dtype == np.uint8 and mask.shape == source.shape[: mask.ndim]
        if volume:
            affines = [nibabel.load(path).affine for path in (path, reference / entry["id"] / "mask.nii.gz")]  # type: ignore[attr-defined]
            assert np.array_equal(*affines)
    assert len(np.unique(np.concatenate([mask.ravel() for mask in masks(reference).values()]))) > 3


@pytest.mark.parametrize("batch_size", [1, 64])
def test_the_batch_size_changes_no_mask(
    batch_size: int, reference: Path, inputs: list[Path], tiled: Callable[..., Path]
) -> None:
    differ, voxels = differing(reference, tiled("out", *inputs, "--batch-size", batch_size))
    assert differ <= voxels / 100_000


@pytest.mark.parametrize("together", [True, False])
def test_neither_the_order_of_the_cases_nor_what_is_beside_them_changes_anything(
    together: bool, reference: Path, inputs: list[Path], tiled: Callable[..., Path], tmp_path: Path
) -> None:
    torch.rand(11)
    for paths in [inputs[::-1]] if together else [[path] for path in inputs]:
        tiled("out", *paths)
    assert bytes_of(tmp_path / "out") == bytes_of(reference)


def test_an_image_gives_one_result_under_any_name_and_beside_any_other(
    inputs: list[Path], segment: Callable[..., int], tmp_path: Path
) -> None:
    """Names that collide get folders or hashes added; the result must not depend on it."""
    for place in ("alone", "a", "b", "c"):
        (tmp_path / place).mkdir()
    film, other = inputs[2], inputs[3]
    shutil.copy(film, tmp_path / "alone" / "first.png")
    shutil.copy(film, tmp_path / "a" / "film.png")
    shutil.copy(other, tmp_path / "b" / "film.png")
    shutil.copy(film, tmp_path / "c" / "film.png")
    assert segment(tmp_path / "alone", "--output", tmp_path / "one") == 0
    assert segment(*(tmp_path / place for place in "abc"), "--output", tmp_path / "all") == 0
    # the masks of random weights may be empty; probabilities show every change of the noise
    found = bytes_of(tmp_path / "all", ["probability.png"])
    assert set(found) == {f"{place}__film/probability.png" for place in "abc"}
    (expected,) = bytes_of(tmp_path / "one", ["probability.png"]).values()
    assert [content == expected for _, content in sorted(found.items())] == [True, False, True]


def test_worker_processes_change_nothing(
    reference: Path, inputs: list[Path], tiny: Any, workflow: Callable[..., ConfigWorkflow], tmp_path: Path
) -> None:
    options = {"weights": str(tiny.random), "tile_size": 64, "num_workers": 1}
    workflow(
        "inference.yaml", input=[str(path) for path in inputs], output_dir=str(tmp_path), **options
    ).run()
    assert bytes_of(tmp_path) == bytes_of(reference)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_result(
    reference: Path, inputs: list[Path], tiled: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["mask.nii.gz", "mask.png", "probability.nii.gz", "uncertainty.png"]
    assert bytes_of(tiled("same", *inputs, "--seed", 0), names) == bytes_of(reference, names)
    differ, _ = differing(tiled("other", *inputs, "--seed", 1), reference)
    assert differ > 0
    report = json.loads((tmp_path / "other" / "ct_1" / "report.json").read_text())
    assert 1 in report.get("settings", report).values()


def test_a_large_picture_in_tiles_is_as_in_one_piece(
    inputs: list[Path], tiled: Callable[..., Path], tiny: Any, segment: Callable[..., int], tmp_path: Path
) -> None:
    large, truth = inputs[-1], histology_phantom(5, size=300).label > 0
    assert segment(large, "--output", tmp_path / "whole", weights=tiny.trained) == 0
    tiled("tiles", large, weights=tiny.trained)
    whole, tiles = (masks(tmp_path / name)["large"] > 0 for name in ("whole", "tiles"))
    assert dice(whole, tiles) > 0.88
    assert dice(tiles, truth) > dice(whole, truth) - 0.02
    # at half the resolution tiles of 64 pixels begin at 0, 48 and 86; what differs does not gather there
    borders = [edge + shift for edge in (96, 128, 172, 224) for shift in range(-3, 4)]
    differ = whole != tiles
    assert differ.any()
    for axis in (0, 1):
        assert differ.mean(axis=axis)[borders].mean() < 1.5 * differ.mean()


def entries(output: Path) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in json.loads((output / "run.json").read_text())["cases"]}


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_members_and_steps_reach_the_sampler(
    inputs: list[Path], segment: Callable[..., int], reference: Path, tmp_path: Path
) -> None:
    film = inputs[2]
    assert segment(film, "--output", tmp_path, "--steps", 3, "--members", 2) == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["steps"], record["members"]) == (3, 2)
    assert bytes_of(tmp_path)["film/probability.png"] != bytes_of(reference)["film/probability.png"]


# --- interruption and resumption -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for seed in range(6):
        save_ct(folder / f"study_{seed}.nii.gz", seed)
    return folder


def kill_after_first_case(output: Path) -> Callable[[int], None]:
    def watch(process: int) -> None:
        deadline = time.monotonic() + 60
        while not list(output.glob("study_*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)

    return watch


def test_a_killed_run_leaves_whole_cases_and_is_finished_by_resuming(
    commands: Any, many: Path, tiny: Any, segment: Callable[..., int], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arguments = [many, "--output", output, "--steps", 8]
    network = ["--config", tiny.config, "--weights", tiny.random]
    killed = commands("bundle", "segment", *arguments, *network, watch=kill_after_first_case(output))
    assert killed.code == -signal.SIGKILL

    record = json.loads((output / "run.json").read_text())
    done = {entry["id"]: entry for entry in record["cases"] if entry["status"] == "done"}
    folders = {path.name: path for path in output.glob("study_*")}
    assert set(done) <= set(folders) and 1 <= len(folders) < 6
    for folder in folders.values():
        assert {path.name for path in folder.iterdir()} == VOLUME_FILES
        assert json.loads((folder / "report.json").read_text())
        read(folder / "mask.nii.gz")
    times = {name: (output / name).stat().st_mtime_ns for entry in done.values() for name in entry["files"]}

    assert segment(*arguments, "--resume") == 0
    resumed = entries(output)
    assert list(resumed) == [f"study_{seed}" for seed in range(6)]
    assert {entry["status"] for entry in resumed.values()} == {"done"}
    assert all(resumed[name] == entry for name, entry in done.items())
    assert all((output / name).stat().st_mtime_ns == time for name, time in times.items())
    assert not [path for path in output.rglob(".*")]

    assert segment(many, "--output", tmp_path / "undisturbed", "--steps", 8) == 0
    assert bytes_of(output) == bytes_of(tmp_path / "undisturbed")


def test_resuming_does_again_what_failed_or_lost_a_file(
    many: Path, segment: Callable[..., int], tmp_path: Path
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for seed in range(3):
        shutil.copy(many / f"study_{seed}.nii.gz", folder)
    broken = folder / "study_1.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:500])
    assert segment(folder, "--output", output) == 1
    before = entries(output)
    assert [entry["status"] for entry in before.values()] == ["done", "failed", "done"]
    assert not (output / "study_1").exists()

    assert segment(folder, "--output", output, "--resume") == 1
    broken.write_bytes(whole)
    (output / "study_2" / "mask.nii.gz").unlink()
    assert segment(folder, "--output", output, "--resume") == 0
    after = entries(output)
    assert after["study_0"] == before["study_0"]
    assert [entry["status"] for entry in after.values()] == ["done"] * 3
    assert set(masks(output)) == {"study_0", "study_1", "study_2"}

    stamp = (output / "study_0" / "mask.nii.gz").stat().st_mtime_ns
    assert segment(folder, "--output", output, "--resume") == 0
    assert (output / "study_0" / "mask.nii.gz").stat().st_mtime_ns == stamp


def test_without_resume_everything_is_done_anew(
    many: Path, segment: Callable[..., int], tmp_path: Path
) -> None:
    case = many / "study_0.nii.gz"
    assert segment(case, "--output", tmp_path) == 0
    stamp = (tmp_path / "study_0" / "mask.nii.gz").stat().st_mtime_ns
    assert segment(case, "--output", tmp_path) == 0
    assert (tmp_path / "study_0" / "mask.nii.gz").stat().st_mtime_ns > stamp
    assert len(json.loads((tmp_path / "run.json").read_text())["cases"]) == 1
