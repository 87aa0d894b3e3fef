"""What stands in a run's way from outside: another run, streams that fail, small shared memory, odd names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from bundle.commands.command_line import check_files
from bundle.commands.streams import enduring
from bundle.folder_lock import FolderInUseError, folder_lock
from bundle.learning import by_size, prepare_batch
from bundle.worker_items import packed, unpacked

ROOT = Path(__file__).resolve().parents[2]
INFERENCE = ROOT / "configs" / "inference.yaml"


@pytest.fixture(scope="module")
def film(phantoms: dict[str, Path]) -> Path:
    return next((phantoms["X-ray"].parent / "images").glob("test_*.png"))


# --- two runs into one folder ----------------------------------------------------------------------------

HOLD = """
import sys, pathlib
from bundle.folder_lock import folder_lock
with folder_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_into_a_folder_is_refused_until_the_first_has_ended_in_any_way(
    film: Path, segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert segment(film, "--output", output) == 0
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    command = [sys.executable, "-c", HOLD, str(output)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        assert segment(film, "--output", output) == 2
        sentence = capfd.readouterr().err.splitlines()[-1]
        assert (
            sentence
            == f"error: {output}: another run is writing into it; wait for it, or give another folder."
        )
        assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
        other.kill()
    assert segment(film, "--output", output) == 0
    assert {path.relative_to(output) for path in output.rglob("*")} == {
        path.relative_to(output) for path in [*before, *(path.parent for path in before)] if path != output
    }


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(FolderInUseError), folder_lock(tmp_path):
        raise AssertionError
    with folder_lock(tmp_path):
        assert not list(tmp_path.iterdir())


# --- streams ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "redirection", [">/dev/full", "2>/dev/full", ">&-", "2>&-", "<&- >&- 2>&-", "| head -c 0"]
)
def test_streams_that_fail_end_nothing(redirection: str, tmp_path: Path) -> None:
    program = """
import os, sys
from bundle.commands.streams import enduring
with enduring():
    with open(sys.argv[1], "w") as stream:
        for _ in range(5000):
            print("a line of standard output"); print("a line of standard error", file=sys.stderr)
        os.write(1, b"of a library")
        stream.write("whole")
sys.exit(3)
"""
    (tmp_path / "program.py").write_text(program)
    command = f"{sys.executable} {tmp_path}/program.py {tmp_path}/file {redirection}"
    command += f"; echo ${{PIPESTATUS[0]}} >{tmp_path}/code"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert (tmp_path / "file").read_text() == "whole"
    if redirection != ">/dev/full":  # where os.write fails by itself
        assert (tmp_path / "code").read_text() == "3\n", done.stderr
    assert "Traceback" not in done.stderr or redirection == ">/dev/full"


def test_what_an_encoding_cannot_say_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with enduring():
            print("r\udce9sultats à gauche")
    assert (tmp_path / "log").read_text() == "r\\udce9sultats \\xe0 gauche\n"


# --- shared memory ---------------------------------------------------------------------------------------


class _Items(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": torch.full((3, 64, 64), float(index))}


def test_workers_send_bytes_and_no_shared_memory() -> None:
    item = {"image": torch.ones(3)}
    assert packed(item) is item and unpacked(item) is item
    loaded = list(DataLoader(_Items(), batch_size=2, num_workers=1, collate_fn=by_size))
    here = list(DataLoader(_Items(), batch_size=2, collate_fn=by_size))
    assert all(isinstance(one.content, bytes) for one in loaded) and isinstance(here[0], dict)
    for one, other in zip(loaded, here, strict=True):
        assert torch.equal(unpacked(one)["image"], other["image"])
    assert prepare_batch  # unpacks what it is given


# --- names, warnings, files of settings ------------------------------------------------------------------


def test_folders_that_are_no_text_from_end_to_end(
    film: Path, segment: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("win\\users", os.fsdecode(b"\xe9tudes")):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(film, folder / "good.png")
        (folder / "bad.jpg").write_text("no jpeg")
        (folder / "good.txt").write_text("0 0.5 0.4 0.2 0.3\n")
        (folder / "scan.par").touch()
        output = tmp_path / f"out {name}"
        assert segment(folder, "--output", output) == 1
        record = json.loads((output / "run.json").read_text(encoding="utf-8"))
        assert {one["id"]: one["status"] for one in record["cases"]} == {"good": "done", "bad": "failed"}
        told = capfd.readouterr().err
        assert "1 file of a kind that is not read: scan.par." in told
        (line,) = [line for line in told.splitlines() if line.startswith("warning: good: ")]
        assert "good.txt beside the image does not read like a prompt" in line
        report = json.loads((output / "good" / "report.json").read_text())
        assert any("good.txt" in warning for warning in report["warnings"])
        # the next run over all of it
        assert segment(folder, output, "--output", tmp_path / f"again {name}") == 1
        told = capfd.readouterr().err
        assert "1 result of an earlier run" in told
        record = json.loads((tmp_path / f"again {name}" / "run.json").read_text(encoding="utf-8"))
        assert {one["id"] for one in record["cases"]} == {"good", "bad"}


@pytest.mark.parametrize(
    ("content", "meant"),
    [
        ("stpes: 3", "steps"),
        ("ct#windw: [0, 1]", "ct#window"),
        ("xray: {siz: 64}", "xray#size"),
        ("batchsize: 1", "batch_size"),
        ("+stpes: 3", "steps"),
    ],
)
def test_misspelt_settings_of_a_file_are_refused(
    content: str, meant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my.yaml").write_text(content)
    with pytest.raises(SystemExit, match="2"):
        check_files([INFERENCE, tmp_path / "my.yaml"])
    sentence = capsys.readouterr().err
    assert f"my.yaml: nothing reads the setting {content.lstrip('+').partition(':')[0]}" in sentence.replace(
        "xray#siz;", "xray;"
    )
    assert f"did you mean {meant}?" in sentence


@pytest.mark.parametrize(
    "content", ["steps: 3", "ct#window: [0, 1]", "mine: 3\nsteps: '@mine'", "_note: stpes"]
)
def test_settings_of_a_file_that_are_read_pass(content: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(content)
    check_files([INFERENCE, tmp_path / "my.yaml"])


def test_make_clean_keeps_what_was_trained(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    kept = [
        "runs/mine/model.pt",
        "models/model.pt",
        "models/label-1.pt",
        ".label/apps/model.pt",
        "out/mine/latest.pt",
    ]
    for name in [*kept, "out/demo/mask.png", ".venv/bin/x", ".cache/x", "bundle/__pycache__/x.pyc"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if shutil.which("make") is None:
        pytest.skip("needs make")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, "Makefile"}
    (tmp_path / "out/mine/latest.pt").unlink()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_bundle_command_in_another_folder_or_without_docstrings(film: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        str(INFERENCE),
        "--input",
        str(film),
    ]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for changed, folder, words in (
        ({}, tmp_path, "the package bundle is not found from this folder"),
        ({"PYTHONPATH": str(ROOT)}, tmp_path, "is not the folder of the bundle"),
        ({"PYTHONOPTIMIZE": "2"}, ROOT, "PYTHONOPTIMIZE=2"),
    ):
        done = subprocess.run(
            command, cwd=folder, env={**plain, **changed}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert words in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
