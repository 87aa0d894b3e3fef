"""Weights come from files that anyone may have made: nothing in them is run, and they fit wholly or not at all."""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bundle.cases.errors import CaseError

_LOGGER = logging.getLogger(__name__)


class WeightsError(ValueError):
    """Weights that cannot be used, in one sentence."""


def check_complete(expected: Mapping[str, Tensor], given: Mapping[str, Any], source: str = "weights") -> None:
    """Refuse weights that do not fit key for key and shape for shape.

    Raises:
        WeightsError: names the first misfit of each kind and how many there are.
    """
    problems = []
    missing = [key for key in expected if key not in given]
    unknown = [key for key in given if key not in expected]
    shapes = [
        f"{key} is {tuple(getattr(given[key], 'shape', ()))} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in given and getattr(given[key], "shape", None) != tensor.shape
    ]
    if missing:
        problems.append(f"{len(missing)} tensors are missing, first {missing[0]}")
    if unknown:
        problems.append(f"{len(unknown)} are unknown, first {unknown[0]}")
    if shapes:
        problems.append(f"{len(shapes)} have another shape, first {shapes[0]}")
    if problems:
        raise WeightsError(
            f"{source}: {'; '.join(problems)}; give the weights that belong to this network's configuration."
        )


class WholeNetwork(nn.Module):
    """A network that takes weights wholly or not at all, also where a caller asks for leniency."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As in PyTorch, and always strict.

        Raises:
            WeightsError: one sentence that names what is missing, unknown or of another shape.
        """
        check_complete(self.state_dict(), state_dict)
        return super().load_state_dict(state_dict, strict=True, assign=assign)


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Read a state dict without running anything that the file holds.

    Args:
        path: a .pt file with a plain state dict, or a training checkpoint of this project, whose averaged
            weights are taken.

    Raises:
        WeightsError: no such file, not a checkpoint, or objects other than tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; check the path or train a model first.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds objects other than tensors, or is damaged, and was not loaded; "
            "save the network's state_dict() with torch.save."
        ) from error
    except Exception as error:  # torch raises a dozen kinds for damaged files
        raise WeightsError(f"{path}: is not a readable PyTorch file; copy or download it again.") from error
    if isinstance(content, dict) and "optimizer" in content and isinstance(content.get("averaged"), dict):
        content = {
            str(key).removeprefix("module."): value
            for key, value in content["averaged"].items()
            if key != "n_averaged"
        }
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path}: holds no state dict; save the network's state_dict() with torch.save.")
    # up to version 0.9 the text conditioning was called guidance
    return {re.sub(r"^guidance\.", "text_conditioning.", str(key)): value for key, value in content.items()}


def usable_device(device: torch.device | str) -> torch.device:
    """A device that is there.

    Raises:
        CaseError: it is not, or it is none that torch knows.
    """
    try:
        known = torch.device(device)
    except RuntimeError as error:
        raise CaseError("device", f"{device!r} is not known", "give cpu, cuda, cuda:1, ...") from error
    if known.type == "cuda" and (known.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        problem = f"{known} is not there, since torch {torch.__version__} finds {found or 'no'} CUDA devices"
        raise CaseError("device", problem, "give cpu or another, or leave it out")
    return known


def load_weights(network: nn.Module, path: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """Fill a network from a file and return it on a device, ready for inference.

    Raises:
        WeightsError: see `read_state_dict` and `check_complete`.
        CaseError: see `usable_device`.
    """
    device = usable_device(device)
    state = read_state_dict(path)
    check_complete(network.state_dict(), state, str(path))
    for key, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(
                f"{path}: {key} holds values that are not finite; train again or use other weights."
            )
    network.load_state_dict(state)
    return move_to(network, device).eval()


def start_from(
    network: nn.Module,
    path: Path | str | None = None,
    device: torch.device | str = "cpu",
    channels_last: bool = True,
    frozen: Sequence[str] = (),
    inherit: bool = False,
) -> nn.Module:
    """The network on a device, as training starts with it: from a file, or as it was made.

    Args:
        frozen: names of parts that stay as they are, or of parts of these, e.g. 'image_prior.lite.stem'.
        inherit: the file is of another network; take what both have, by name and shape, see `take_what_fits`.

    Raises:
        WeightsError: see `load_weights`.
        ValueError: there is no such part.
    """
    if path is not None and inherit:
        take_what_fits(network, path)
    elif path is not None:
        load_weights(network, path)
    parts = dict(network.named_children())
    for name in frozen:
        try:
            part = network.get_submodule(name) if name else None
        except AttributeError:
            part = None
        if part is None:
            raise ValueError(f"frozen_parts: {name!r} is none of {', '.join(parts)}, and no part of these")
        part.requires_grad_(False)
    return move_to(network, device, channels_last).train()


def take_what_fits(network: nn.Module, path: Path | str) -> list[str]:
    """Take from a file the tensors that have a name and a shape of the network's; all else stays as it was made.

    For a network that a part was changed of: what the rest has learnt is worth keeping.

    Returns:
        the names of the network's tensors that the file has none for.

    Raises:
        WeightsError: see `read_state_dict`; or there is not one such tensor.
    """
    given, own = read_state_dict(path), network.state_dict()
    fitting = {
        key: given[key] for key, tensor in own.items() if key in given and given[key].shape == tensor.shape
    }
    if not fitting:
        raise WeightsError(f"{path}: holds no tensor of this network; give the weights of a similar one.")
    network.load_state_dict({**own, **fitting})
    left = [key for key in own if key not in fitting]
    _LOGGER.info(
        "%d of %d tensors were taken from %s; not so %s", len(fitting), len(own), path, ", ".join(left)
    )
    return left


def move_to(network: nn.Module, device: torch.device | str, channels_last: bool = True) -> nn.Module:
    """The network on a device, in the memory layout its convolutions are fastest in.

    Convolutions alone are fastest with channels last; many group normalisations between them turn the tables.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return network.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
