"""The journal over restarts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.serving.pacs.exchange import ArrivedSeries, is_uid
from bundle.serving.pacs.journal import SeriesJournal

SERIES = ArrivedSeries("1.2", "1.2.3", 8)
MORE = ArrivedSeries("1.2", "1.2.3", 9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.mark.parametrize("status", ["done", "failed", "left out"])
def test_what_is_finished_stays_so_until_more_arrives(path: Path, status: str) -> None:
    journal = SeriesJournal(path)
    assert not journal.finished(SERIES)
    journal.write(SERIES, status, "a reason", ["1.2.3.4"])  # type: ignore[arg-type]
    for one in (journal, SeriesJournal(path)):
        assert one.finished(SERIES)
        assert not one.finished(MORE)
        assert not one.finished(ArrivedSeries("1.2", "1.2.4", 8))
    [line] = path.read_text().splitlines()
    assert json.loads(line) == {
        "status": status,
        "study": "1.2",
        "series": "1.2.3",
        "instances": 8,
        "reason": "a reason",
        "objects": ["1.2.3.4"],
    }


def test_giving_up_holds_for_this_process_only(path: Path) -> None:
    journal = SeriesJournal(path)
    journal.write(SERIES, "gave up", "The server cannot be reached.")
    assert journal.given_up(SERIES) and not journal.given_up(MORE) and not journal.finished(SERIES)
    assert not SeriesJournal(path).given_up(SERIES) and not SeriesJournal(path).finished(SERIES)


def test_starts_without_an_end_are_counted(path: Path) -> None:
    for _ in range(3):
        SeriesJournal(path).write(SERIES, "started")
    assert SeriesJournal(path).unfinished_starts(SERIES) == 3
    SeriesJournal(path).write(SERIES, "stopped")
    assert SeriesJournal(path).unfinished_starts(SERIES) == 0


def test_a_torn_last_line_is_cut_and_a_damaged_one_passed_over(path: Path) -> None:
    journal = SeriesJournal(path)
    journal.write(SERIES, "done")
    other = ArrivedSeries("1.2", "1.2.4", 1)
    for damage in (b"\x00\xff{]\n", b'{"status": "done"}\n', b"[1]\n", b'{"status": "done", "ser'):
        with path.open("ab") as file:
            file.write(damage)
    again = SeriesJournal(path)
    assert again.finished(SERIES)
    again.write(other, "done")
    last = SeriesJournal(path)
    assert last.finished(SERIES) and last.finished(other)
    assert json.loads(path.read_text(errors="replace").splitlines()[-1])["series"] == "1.2.4"


@pytest.mark.parametrize(
    "text", ["", ".", "..", "1..2", "1.2/../3", "1.2\n", "1.2.a", "1" * 65, "../1", "1.2."]
)
def test_what_is_no_uid_becomes_no_path(text: str) -> None:
    assert not is_uid(text)
    with pytest.raises(ValueError, match="not a UID"):
        ArrivedSeries("1.2", text, 1)
