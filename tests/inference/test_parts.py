"""A run in parts, joined, is the run that one process would have made."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bundle.cases import CaseError
from bundle.commands.main import main
from bundle.folder_lock import folder_lock
from bundle.inference.journal import read_journal
from bundle.inference.parts import Part
from bundle.phantoms import histology_phantom, xray_phantom

Segment = Callable[..., int]
COUNT = 8
_TIMES = re.compile(r'"seconds": [\d.]+|data-key="[\d.]*" class="number">[^<]*|[\d.]+ s\b')


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("films")
    for seed in range(10):
        phantom = histology_phantom(seed, size=64) if seed % 2 else xray_phantom(seed, size=64)
        Image.fromarray(phantom.image).save(folder / f"picture_{seed}.png")
    (folder / "broken.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def whole(kept: Path, films: Path, segment: Segment) -> Path:
    """One run over all."""
    if not (kept / "whole" / "run.json").exists():
        assert segment(films, "--output", kept / "whole") == 1
    return kept / "whole"


@pytest.fixture
def parts(kept: Path, films: Path, segment: Segment, tmp_path: Path) -> Path:
    """Eight parts, begun by the last, not joined."""
    if not (kept / "parts").exists():
        for number in range(COUNT, 0, -1):
            code = segment(films, "--output", kept / "parts", "--part", f"{number}/{COUNT}")
            assert code == (number == 1)  # 'broken' is the first id
    shutil.copytree(kept / "parts", tmp_path / "out")
    return tmp_path / "out"


def contents(output: Path) -> dict[str, Any]:
    """Every file; reports and pages without times."""
    found: dict[str, Any] = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        if not path.is_file() or name in ("run.json", "journal.jsonl", "index.html"):
            continue
        if not name.startswith("parts/"):
            found[name] = path.read_bytes()
            if path.suffix in (".json", ".html"):
                found[name] = _TIMES.sub("", path.read_text())
    return found


def record(output: Path) -> dict[str, Any]:
    """run.json without what differs from run to run."""
    content = json.loads((output / "run.json").read_text())
    for case in content["cases"]:
        del case["seconds"]
    return {key: value for key, value in content.items() if key not in ("started", "command", "parts")}


def entries(output: Path) -> dict[str, Any]:
    """The journal's entries without times and what depends on them."""
    found = {}
    for entry in read_journal(output).entries:
        checks = {name: one for name, one in (entry.get("checks") or {}).items() if "report" not in name}
        found[entry["id"]] = {**entry, "seconds": None, "checks": sorted(checks)}
    return found


def test_eight_parts_joined_equal_one_run(whole: Path, parts: Path) -> None:
    assert not (parts / "run.json").exists() and not (parts / "index.html").exists()
    assert main(["merge", str(parts)]) == 1  # as of one run: a case failed
    assert contents(parts) == contents(whole)
    assert record(parts) == record(whole)
    assert json.loads((parts / "run.json").read_text())["parts"] == COUNT
    assert read_journal(parts).settings == read_journal(whole).settings
    assert entries(parts) == entries(whole)
    pages = [(output / "index.html").read_text() for output in (parts, whole)]
    rows = [_TIMES.sub("", page[page.index("<tbody") : page.index("</tbody>")]) for page in pages]
    assert rows[0] == rows[1]


def test_every_case_is_in_one_part(parts: Path) -> None:
    journals = [read_journal(Part(number, COUNT).folder(parts)) for number in range(1, COUNT + 1)]
    named = [one for journal in journals for one in journal.ids]
    assert len(named) == len(set(named)) == 11
    assert [{entry["id"] for entry in journal.entries} == journal.ids for journal in journals] == [True] * 8


def test_joining_twice_changes_nothing(parts: Path) -> None:
    assert main(["merge", str(parts)]) == 1
    before = record(parts), entries(parts)
    assert main(["merge", str(parts)]) == 1
    assert (record(parts), entries(parts)) == before


def test_a_part_that_is_missing_or_cut_short_is_named(parts: Path, capsys: Any) -> None:
    shutil.rmtree(parts / "parts" / "3-of-8")
    journal = parts / "parts" / "2-of-8" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    assert main(["merge", str(parts)]) == 1
    said = capsys.readouterr().err
    assert "error: part 3/8 has not been run; run it with --part 3/8." in said
    assert "error: part 2/8 has not done 1 of its cases; run it again with --part 2/8 --resume." in said
    assert len(record(parts)["cases"]) == 8


def test_a_part_is_resumed(parts: Path, films: Path, segment: Segment, whole: Path) -> None:
    part = Part(2, COUNT)
    journal = part.folder(parts) / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 3
    journal.write_text("".join(lines[:-1]))
    stamps = {path: path.stat().st_mtime_ns for path in parts.glob("*/report.json")}
    assert segment(films, "--output", parts, "--part", part, "--resume") == 0
    anew = {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert {path.parent.name for path in anew} == {json.loads(lines[-1])["id"]}
    assert main(["merge", str(parts)]) == 1
    assert record(parts) == record(whole)


def test_one_run_takes_over_what_parts_have_done(
    parts: Path, films: Path, segment: Segment, whole: Path
) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in parts.glob("*/mask.png")}
    assert segment(films, "--output", parts, "--resume") == 1
    assert {path: path.stat().st_mtime_ns for path in parts.glob("*/mask.png")} == stamps
    assert record(parts) == record(whole)
    assert not (parts / "parts").exists()


def test_parts_of_another_number_take_over_too(parts: Path, films: Path, segment: Segment) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in parts.glob("*/mask.png")}
    for number in (1, 2):
        segment(films, "--output", parts, "--part", f"{number}/2", "--resume")
    assert {path: path.stat().st_mtime_ns for path in parts.glob("*/mask.png")} == stamps
    assert main(["merge", str(parts)]) == 2  # whose entries count is for the user to say
    for folder in (parts / "parts").glob("*-of-8"):
        shutil.rmtree(folder)
    assert main(["merge", str(parts)]) == 1
    assert len(record(parts)["cases"]) == 11


def test_parts_of_other_settings_are_not_joined(
    parts: Path, films: Path, segment: Segment, capsys: Any
) -> None:
    assert segment(films, "--output", parts, "--part", "2/8", "--seed", 5) == 0
    assert main(["merge", str(parts)]) == 2
    assert "parts 1/8 and 2/8 were made with different seed (0 and 5)" in capsys.readouterr().err
    assert segment(films, "--output", parts, "--part", "2/8", "--resume") == 2


def hold(folder: Path, shared: bool, held: Any, done: Any) -> None:
    with folder_lock(folder, shared=shared):
        held.set()
        done.wait(60)


def test_parts_run_beside_each_other_but_not_beside_a_whole_run(
    parts: Path, films: Path, segment: Segment, capsys: Any
) -> None:
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(parts, True, held, done))
    other.start()
    try:
        assert held.wait(60)
        assert segment(films, "--output", parts, "--part", "2/8", "--resume") == 0
        assert segment(films, "--output", parts, "--resume") == 2
        assert "another run is writing into it" in capsys.readouterr().err
        assert main(["merge", str(parts)]) == 2
        assert "wait until all parts are done" in capsys.readouterr().err
        with folder_lock(Part(2, COUNT).folder(parts)):
            assert segment(films, "--output", parts, "--part", "2/8", "--resume") == 2
    finally:
        done.set()
        other.join()


def test_more_parts_than_cases(films: Path, segment: Segment, tmp_path: Path) -> None:
    film = films / "picture_0.png"
    for number in (1, 2):
        assert segment(film, "--output", tmp_path, "--part", f"{number}/2") == 0
    assert main(["merge", str(tmp_path)]) == 0
    assert [case["id"] for case in record(tmp_path)["cases"]] == ["picture_0"]


@pytest.mark.parametrize("text", ["0/8", "9/8", "1/0", "3", "1/2/3", "a/b", "-1/4", "1.5/2", "", "³/8"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(CaseError, match="is no part of a run"):
        Part.of(text)


def test_parts_split_by_sorted_ids() -> None:
    ids = ["b", "a", "d", "c", "e"]
    assert [Part(number, 2).ids(ids) for number in (1, 2)] == [{"a", "c", "e"}, {"b", "d"}]


def test_replaced_identifiers_need_one_seed_for_all_parts(
    films: Path, segment: Segment, tmp_path: Path, capsys: Any
) -> None:
    arguments = [films, "--output", tmp_path, "--part", "1/2", "--identifiers", "replace"]
    assert segment(*arguments) == 2
    assert "replacement_seed: is not set" in capsys.readouterr().err


def test_nothing_to_join(tmp_path: Path, capsys: Any) -> None:
    assert main(["merge", str(tmp_path)]) == 2
    assert "holds no parts of a run" in capsys.readouterr().err
    assert main(["merge", str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err
