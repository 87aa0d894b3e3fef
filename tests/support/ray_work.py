"""What Ray's actors do in tests; in a module of its own, which they import."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Work:
    """Notes each try in a folder; 'poison' kills its process, 'raises' raises."""

    folder: Path

    def on(self, device: torch.device) -> Work:
        assert device.type == "cpu"
        return self

    def __call__(self, reference: Any) -> dict[str, Any]:
        tries = self.folder / reference.id
        with tries.open("a") as stream:
            stream.write("x")
        if reference.id == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if reference.id == "raises":
            raise RuntimeError("of itself")
        return {"id": reference.id, "process": os.getpid(), "threads": torch.get_num_threads()}


@dataclass(frozen=True)
class Unusable(Work):
    """Cannot be made where the actors are."""

    def on(self, device: torch.device) -> Work:
        raise RuntimeError("no such device")
