"""What a request to the MONAI Label server may say: checked before any of it reaches a configuration or a path.

MONAI Label hands the fields of a request on as they came: to its configuration parser, which evaluates them, to
`torch.load` and to file names. Here each field that is needed is checked, and the others are left out.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Of an image, a label or a session.
MAX_ID = 200
#: Characters of a prompt; the network's own limit, in tokens, lies far below and is told in a warning.
MAX_PROMPT = 1_000_000
MAX_EPOCHS = 1000
#: Files in an archive.
MAX_MEMBERS = 50_000

_TAG = re.compile(r"[A-Za-z0-9_-]{1,50}")
_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WEIGHTS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}\.pt")
_SHOWN = 60


class RequestError(ValueError):
    """A request that is not carried out: one sentence for who sent it."""


def checked_id(value: Any, what: str = "image") -> str:
    """The id of an image or label, as the name of a file.

    Raises:
        RequestError: it is none, or could lead out of the folder of the images.
    """
    if not isinstance(value, str) or not value:
        raise RequestError(f"The {what} has no id; name one that /datastore/?output=all lists.")
    if len(value) > MAX_ID:
        raise RequestError(f"The id of the {what} has {len(value)} characters; use at most {MAX_ID}.")
    unprintable = any(unicodedata.category(letter)[0] == "C" for letter in value)
    if unprintable or value.startswith((".", "~")) or any(letter in value for letter in "/\\:"):
        raise RequestError(
            f"The id of the {what}, {_shown(value)}, is no plain file name; leave out path separators, colons, "
            "control characters and a dot in front."
        )
    return value


def checked_session(value: Any) -> str:
    """The id of a session, as the server gives it.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(value, str) or not _SESSION.fullmatch(value):
        raise RequestError(
            f"{_shown(value)} is no id of a session; take the one that PUT /session/ answered."
        )
    return value


def checked_tag(value: Any) -> str:
    """The tag of a label, which names a folder.

    Raises:
        RequestError: it has other characters than letters, digits, _ and -.
    """
    if not isinstance(value, str) or not _TAG.fullmatch(value):
        raise RequestError(
            f"The tag {_shown(value)} is not known; use letters, digits, _ and -, as in 'original'."
        )
    return value


def checked_archive(path: Path, most_bytes: int) -> None:
    """An archive that is sent as a session, before it is unpacked.

    Raises:
        RequestError: it is no ZIP, cannot be read, or unpacks to too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        raise RequestError("The archive is no ZIP that can be read; pack the files again.") from None
    if len(members) > MAX_MEMBERS:
        raise RequestError(f"The archive has {len(members):,} files; send at most {MAX_MEMBERS:,}.")
    # zipfile unpacks no more of a member than its entry says
    unpacked = sum(member.file_size for member in members)
    if unpacked > most_bytes:
        raise RequestError(
            f"The archive unpacks to {unpacked / 2**20:,.0f} MB; send at most {most_bytes / 2**20:,.0f} MB."
        )


def checked_inference(
    request: Mapping[str, Any], devices: Mapping[str, str], weights: Collection[str]
) -> dict[str, Any]:
    """The fields of a request that inference uses.

    'image' is passed on as it is: whether it is an id or a file that the server itself received is for the caller.

    Args:
        devices: name -> device of torch.
        weights: names of files that may be chosen.

    Raises:
        RequestError: a field has a value that it cannot have.
    """
    checked = {key: request[key] for key in ("model", "image") if key in request}
    prompt = request.get("prompt")
    if prompt is not None:
        if not isinstance(prompt, str):
            raise RequestError(f"The prompt is {type(prompt).__name__}; send it as a string.")
        if len(prompt) > MAX_PROMPT:
            raise RequestError(f"The prompt has {len(prompt):,} characters; send at most {MAX_PROMPT:,}.")
        checked["prompt"] = prompt
    for key in ("modality", "result_extension"):
        if request.get(key):
            checked[key] = request[key]  # one of a few, see `bundle.transforms.LoadCased`
    if request.get("label_tag"):
        checked["label_tag"] = checked_tag(request["label_tag"])
    for key in ("save_label", "result_compress"):
        if key in request:
            checked[key] = _truth(key, request[key])
    checked["device"] = checked_device(request.get("device"), devices)
    chosen = _first(request.get("model_filename"))
    if chosen:
        checked["model_filename"] = checked_weights(chosen, weights)
    return checked


def checked_device(wanted: Any, devices: Mapping[str, str]) -> str:
    """A device of torch; the first there is where none is asked for, or a GPU where there is none.

    Raises:
        RequestError: the server has no such device.
    """
    wanted = _first(wanted)
    known = {**devices, **{device: device for device in devices.values()}}
    if not wanted or (wanted == "cuda" and wanted not in known):
        return next(iter(devices.values()))
    if not isinstance(wanted, str) or wanted not in known:
        raise RequestError(f"The device {_shown(wanted)} is not there; ask for one of {', '.join(known)}.")
    return known[wanted]


def checked_weights(value: Any, known: Collection[str]) -> str:
    """The name of a file in the bundle's folder of models.

    Raises:
        RequestError: there is none of that name.
    """
    if not isinstance(value, str) or not _WEIGHTS.fullmatch(value) or value not in known:
        raise RequestError(
            f"There are no weights {_shown(value)}; ask for one of {', '.join(sorted(known)) or 'none'}."
        )
    return value


@dataclass(frozen=True)
class TrainingRequest:
    """What a training may be asked for.

    Attributes:
        weights: to start from; None for random ones.
        validation_share: of the labelled images, that choose the epoch whose weights are kept.
        images_per_epoch: slices and pictures.
    """

    epochs: int
    validation_share: float
    weights: str | None
    device: str
    images_per_epoch: int
    learning_rate: float


#: Options that viewers show, with their values.
TRAINING_OPTIONS: dict[str, Any] = {
    "max_epochs": 10,
    "val_split": 0.2,
    "pretrained": True,
    "images_per_epoch": 400,
    "learning_rate": 1e-4,
}


def checked_training(
    request: Mapping[str, Any], devices: Mapping[str, str], weights: Collection[str]
) -> TrainingRequest:
    """The fields of a request that training uses; numbers are numbers, not what could be evaluated to some.

    Raises:
        RequestError: a field has a value that it cannot have.
    """
    given = {**TRAINING_OPTIONS, **{key: request[key] for key in TRAINING_OPTIONS if key in request}}
    chosen = None
    if _truth("pretrained", given["pretrained"]):
        chosen = checked_weights(_first(request.get("model_filename")) or "model.pt", weights)
    return TrainingRequest(
        epochs=checked_whole("max_epochs", given["max_epochs"], 1, MAX_EPOCHS),
        validation_share=float(_number("val_split", given["val_split"], 0.0, 0.9)),
        weights=chosen,
        device=checked_device(request.get("device"), devices),
        images_per_epoch=checked_whole("images_per_epoch", given["images_per_epoch"], 16, 1_000_000),
        learning_rate=float(_number("learning_rate", given["learning_rate"], 1e-8, 1.0)),
    )


def checked_whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number.

    Raises:
        RequestError: it is none, or lies outside its range.
    """
    return int(_number(name, value, low, high, whole=True))


def _number(name: str, value: Any, low: float, high: float, whole: bool = False) -> int | float:
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise RequestError(f"{name} is {_shown(value)}; send {kind} from {low:g} to {high:g}.")
    return value


def _truth(name: str, value: Any) -> bool:
    spelled = {"true": True, "false": False}
    if isinstance(value, str) and value.lower() in spelled:
        return spelled[value.lower()]
    if not isinstance(value, bool):
        raise RequestError(f"{name} is {_shown(value)}; send true or false.")
    return value


def _first(value: Any) -> Any:
    """Viewers send back the whole list of choices where the user made none."""
    return (value[0] if value else None) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
