"""Checkpoints a training can be killed at any moment and go on from, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from bundle.atomic import write_atomically
from bundle.networks.weights import WeightsError
from bundle.settings import differences


class Stateful(Protocol):
    """Whatever has a state dict: networks, optimisers, schedules."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def save_whole(content: Any, path: Path) -> None:
    """Save so that under the final name there is never half a file, even if the process is killed."""
    with write_atomically(path) as temporary:
        torch.save(content, temporary)


def save_checkpoint(
    path: Path,
    parts: Mapping[str, Stateful],
    progress: Mapping[str, float | int],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Save everything a training consists of.

    Args:
        parts: name -> network, averaged network, optimizer, ...
        progress: epoch, best metric and the like.
        settings: see `load_checkpoint`.
    """
    states = {name: part.state_dict() for name, part in parts.items()}
    save_whole({**states, "progress": dict(progress), "settings": dict(settings or {})}, path)


def load_checkpoint(
    path: Path, parts: Mapping[str, Stateful], settings: Mapping[str, Any] | None = None
) -> dict[str, float | int]:
    """Fill `parts` from a checkpoint and return its progress.

    Args:
        settings: what must be as it was when the checkpoint was saved.

    Raises:
        WeightsError: not a checkpoint of this training.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for damaged files
        raise WeightsError(f"{path}: is not a readable checkpoint; delete it to start anew.") from error
    missing = [name for name in [*parts, "progress"] if not isinstance(content, dict) or name not in content]
    if missing:
        raise WeightsError(f"{path}: holds no {missing[0]}; it is not a checkpoint of this training.")
    for name, before, value in differences(content.get("settings", {}), settings or {}):
        raise WeightsError(
            f"{path}: was trained with {name} {before}, not {value}; go on with "
            f"{name} {before}, or give another output_dir."
        )
    for name, part in parts.items():
        try:
            part.load_state_dict(content[name])
        except WeightsError:  # a sentence of its own
            raise
        except (ValueError, RuntimeError, KeyError) as error:
            raise WeightsError(
                f"{path}: its {name} does not fit; give the configuration it was trained with, or another "
                "output_dir."
            ) from error
    progress: dict[str, float | int] = content["progress"]
    return progress
