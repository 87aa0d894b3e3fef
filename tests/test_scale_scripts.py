"""What starts parts on clusters does what it says, run as the schedulers run it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from bundle.commands.main import main
from bundle.phantoms import xray_phantom
from tests.conftest import ENVIRONMENT

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def films(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for seed in range(3):
        Image.fromarray(xray_phantom(seed, size=64).image).save(tmp_path / "in" / f"film_{seed}.png")
    return tmp_path / "in"


def test_tasks_of_a_slurm_array_are_parts(tiny: Any, films: Path, tmp_path: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m bundle"
    network = ["--config", str(tiny.config), "--weights", str(tiny.random)]
    for task in (1, 2):
        slurm = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "1"}
        done = subprocess.run(
            [SCRIPTS / "slurm_array.sh", films, tmp_path / "out", *network],
            env={**ENVIRONMENT, **slurm, "TPSEG": command},
            cwd=SCRIPTS.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 and done.stdout.startswith(f"part {task}/2: "), done
    assert main(["merge", str(tmp_path / "out")]) == 0
    assert len(json.loads((tmp_path / "out" / "run.json").read_text())["cases"]) == 3


@pytest.mark.parametrize("arguments", [[], ["in"], ["in", "out"]])
def test_the_slurm_script_says_what_it_needs(arguments: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run(
        [SCRIPTS / "slurm_array.sh", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ")


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 0), (2, 1), (130, 1), (137, 1)])
def test_pods_of_the_job_are_parts(tmp_path: Path, code: int, expected: int) -> None:
    """Of exit codes, 1 says that cases failed: a pod that did it again would fail with them again."""
    job = yaml.safe_load((SCRIPTS / "kubernetes_job.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    stand_in = tmp_path / "tpseg"
    stand_in.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        [*container["command"], *container["args"]],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected
    assert f"--part 8/{job['completions']} " in done.stdout


def test_the_cluster_file_is_one() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util", reason="the package ray is not installed")
    content = yaml.safe_load((SCRIPTS / "ray_cluster.yaml").read_text())
    util.validate_config(util.prepare_config(content))
