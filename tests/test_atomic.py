"""What exists under its final name is whole."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bundle.atomic import remove_leftovers, replace_folder, write_atomically


def test_a_file_appears_whole_and_replaces_the_older(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.json"
    for content in ("one", "two"):
        with write_atomically(path) as temporary:
            temporary.write_text(content)
            assert temporary.parent == path.parent and temporary.name.startswith(".")
            assert temporary.name.endswith("run.json")
        assert path.read_text() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["run.json"]


def test_an_error_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_older_folder_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    with replace_folder(folder) as temporary:
        (temporary / "mask").write_text("old")
    with pytest.raises(RuntimeError), replace_folder(folder) as temporary:
        (temporary / "mask").write_text("half")
        raise RuntimeError
    assert (folder / "mask").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    with pytest.raises(OSError, match=r"mask\.png") as caught, write_atomically(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_names_it(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="out"), replace_folder(tmp_path / "out" / "case"):
        pass


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    folder = tmp_path / ("c" * 255)
    with replace_folder(folder) as temporary:
        (temporary / "mask").write_text("x")
    assert (folder / "mask").exists()


def test_a_killed_process_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from bundle.atomic import replace_folder
        with replace_folder(Path(sys.argv[1])) as temporary:
            (temporary / "mask").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    folder = tmp_path / "case"
    root = Path(__file__).parents[1]
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(folder)], cwd=root, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert all(entry.name.startswith(".") for entry in tmp_path.iterdir())

    with replace_folder(folder) as temporary:
        (temporary / "mask").write_text("whole")
    assert list(tmp_path.iterdir()) == [folder]


def test_leftovers_of_a_killed_write_can_be_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / "run.json", tmp_path / ".partial-other", tmp_path / "other.json"]
    for path in kept:
        path.write_text("kept")
    with pytest.raises(KeyboardInterrupt), write_atomically(tmp_path / "run.json") as temporary:
        temporary.write_text("half")
        left = tmp_path / temporary.name
        left.with_name(temporary.name + "x").write_text("half")  # what a SIGKILL would have left
        raise KeyboardInterrupt
    remove_leftovers(tmp_path / "run.json")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
