"""The journal outlives what happens to it, and takes nothing for whole that is not as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bundle.inference.journal import NAME, RunJournal, checks_of, is_whole, read_journal


@pytest.fixture
def entry(tmp_path: Path) -> dict[str, Any]:
    """Of a case with two files in a run's folder."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mask.png").write_bytes(b"0123456789")
    (tmp_path / "a" / "report.json").write_text("{}")
    files = ["a/mask.png", "a/report.json"]
    return {"id": "a", "status": "done", "files": files, "checks": checks_of(tmp_path, files)}


def test_what_was_added_is_read_again_and_the_last_word_counts(tmp_path: Path) -> None:
    journal = RunJournal(tmp_path)
    journal.start({"steps": 2}, [{"id": "before", "status": "done"}])
    for status in ("failed", "done"):
        journal.add({"id": "\u00e9 \ud800", "status": status})
    settings, entries, _ = read_journal(tmp_path)
    assert settings == {"steps": 2}
    assert [(one["id"], one["status"]) for one in entries] == [("before", "done"), ("\u00e9 \ud800", "done")]
    RunJournal(tmp_path).start({}, [])
    assert read_journal(tmp_path) == ({}, [], frozenset())


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_last_line_costs_its_case_alone(tmp_path: Path, cut: int) -> None:
    journal = RunJournal(tmp_path)
    journal.start({"seed": 1}, [])
    for number in range(3):
        journal.add({"id": f"case_{number}", "status": "done"})
    content = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(content[:-cut])
    settings, entries, _ = read_journal(tmp_path)
    assert settings == {"seed": 1}
    # the line end alone may be missing
    assert [one["id"] for one in entries] == [f"case_{number}" for number in range(3 if cut == 1 else 2)]


@pytest.mark.parametrize("line", [b"\xff\xfe", b"[1]", b"{}", b"[" * 100_000, b'{"id": 3}', b"", b"null"])
def test_lines_that_are_no_entries_are_passed_over(tmp_path: Path, line: bytes) -> None:
    (tmp_path / NAME).write_bytes(b'{"id": "a"}\n' + line + b'\n{"id": "b"}\n')
    assert [one["id"] for one in read_journal(tmp_path)[1]] == ["a", "b"]


def test_a_case_is_whole_while_its_files_are_as_they_were(tmp_path: Path, entry: dict[str, Any]) -> None:
    mask = tmp_path / "a" / "mask.png"
    assert is_whole(entry, tmp_path)
    for content in (b"01234", b"012345678X", b""):  # cut, changed, empty
        mask.write_bytes(content)
        assert not is_whole(entry, tmp_path)
    mask.write_bytes(b"0123456789")
    assert is_whole(entry, tmp_path)
    mask.unlink()
    assert not is_whole(entry, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"status": "failed"},
        {"files": []},
        {"files": None},
        {"checks": {}},
        {"checks": {"a/mask.png": None, "a/report.json": None}},
        {"id": "b"},
        {"id": ".."},
        {"files": ["../secret"], "checks": {"../secret": [1, "x"]}},
    ],
)
def test_an_entry_that_does_not_add_up_is_not_whole(
    tmp_path: Path, entry: dict[str, Any], change: dict[str, Any]
) -> None:
    assert not is_whole({**entry, **change}, tmp_path)
