"""What the tests of the PACS node share: series to send, and an Orthanc on loopback where it is installed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests

from bundle.commands.main import main
from bundle.commands.pacs_node import TALKATIVE
from tests.support.pacs_node import free_port, wait_for

# Debian has it among the commands of the administrator.
ORTHANC = shutil.which("Orthanc", path=os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/usr/local/sbin")))
DICOMWEB_PLUGIN = next(
    (
        path
        for folder in ("/usr/share/orthanc/plugins", "/usr/lib/orthanc")
        for path in sorted(Path(folder).glob("libOrthancDicomWeb.so*"))
    ),
    None,
)


@dataclass
class Orthanc:
    """A running Orthanc; `listener` is the port at which it expects the application entity BUNDLE."""

    http: int
    dicom: int
    listener: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    def post(self, path: str, data: Any) -> Any:
        answer = requests.post(f"{self.url}{path}", data=data, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def store(self, folder: Path) -> str:
        """Store the files of a study; returns Orthanc's own id of it."""
        for path in sorted(folder.iterdir()):
            answer = self.post("/instances", path.read_bytes())
        return str(answer["ParentStudy"])

    def find(self, study: str, modality: str) -> list[pydicom.Dataset]:
        """All objects of a modality in a study, as Orthanc has them on its disk."""
        query = {
            "Level": "Instance",
            "Query": {"StudyInstanceUID": study, "Modality": modality},
        }
        found = self.post("/tools/find", json.dumps(query))
        files = [requests.get(f"{self.url}/instances/{one}/file", timeout=60).content for one in found]
        return [pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)) for content in files]


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    if ORTHANC is None or DICOMWEB_PLUGIN is None:
        pytest.skip("Orthanc and its DICOMweb plugin are not installed; run `make orthanc`")
    folder = tmp_path_factory.mktemp("orthanc")
    server = Orthanc(free_port(), free_port(), free_port())
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": server.http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": server.dicom,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True,
        "DicomAlwaysAllowStore": False,
        "DicomModalities": {"bundle": ["BUNDLE", "127.0.0.1", server.listener]},
        "OverwriteInstances": False,
        "Plugins": [str(DICOMWEB_PLUGIN)],
        "DicomWeb": {"Enable": True},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        wait_for(lambda: _answers(f"{server.dicomweb}/studies"), 60)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture
def openssl() -> str:
    """The command that makes certificates."""
    command = shutil.which("openssl")
    if command is None:
        pytest.skip("openssl, which makes the certificates, is not installed")
    return command


@pytest.fixture
def pacs(tiny: Any) -> Iterator[Callable[..., int]]:
    """Run `python -m bundle pacs` in this process, with the small network; returns the exit code."""
    level, handler = logging.root.manager.disable, signal.getsignal(signal.SIGTERM)
    loggers = {name: logging.getLogger(name).level for name in TALKATIVE}

    def run(*arguments: object) -> int:
        network = ["--config", tiny.config, "--weights", tiny.random, "--device", "cpu"]
        return main(["pacs", *map(str, arguments), *map(str, network)])

    yield run
    logging.disable(level)
    signal.signal(signal.SIGTERM, handler)
    for name, was in loggers.items():
        logging.getLogger(name).setLevel(was)
