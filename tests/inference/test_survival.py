"""A batch survives what happens to it: kills at any moment, Ctrl-C, broken files, processes that die."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from bundle.inference.journal import NAME, read_journal
from bundle.phantoms import ct_phantom, histology_phantom, xray_phantom

ROOT = Path(__file__).resolve().parents[2]
Watch = Callable[[int], None]


@pytest.fixture
def quick_preview() -> None:
    """Real ones, since results are compared with those of other processes."""


def _volume(path: Path, seed: int) -> None:
    phantom = ct_phantom(seed, shape=(32, 32, 8), spacing=(8.0, 8.0, 20.0))
    nibabel.save(nibabel.Nifti1Image(phantom.image, phantom.affine), path)  # type: ignore[attr-defined, no-untyped-call]


def _save(values: Any, path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)  # type: ignore[attr-defined, no-untyped-call]


def _truncated(path: Path, source: Path, share: float) -> None:
    content = source.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


#: Ways to break a file: suffix, and what writes it, given a whole volume and a whole picture.
BROKEN: list[tuple[str, Callable[[Path, Path, Path], object]]] = [
    (".nii.gz", lambda path, volume, picture: _truncated(path, volume, 0.6)),
    (".png", lambda path, volume, picture: path.write_text("no picture")),
    (".png", lambda path, volume, picture: _truncated(path, picture, 0.5)),
    (".nii.gz", lambda path, volume, picture: path.write_bytes(b"")),
    (".nii", lambda path, volume, picture: _save(np.zeros((4, 4, 4, 3), np.float32), path)),
    (".nii", lambda path, volume, picture: _save(np.full((4, 4, 4), np.nan, np.float32), path)),
    (".png", lambda path, volume, picture: Image.new("L", (4, 4)).save(path)),
    (".nii.gz", lambda path, volume, picture: path.write_bytes(b"\x1f\x8b" + bytes(200))),
    (".nii", lambda path, volume, picture: path.write_bytes(os.urandom(800))),
    (".mha", lambda path, volume, picture: path.write_text("ObjectType = Image\n")),
]


def make_cases(folder: Path, whole: int, broken: int) -> None:
    """`whole` volumes and pictures and, among them, `broken` files."""
    folder.mkdir()
    for number in range(whole):
        name = f"case_{number:03d}"
        if number % 3 == 0:
            _volume(folder / f"{name}.nii.gz", number)
        elif number % 3 == 1:
            Image.fromarray(xray_phantom(number, size=64).image).save(folder / f"{name}.png")
        else:
            Image.fromarray(histology_phantom(number, size=64).image).save(folder / f"{name}.png")
    for number in range(broken):
        suffix, write = BROKEN[number % len(BROKEN)]
        # spread over the order of the run
        place = number * whole // broken
        write(
            folder / f"case_{place:03d}_broken{suffix}", folder / "case_000.nii.gz", folder / "case_001.png"
        )


def contents(output: Path) -> dict[str, Any]:
    """What the run's folder holds; reports without their time."""
    files: dict[str, Any] = {}
    for path in sorted(output.glob("*/*")):
        name = str(path.relative_to(output))
        if path.name == "report.json":
            files[name] = {**json.loads(path.read_text()), "seconds": None}
        else:
            files[name] = path.read_bytes()
    return files


def journalled(output: Path) -> int:
    return len(read_journal(output)[1])


def when_done(output: Path, cases: int, then: Watch) -> Watch:
    """Do something to the process when so many cases more are in the journal."""
    before = journalled(output)

    def watch(process: int) -> None:
        deadline = time.monotonic() + 120
        while journalled(output) < before + cases and _alive(process):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        then(process)

    return watch


def _alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def run_killed_again_and_again(
    commands: Any, tiny: Any, arguments: list[object], output: Path, kills: int, most_cases: int, seed: int
) -> None:
    """Start and kill at random moments, then resume to the end."""
    draw = random.Random(seed)
    network = ["--config", tiny.config, "--weights", tiny.random]
    for _ in range(kills):

        def later(process: int) -> None:
            time.sleep(draw.uniform(0.0, 0.5))
            kill(process)

        # the first run begins the folder, and the others go on in it
        watch = when_done(output, draw.randint(0, most_cases), later)
        killed = commands("bundle", "segment", *arguments, *network, "--resume", watch=watch)
        assert killed.code == -signal.SIGKILL, killed
        for folder in (path for path in output.iterdir() if path.is_dir() and path.name[0] != "."):
            if folder.name == "viewer":  # of all cases' pages
                continue
            assert json.loads((folder / "report.json").read_text())["case"] == folder.name
    finished = commands("bundle", "segment", *arguments, *network, "--resume")
    assert finished.code == 1, finished


def check_survived(source: Path, output: Path, undisturbed: Path, whole: int, broken: int) -> None:
    record = json.loads((output / "run.json").read_text())
    status = {entry["id"]: entry["status"] for entry in record["cases"]}
    assert sorted(status.values()) == ["done"] * whole + ["failed"] * broken
    for entry in record["cases"]:
        assert (entry["status"] == "failed") == ("broken" in entry["id"])
        if entry["error"] is not None:
            assert entry["error"].startswith(f"{entry['id']}") and entry["files"] == []
    ours, theirs = contents(output), contents(undisturbed)
    assert len({name.split("/")[0] for name in ours} - {"viewer"}) == whole
    assert ours == theirs
    assert sorted(path.name for path in output.iterdir() if path.name.startswith(".")) == []
    page = (output / "index.html").read_text()
    assert f"<b>{whole + broken:,}</b> cases" in page and f"<b>{whole:,}</b> done" in page


def test_a_run_killed_again_and_again_ends_as_if_nothing_had_happened(
    commands: Any, tiny: Any, segment: Callable[..., int], tmp_path: Path
) -> None:
    make_cases(tmp_path / "in", whole=10, broken=2)
    assert segment(tmp_path / "in", "--output", tmp_path / "undisturbed") == 1
    output = tmp_path / "out"
    run_killed_again_and_again(commands, tiny, [tmp_path / "in", "--output", output], output, 2, 4, seed=1)
    check_survived(tmp_path / "in", output, tmp_path / "undisturbed", whole=10, broken=2)


@pytest.mark.slow
def test_two_hundred_cases_killed_ten_times(
    commands: Any, tiny: Any, segment: Callable[..., int], tmp_path: Path
) -> None:
    make_cases(tmp_path / "in", whole=180, broken=20)
    assert segment(tmp_path / "in", "--output", tmp_path / "undisturbed") == 1
    output = tmp_path / "out"
    run_killed_again_and_again(commands, tiny, [tmp_path / "in", "--output", output], output, 10, 17, seed=2)
    check_survived(tmp_path / "in", output, tmp_path / "undisturbed", whole=180, broken=20)


# --- interruption ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for seed in range(8):
        Image.fromarray(xray_phantom(seed, size=64).image).save(folder / f"film_{seed}.png")
    return folder


def attempts(folder: Path) -> Iterator[Path]:
    """Output folders: on a busy machine a run may be done before the signal reaches it, and is tried anew."""
    for attempt in range(3):
        yield folder / f"out_{attempt}"


@pytest.mark.parametrize(("number", "options"), [(signal.SIGINT, []), (signal.SIGTERM, ["--jobs", 2])])
def test_an_interruption_leaves_whole_files_and_says_how_to_go_on(
    number: signal.Signals,
    options: list[object],
    commands: Any,
    tiny: Any,
    films: Path,
    segment: Any,
    tmp_path: Path,
) -> None:
    network = ["--config", tiny.config, "--weights", tiny.random]
    for output in attempts(tmp_path):
        arguments = [films, "--output", output, "--steps", 8]
        watch = when_done(output, 2, lambda process: os.kill(process, number))
        stopped = commands("bundle", "segment", *arguments, *network, *options, watch=watch)
        if stopped.code != 0:
            break
    assert stopped.code == 130, stopped
    assert "Traceback" not in stopped.stderr
    (sentence,) = (line for line in stopped.stderr.splitlines() if line.startswith("interrupted"))
    assert sentence.endswith("left; repeat the command with resume to go on.")
    record = json.loads((output / "run.json").read_text())
    done = [entry["id"] for entry in record["cases"]]
    assert 2 <= len(done) < 8
    assert re.match(
        rf"interrupted: {len(done)} done, 0 failed(, \d implausible)?, {8 - len(done)} left", sentence
    )
    assert all(entry["status"] == "done" for entry in record["cases"])
    assert all(name in (output / "index.html").read_text() for name in done)
    assert not list(output.glob(".*"))
    assert segment(*arguments, "--resume") == 0
    assert len(json.loads((output / "run.json").read_text())["cases"]) == 8


def test_the_bundle_command_is_interrupted_alike(
    commands: Any, tiny: Any, films: Path, tmp_path: Path
) -> None:
    for output in attempts(tmp_path):
        arguments = ["run", "--config_file", f"['configs/inference.yaml','{tiny.config}']"]
        arguments += ["--weights", tiny.random, "--input", films, "--output_dir", output, "--steps", 8]
        watch = when_done(output, 1, lambda process: os.kill(process, signal.SIGINT))
        stopped = commands("monai.bundle", *arguments, watch=watch)
        if stopped.code != 0:
            break
    assert stopped.code == 130, stopped
    assert "Traceback" not in stopped.stderr
    assert "left; repeat the command with resume to go on." in stopped.stderr
    assert commands("monai.bundle", *arguments, "--resume", True).code == 0
    assert len(json.loads((output / "run.json").read_text())["cases"]) == 8


# --- resuming --------------------------------------------------------------------------------------------


def test_results_that_are_cut_short_are_made_again(films: Path, segment: Any, tmp_path: Path) -> None:
    assert segment(films, "--output", tmp_path) == 0
    before = contents(tmp_path)
    preview = tmp_path / "film_3" / "preview.png"
    preview.write_bytes(preview.read_bytes()[:-7])
    content = bytearray((tmp_path / "film_5" / "mask.png").read_bytes())
    content[len(content) // 2] ^= 1  # of the same length
    (tmp_path / "film_5" / "mask.png").write_bytes(content)
    untouched = (tmp_path / "film_4" / "mask.png").stat().st_mtime_ns
    (tmp_path / "run.json").unlink()  # nothing depends on it
    assert segment(films, "--output", tmp_path, "--resume") == 0
    assert contents(tmp_path) == before
    assert (tmp_path / "film_4" / "mask.png").stat().st_mtime_ns == untouched
    assert len(json.loads((tmp_path / "run.json").read_text())["cases"]) == 8


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--seg-type", "LABELMAP"], "seg_type BINARY, not LABELMAP"),
        (["--dicom-seg"], "dicom_seg auto, not True"),
        (["--identifiers", "keep"], "identifiers hide, not keep"),
        (["--photometric", "MONOCHROME1"], "xray#photometric None, not MONOCHROME1"),
        (["--seed", "3"], "seed 0, not 3"),
        (["--xray-percentiles", "[1.0, 99.0]"], "xray#percentiles [0.5, 99.5], not [1.0, 99.0]"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    options: list[str], named: str, films: Path, segment: Any, tmp_path: Path, capfd: Any
) -> None:
    film = films / "film_0.png"
    assert segment(film, "--output", tmp_path) == 0
    assert segment(film, "--output", tmp_path, "--resume", *options) == 2
    assert f"holds results made with {named}" in capfd.readouterr().err
    shutil.rmtree(tmp_path / "film_0")  # nothing is left that could be mixed
    assert segment(film, "--output", tmp_path, "--resume", *options) == 0


def test_the_journal_is_in_the_folder_and_no_case_is_called_like_it(
    films: Path, segment: Any, tmp_path: Path
) -> None:
    named = tmp_path / "in" / f"{NAME}.png"
    named.parent.mkdir()
    shutil.copy(films / "film_0.png", named)
    assert segment(named, "--output", tmp_path / "out") == 0
    assert [entry["id"] for entry in read_journal(tmp_path / "out")[1]] == [f"case_{NAME}"]


# --- several processes -----------------------------------------------------------------------------------


def test_several_processes_give_the_same(
    commands: Any, tiny: Any, films: Path, segment: Any, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    shutil.copytree(films, source)
    (source / "film_9.png").write_text("no picture")
    assert segment(source, "--output", tmp_path / "one") == 1
    network = ["--config", tiny.config, "--weights", tiny.random]
    arguments = [source, "--output", tmp_path / "two", "--jobs", 2, *network]
    several = commands("bundle", "segment", *arguments)
    assert several.code == 1 and "8 done, 1 failed" in several.stdout, several
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    ours, theirs = (
        json.loads((tmp_path / name / "run.json").read_text())["cases"] for name in ("two", "one")
    )
    assert [{**entry, "seconds": 0} for entry in ours] == [{**entry, "seconds": 0} for entry in theirs]
