"""Shared by all tests: small phantoms, a small network with random and with trained weights, and commands."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock
from monai.bundle import ConfigWorkflow

from bundle.commands.main import main
from bundle.phantoms import write_phantoms
from tests.support.quick_preview import use_quick_preview

# Small tensors are done sooner by one thread than shared among many, and tests run side by side.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
#: Of the network and of the grids it works on; everything else is as in configs/.
TINY: dict[str, Any] = {
    "denoiser_width": 16,
    "upsample_widths": [8],
    "read_text": False,
    "steps": 2,
    "ct#spacing": [8.0, 8.0, 20.0],
    "ct#temperature": 1.0,
    "xray#size": 64,
    "xray#mirrored": False,
    "xray#temperature": 1.0,
    "histology#zoom": 0.5,
    "histology#resolution": 0.5,
    "histology#temperature": 1.0,
    "progress": False,
    "device": "$torch.device('cpu')",
}
SIZES: dict[Any, dict[str, Any]] = {
    "CT": {"shape": (48, 40, 10), "spacing": (8.0, 8.0, 20.0)},
    "X-ray": {"size": 96},
    "H&E": {"size": 128},
}
SPLITS = {"training": range(3), "validation": range(10, 12), "test": range(20, 23)}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
# Starting Python with torch and MONAI takes far longer than most commands. This process has them loaded and
# forks for each command, which then does to the letter what `python -m` does.
COMMAND_SERVER = """
import json, os, runpy, signal, sys
import monai.bundle, torch, torch.utils.tensorboard
import bundle.inference, bundle.learning, bundle.networks, bundle.scoring, bundle.__main__
torch.set_num_threads(1)
replies = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        # as in a terminal: tests that run in the background of a script inherit that it is ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, name in enumerate((os.devnull, *request["outputs"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        break
    print(child, file=replies, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=replies, flush=True)
else:
    os._exit(0)
sys.argv = ["", *request["arguments"]]
runpy._run_module_as_main(request["module"], alter_argv=True)
"""


@dataclass(frozen=True)
class Finished:
    """A command that has ended; `code` is negative where a signal ended it."""

    code: int
    stdout: str
    stderr: str


class Commands:
    """Runs `python -m MODULE ARGUMENTS...` from the bundle root, each in a process of its own."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def __call__(
        self, module: str, *arguments: object, watch: Callable[[int], None] | None = None
    ) -> Finished:
        """Run a command to its end.

        Args:
            watch: called with the process id while the command runs, to interrupt it.
        """
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-c", COMMAND_SERVER],
                cwd=ROOT,
                env=ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._server.stdin is not None and self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            outputs = [Path(folder, "stdout"), Path(folder, "stderr")]
            request = {
                "module": module,
                "arguments": list(map(str, arguments)),
                "outputs": list(map(str, outputs)),
            }
            print(json.dumps(request), file=self._server.stdin, flush=True)
            process = int(self._server.stdout.readline())
            if watch is not None:
                try:
                    watch(process)
                except BaseException:
                    os.kill(process, signal.SIGKILL)
                    self._server.stdout.readline()  # its exit code, which the next command would take for its own
                    raise
            code = int(self._server.stdout.readline())
            return Finished(code, *(path.read_text(encoding="utf-8") for path in outputs))

    @staticmethod
    def fresh(module: str, *arguments: object) -> Finished:
        """Run a command in a newly started Python."""
        command = [sys.executable, "-m", module, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        return Finished(done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.close()
            self._server.wait()


@dataclass(frozen=True)
class Tiny:
    """Files of a small network.

    Attributes:
        config: to be put last in a list of configuration files.
        random, trained: weights; the trained ones have seen H&E phantoms for some seconds.
    """

    config: Path
    random: Path
    trained: Path


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    commands = Commands()
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def tiny_settings() -> dict[str, Any]:
    return TINY


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make a folder once for all processes that share in a run of the tests: (name, what fills it)."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        folder = root / "shared" / name
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (done := folder.with_suffix(".done")).exists():
                fill(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def phantoms(made_once: Callable[..., Path]) -> dict[str, Path]:
    """Modality -> datalist of small phantoms with the three splits."""
    folders: dict[Any, str] = {"CT": "ct", "X-ray": "xray", "H&E": "histology"}

    def fill(root: Path) -> None:
        for modality, folder in folders.items():
            for split, seeds in SPLITS.items():
                write_phantoms(root / folder, modality, seeds, split=split, **SIZES[modality])

    root = made_once("phantoms", fill)
    return {modality: root / folder / "datalist.json" for modality, folder in folders.items()}


@pytest.fixture(scope="session")
def workflow() -> Callable[..., ConfigWorkflow]:
    """Make an initialised workflow of the small network in this process: (configuration file, overrides)."""

    def make(config: str, **overrides: Any) -> ConfigWorkflow:
        made = ConfigWorkflow(
            config_file=[str(CONFIGS / name) for name in dict.fromkeys(("inference.yaml", config))],
            meta_file=str(CONFIGS / "metadata.json"),
            logging_file=False,
            workflow_type="train" if config == "train.yaml" else "inference",
            **{**TINY, "bundle_root": str(ROOT), **overrides},
        )
        made.initialize()
        return made

    return make


@pytest.fixture(scope="session")
def tiny(
    made_once: Callable[..., Path], phantoms: dict[str, Path], workflow: Callable[..., ConfigWorkflow]
) -> Tiny:
    def files(folder: Path) -> Tiny:
        return Tiny(folder / "tiny.yaml", folder / "random.pt", folder / "training" / "model.pt")

    def fill(folder: Path) -> None:
        made = files(folder)
        made.config.write_text(yaml.safe_dump(TINY))
        torch.manual_seed(0)
        network = workflow("inference.yaml").parser.get_parsed_content("network_def")
        torch.save(network.state_dict(), made.random)
        workflow(
            "train.yaml",
            datalist=str(phantoms["H&E"]),
            output_dir=str(made.trained.parent),
            image_size=64,
            images_per_epoch=480,
            batch_size=4,
            epochs=1,
            warmup_steps=5,
            learning_rate=3e-3,
            average_decay=0.95,
            bfloat16=False,
            num_workers=0,
        ).run()

    return files(made_once("tiny", fill))


@pytest.fixture
def quick_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    use_quick_preview(monkeypatch)


@pytest.fixture
def segment(tiny: Tiny, quick_preview: None) -> Iterator[Callable[..., int]]:
    """Run `python -m bundle segment` in this process, with the small network; returns the exit code."""
    level = logging.root.manager.disable

    def run(*arguments: object, weights: Path | None = None) -> int:
        network = ["--config", tiny.config, "--weights", weights or tiny.random, "--device", "cpu"]
        try:
            return main(["segment", *map(str, network), *map(str, arguments)])
        except SystemExit as stop:
            return int(stop.code or 0)

    yield run
    logging.disable(level)
