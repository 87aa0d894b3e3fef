"""The loop: what is due when, what is tried again, and what holds when the process is killed anywhere."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bundle.serving.pacs.exchange import ArrivedSeries, ServerError
from bundle.serving.pacs.journal import SeriesJournal
from bundle.serving.pacs.node import MOST_STARTS, Node, Pace
from bundle.serving.pacs.outbox import Outbox, Outcome
from bundle.serving.pacs.retries import Retries
from bundle.serving.pacs.segmenter import CannotBeSegmented, NothingToSegment
from bundle.serving.pacs.study_completion import StudyCompletion


class Killed(BaseException):
    """As if the process had been killed."""


class World:
    """A server with series and results, and a disk: what stays when a process ends.

    Attributes:
        alive: how many more steps the process may make; None for any.
    """

    def __init__(self, folder: Path, series: int = 3) -> None:
        self.folder = folder
        self.series = {f"1.{number}": 8 for number in range(1, series + 1)}
        self.results: Counter[str] = Counter()
        self.segmented: Counter[str] = Counter()
        self.alive: int | None = None
        self.trouble: dict[str, Callable[[], None]] = {}
        self.slept: list[float] = []

    def step(self, what: str) -> None:
        if what in self.trouble:
            self.trouble[what]()
        if self.alive is not None:
            self.alive -= 1
            if self.alive < 0:
                raise Killed

    # --- source and destination

    def studies(self) -> Mapping[str, Sequence[ArrivedSeries]]:
        self.step("search")
        return {f"9.{uid}": [ArrivedSeries(f"9.{uid}", uid, count)] for uid, count in self.series.items()}

    def fetch(self, series: ArrivedSeries) -> Path:
        self.step("fetch")
        self.fetched = series.series
        folder = self.folder / "fetched" / series.series
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def reports(self, study: str) -> list[Path]:
        self.step("reports")
        return [self.folder / f"report of {study}"]

    def grew(self, series: ArrivedSeries) -> bool:
        self.step("grew")
        return self.series[series.series] > series.instances

    def put_back(self, series: ArrivedSeries) -> None:
        shutil.rmtree(self.folder / "fetched" / series.series, ignore_errors=True)

    discard = put_back

    def deliver(self, files: Sequence[Path]) -> None:
        for path in files:
            self.step("deliver")
            uid = path.read_text()
            if not self.results[uid]:
                self.results[uid] += 1
            self.step("delivered")

    # --- the rest

    def segment(self, folder: Path, output: Path, reports: Sequence[Path]) -> Outcome:
        assert [path.name for path in reports] == [f"report of 9.{folder.name}"]
        self.step("segment")
        objects = {}
        for kind in ("seg", "sr"):
            uid = f"{folder.name}.{len(kind)}"
            (output / f"{kind}.dcm").write_text(uid)
            objects[uid] = f"{kind}.dcm"
            self.step("segment")
        self.segmented[folder.name] += 1
        return Outcome(objects, prompt_source="DICOM SR")

    def node(self, destination: bool = True, **options: Any) -> Node:
        world = self

        class WatchedJournal(SeriesJournal):
            def write(self, *arguments: Any, **keywords: Any) -> None:
                world.step("journal")
                super().write(*arguments, **keywords)
                world.step("written")

        class WatchedOutbox(Outbox):
            def remove(self, parcel: Any) -> None:  # type: ignore[override]
                world.step("remove")
                super().remove(parcel)
                world.step("removed")

        pace = Pace(0.0, 0.0, 3, 0.0)
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        return Node(
            self,
            self if destination else None,
            self.segment,
            WatchedJournal(state / "journal.jsonl"),
            WatchedOutbox(state / "results"),
            pace,
            sleep=self.slept.append,
            **options,
        )

    def lines(self) -> list[dict[str, Any]]:
        text = (self.folder / "state" / "journal.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def statuses(self, series: str) -> list[str]:
        return [line["status"] for line in self.lines() if line["series"] == series]

    def fail(self, what: str, error: BaseException, times: int) -> None:
        """Let a step fail so many times."""
        left = [times]

        def trouble() -> None:
            if left[0]:
                left[0] -= 1
                raise error

        self.trouble[what] = trouble


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: None
    )  # a process that is killed leaves the disk as it is
    return World(tmp_path)


def test_every_series_is_done_once(world: World) -> None:
    node = world.node()
    node.run(once=True)
    assert node.failures == 0
    assert set(world.results.values()) == {1} and len(world.results) == 6
    assert world.statuses("1.1") == ["started", "segmented", "done"]
    told = [line.get("prompt_source") for line in world.lines() if line["series"] == "1.1"]
    assert told == [None, "DICOM SR", "DICOM SR"]
    assert not any((world.folder / "state" / "results").iterdir())
    world.node().run(once=True)
    assert set(world.segmented.values()) == {1} and len(world.lines()) == 9


def test_killed_at_any_step_and_started_again_each_result_is_there_once(world: World, tmp_path: Path) -> None:
    steps = 0
    while True:
        world = World(tmp_path / str(steps), series=2)
        world.folder.mkdir()
        world.alive = steps
        try:
            world.node().run(once=True)
            break  # it came to its end before it was killed
        except Killed:
            pass
        world.alive = None
        world.node().run(once=True)
        assert world.results == {"1.1.3": 1, "1.1.2": 1, "1.2.3": 1, "1.2.2": 1}, steps
        assert all(world.statuses(uid)[-1] == "done" for uid in world.series), steps
        assert not any((world.folder / "state" / "results").iterdir()), steps
        # once its results are in the outbox a series is not segmented again
        assert sum(world.segmented.values()) <= 3, steps
        steps += 1
    assert steps > 30


def test_killed_again_and_again_it_comes_to_an_end(world: World) -> None:
    moments = random.Random(0)
    for _ in range(200):
        world.alive = moments.randrange(25)
        try:
            world.node().run(once=True)
            break
        except Killed:
            continue
    assert set(world.results.values()) == {1} and len(world.results) == 6


def test_results_are_left_where_there_is_no_destination(world: World) -> None:
    world.node(destination=False).run(once=True)
    assert not world.results
    kept = sorted(path.name for path in (world.folder / "state" / "results").iterdir())
    assert kept == ["1.1", "1.2", "1.3"]
    world.node(destination=False).run(once=True)
    assert len(world.lines()) == 9


def test_a_bad_series_is_named_once_and_not_tried_again(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.fail("segment", CannotBeSegmented("has slices missing; send all slices."), 1)
    node = world.node()
    node.run(once=True)
    world.node().run(once=True)
    assert node.failures == 1 and world.statuses("1.1") == ["started", "failed"]
    assert world.lines()[1]["reason"] == "has slices missing; send all slices."
    assert capsys.readouterr().err.count("has slices missing") == 1
    # with the slice that was missing it is another series
    world.series["1.1"] = 9
    world.node().run(once=True)
    assert world.statuses("1.1")[-1] == "done"


def test_what_is_nothing_to_segment_is_no_failure(world: World) -> None:
    world.fail("segment", NothingToSegment("it is a result of this software"), 1)
    node = world.node()
    node.run(once=True)
    assert node.failures == 0 and world.statuses("1.1") == ["started", "left out"]


@pytest.mark.parametrize("what", ["fetch", "reports", "deliver", "delivered", "grew"])
def test_a_server_that_fails_is_asked_again(world: World, what: str) -> None:
    world.fail(what, ServerError("The server cannot be reached."), 2)
    node = world.node()
    node.run(once=True)
    assert node.failures == 0 and set(world.results.values()) == {1} and len(world.results) == 6


@pytest.mark.parametrize("what", ["fetch", "deliver"])
def test_in_the_end_it_is_given_up_until_the_next_start(world: World, what: str) -> None:
    world.fail(what, ServerError("The server cannot be reached."), 3 * 3)
    node = world.node()
    node.run(once=True)
    assert node.failures == 3 and not world.results
    assert all(world.statuses(uid)[-1] == "gave up" for uid in world.series)
    world.node().run(once=True)
    assert set(world.results.values()) == {1} and len(world.results) == 6


def test_a_full_disk_is_not_the_fault_of_a_series(world: World) -> None:
    world.fail("segment", OSError(28, "No space left on device"), 1)
    node = world.node()
    node.run(once=True)
    assert node.failures == 0 and world.statuses("1.1")[-1] == "done"


def test_a_source_that_cannot_be_asked_ends_only_a_single_pass(world: World) -> None:
    world.fail("search", ServerError("The server cannot be reached."), 1)
    with pytest.raises(ServerError):
        world.node().run(once=True)
    world.fail("search", ServerError("The server cannot be reached."), 1)

    def enough(_: float) -> None:
        if len(world.results) == 6:
            raise KeyboardInterrupt

    node = world.node()
    node.sleep = enough
    with pytest.raises(KeyboardInterrupt):
        node.run()


def test_what_grows_while_it_is_segmented_is_done_as_a_whole(world: World) -> None:
    def grow() -> None:
        world.series["1.1"] = 9
        world.trouble.clear()

    world.trouble["segment"] = grow
    world.node().run(once=True)
    assert world.results["1.1.3"] == 1 and world.segmented["1.1"] == 2
    done = [line for line in world.lines() if line["status"] == "done" and line["series"] == "1.1"]
    assert [line["instances"] for line in done] == [9]


def test_what_grows_for_long_is_not_taken_for_one_that_ends_the_process(world: World) -> None:
    def grow() -> None:
        world.series["1.1"] = min(world.series["1.1"] + 1, 8 + MOST_STARTS + 2)

    world.trouble["grew"] = grow
    node = world.node()
    node.run(once=True)
    assert node.failures == 0 and world.statuses("1.1")[-3:] == ["started", "segmented", "done"]
    assert world.statuses("1.1").count("started") > MOST_STARTS


def test_one_that_ends_the_process_stands_in_nobodys_way(world: World) -> None:
    def end() -> None:
        if world.fetched == "1.1":
            raise Killed

    world.trouble["segment"] = end
    for start in range(MOST_STARTS):
        with pytest.raises(Killed):
            world.node().run(once=True)
        assert len(world.results) == (0 if start == 0 else 4)
    node = world.node()
    node.run(once=True)
    assert node.failures == 1 and world.statuses("1.1")[-1] == "failed"
    assert "may need more memory" in world.lines()[-1]["reason"]


def test_asked_to_end_it_says_so_in_the_journal(world: World) -> None:
    world.fail("segment", KeyboardInterrupt(), 1)
    with pytest.raises(KeyboardInterrupt):
        world.node().run(once=True)
    assert world.statuses("1.1") == ["started", "stopped"]
    assert not any((world.folder / "state" / "results").iterdir())
    world.node().run(once=True)
    assert len(world.results) == 6


def test_a_study_has_arrived_when_nothing_is_added_for_a_while() -> None:
    now = [0.0]
    completion = StudyCompletion(60.0, lambda: now[0])

    def at(seconds: float, *counts: int) -> bool:
        now[0] = seconds
        series = [ArrivedSeries("1", f"1.{number}", count) for number, count in enumerate(counts)]
        return completion.is_complete("1", series)

    assert not at(0, 5) and not at(59, 5)
    assert not at(60, 6)  # one more instance
    assert not at(119, 6) and not at(119.5, 6, 1)  # one more series
    assert not at(179, 6, 1) and at(180, 6, 1)


def test_pauses_double_and_have_an_end() -> None:
    now = [0.0]
    retries = Retries(4, 10.0, lambda: now[0])
    waits = []
    for _ in range(4):
        left = retries.failed("a")
        due = now[0]
        while not retries.due("a"):
            now[0] += 1.0
        waits.append((left, now[0] - due))
    assert waits == [(True, 10.0), (True, 20.0), (True, 40.0), (False, 80.0)]
    assert retries.due("b")
    for _ in range(100):
        retries.failed("c")
    now[0] += 899.0
    assert not retries.due("c")
    now[0] += 1.0
    assert retries.due("c")
