"""MONAI Label's server with the bundle: started as `make label` does, asked, and stopped."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import requests
from numpy.typing import NDArray
from PIL import Image

from bundle.commands.main import main
from tests.conftest import ENVIRONMENT
from tests.support.pacs_node import free_port, wait_for

#: That a request may have.
LARGEST_MB = 8
MODEL = "text_prior_diffusion_segmentation"
PROMPTS = [
    "liver", "spleen", "aorta", "the left kidney", "nuclei", "pancreas and stomach", "lung", "gallbladder",
    "right kidney", "bilateral pulmonary infection", "liver and spleen", "segment everything", "stomach",
    "the aorta of this patient", "kidneys", "no finding",
]  # fmt: skip
#: To whoever evaluates them; the file would lie in the server's own folder.
HOSTILE = [
    "$__import__('pathlib').Path('touched').touch()",
    "@network_def",
    "%network_def",
    "spleen#1",
    "a, b",
]


@dataclass
class Server:
    """A running server; `root` is its bundle, `studies` its images."""

    root: Path
    studies: Path
    home: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def infer(
        self, image: str = "", /, output: str = "image", session: str = "", **params: Any
    ) -> requests.Response:
        return requests.post(
            f"{self.url}/infer/{MODEL}",
            params={"image": image, "output": output, **({"session_id": session} if session else {})},
            data={"params": json.dumps(params)},
            timeout=300,
        )

    def mask(self, image: str = "", /, **options: Any) -> NDArray[np.uint8]:
        answer = self.infer(image, **options)
        assert answer.status_code == 200, answer.text
        return read(answer.content)


def read(content: bytes) -> NDArray[np.uint8]:
    """A mask as it was sent, in the axes of `bundle segment`'s own."""
    if content[:2] == b"\x1f\x8b":
        return np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
    return np.asarray(Image.open(io.BytesIO(content)))


def started(root: Path, studies: Path | str, home: Path) -> Iterator[Server]:
    server = Server(root, Path(studies), home, free_port())
    log = home.with_suffix(".log")
    # in a folder of its own, in which a touched file would show
    environment = {**ENVIRONMENT, "LABEL_HOME": str(home), "LABEL_MAX_MB": str(LARGEST_MB)}
    command = [str(root / "scripts" / "serve_monai_label.sh"), str(studies), str(server.port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        wait_for(lambda: process.poll() is not None or "Uvicorn running" in log.read_text(), 300)
        assert process.poll() is None, log.read_text()[-3000:]
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def segment(root: Path, source: Path, output: Path, *options: object) -> None:
    """Run the command with a bundle's weights, and with its small network where it has one."""
    small = root / "tiny.yaml"
    network = ["--weights", root / "models" / "model.pt", "--device", "cpu"]
    network += ["--config", small] if small.exists() else []
    assert main([str(one) for one in ("segment", source, "--output", output, *network, *options)]) == 0


def mask_below(folder: Path) -> NDArray[np.uint8]:
    [written] = [*folder.rglob("mask.nii.gz"), *folder.rglob("mask.png")]
    return read(written.read_bytes())


def session(server: Server, folder: Path, packed: bool) -> str:
    paths = sorted(folder.iterdir())
    sent = [("files", (path.name, path.read_bytes())) for path in paths]
    if packed:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for path in paths:
                archive.write(path, f"series/{path.name}")
        sent = [("files", ("series.zip", stream.getvalue()))]
    answer = requests.put(f"{server.url}/session/", params={"uncompress": packed}, files=sent, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["session_id"])
