"""Ray's actors do what this machine's own processes do; what they die of costs its own case alone, after retries."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image

from bundle.inference.journal import read_journal
from bundle.phantoms import histology_phantom, xray_phantom
from tests.inference.test_workers import lost, references
from tests.support.ray_work import Unusable, Work

ray = pytest.importorskip("ray", reason="the package ray is not installed")

from bundle.inference.ray_actors import Actors, RayActors  # noqa: E402


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    ray.shutdown()


def test_poison_is_isolated_and_all_others_are_done(tmp_path: Path) -> None:
    cases = references("a", "poison", "b", "raises", "c")
    actors = RayActors(cases, Work(tmp_path), lost, jobs=2, actors=Actors())
    assert len(actors) == 5
    found = list(actors)
    assert sorted(one["id"] for one in found) == sorted(one.id for one in cases)  # none twice
    by_id = {one["id"]: one for one in found}
    assert {one for one in by_id if "process" in by_id[one]} == {"a", "b", "c"}
    assert by_id["poison"]["lost"].startswith("3 tries ended so: The actor died unexpectedly")
    assert by_id["raises"]["lost"] == "3 tries ended so: RuntimeError: of itself"
    tries = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert tries == {"a": 1, "b": 1, "c": 1, "poison": 3, "raises": 3}
    assert {one["threads"] for one in by_id.values() if "process" in one} == {1}
    assert os.getpid() not in {one.get("process") for one in found}
    assert not ray.is_initialized()


@pytest.mark.slow  # starts one after the other
def test_actors_that_cannot_begin_lose_every_case_and_end(tmp_path: Path) -> None:
    found = list(RayActors(references("a", "b"), Unusable(tmp_path), lost, jobs=1, actors=Actors()))
    assert [one["id"] for one in found] == ["a", "b"]
    assert all(one["lost"].startswith("no actor could be started for it: ") for one in found)


def test_nothing_to_do_starts_nothing(tmp_path: Path) -> None:
    assert list(RayActors([], Work(tmp_path), lost, jobs=2, actors=Actors())) == []
    assert not ray.is_initialized()


@pytest.mark.parametrize("values", [{"cpus": -1}, {"gpus": "2"}, {"memory": float("nan")}, {"cpus": True}])
def test_what_actors_get_is_a_number(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be a number of at least 0"):
        Actors(**values)


def test_gpus_follow_from_the_device_where_none_are_given() -> None:
    assert Actors().gpus_for(torch.device("cpu")) == 0
    assert Actors().gpus_for(torch.device("cuda", 1)) == 1
    assert Actors(gpus=0.25).gpus_for(torch.device("cpu")) == 0.25


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def quick_preview() -> None:
    """Real ones, since results are compared with those of other processes."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(6):
        phantom = histology_phantom(seed, size=64) if seed % 2 else xray_phantom(seed, size=64)
        Image.fromarray(phantom.image).save(folder / f"picture_{seed}.png")
    (folder / "broken.png").write_text("no picture")
    return folder


def contents(output: Path) -> dict[str, Any]:
    """Every file of the cases; reports without their time."""
    found: dict[str, Any] = {}
    for path in sorted(output.glob("*/*")):
        name = str(path.relative_to(output))
        is_report = path.name == "report.json"
        found[name] = {**json.loads(path.read_text()), "seconds": None} if is_report else path.read_bytes()
    return found


def actors_of(process: int) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if _is_actor(one) and _descends(one, process)]


def _is_actor(process: psutil.Process) -> bool:
    return any("ray::_Actor" in part for part in process.info["cmdline"] or ())


def _descends(process: psutil.Process, ancestor: int) -> bool:
    try:
        return ancestor in {parent.pid for parent in process.parents()}
    except psutil.NoSuchProcess:
        return False


def kill_an_actor(output: Path, killed: list[int]) -> Callable[[int], None]:
    """When the first case is done, one of the actors is killed, whatever it is at."""

    def watch(process: int) -> None:
        deadline = time.monotonic() + 240
        while not any(entry["status"] == "done" for entry in read_journal(output).entries):
            assert time.monotonic() < deadline and psutil.pid_exists(process)
            time.sleep(0.01)
        for one in actors_of(process)[:1]:
            one.kill()
            killed.append(one.pid)

    return watch


def test_a_killed_actor_costs_nothing_and_results_are_those_of_this_machine(
    commands: Any, tiny: Any, segment: Callable[..., int], pictures: Path, tmp_path: Path
) -> None:
    assert segment(pictures, "--output", tmp_path / "local") == 1
    output, killed = tmp_path / "ray", list[int]()
    network = ["--config", tiny.config, "--weights", tiny.random, "--steps", "2"]
    arguments = ["segment", pictures, "--output", output, *network, "--engine", "ray", "--jobs", 2]
    finished = commands("bundle", *arguments, watch=kill_an_actor(output, killed))
    assert finished.code == 1 and killed, finished
    assert "Traceback" not in finished.stderr
    assert contents(output) == contents(tmp_path / "local")
    runs = [json.loads((folder / "run.json").read_text()) for folder in (output, tmp_path / "local")]
    assert (runs[0]["engine"], runs[0]["actors"]) == ("ray", {"cpus": 1.0}) and "engine" not in runs[1]
    ours, theirs = ([{**case, "seconds": None} for case in run["cases"]] for run in runs)
    assert ours == theirs and len(ours) == 7
    assert [entry["id"] for entry in read_journal(output).entries].count("picture_3") == 1
    assert not list(output.glob(".*"))
    # resumed by the other engine
    (output / "picture_3" / "mask.png").unlink()
    stamp = (output / "picture_4" / "mask.png").stat().st_mtime_ns
    assert segment(pictures, "--output", output, "--resume") == 1
    assert contents(output) == contents(tmp_path / "local")
    assert (output / "picture_4" / "mask.png").stat().st_mtime_ns == stamp


def test_what_cannot_be_reached_starts_nothing(
    segment: Callable[..., int], pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    options = ["--output", tmp_path / "out", "--engine", "ray", "--ray-address", "auto"]
    assert segment(pictures, *options) == 2
    assert "auto: Ray could not be reached" in capsys.readouterr().err


@pytest.mark.slow
def test_a_machine_that_is_removed_costs_nothing(
    commands: Any, tiny: Any, segment: Callable[..., int], pictures: Path, tmp_path: Path
) -> None:
    from ray.cluster_utils import Cluster

    assert segment(pictures, "--output", tmp_path / "local") == 1
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    output, removed = tmp_path / "ray", list[bool]()

    def watch(process: int) -> None:
        deadline = time.monotonic() + 240
        while not any(entry["status"] == "done" for entry in read_journal(output).entries):
            assert time.monotonic() < deadline and psutil.pid_exists(process)
            time.sleep(0.01)
        cluster.remove_node(node, allow_graceful=False)
        removed.append(True)

    network = ["--config", tiny.config, "--weights", tiny.random, "--steps", "2"]
    arguments = ["segment", pictures, "--output", output, *network, "--engine", "ray", "--jobs", 2]
    try:
        finished = commands("bundle", *arguments, "--ray-address", cluster.address, watch=watch)
    finally:
        cluster.shutdown()
    assert finished.code == 1 and removed, finished
    assert contents(output) == contents(tmp_path / "local")
    assert len(json.loads((output / "run.json").read_text())["cases"]) == 7
