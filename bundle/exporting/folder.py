"""A folder with the graphs of a network and all that a program needs to run them: what is in it, and its reading.

    export.json           what follows, see `read_export`
    text_prior.onnx       token ids, mask -> tokens, pooled vector, log-odds of the names     once a prompt
    image_prior.onnx      image, tokens, mask -> conditions                                   once an image
    denoiser.onnx         noisy mask, log-SNR, conditions -> logits of the clean mask         once a step
    tokenizer/            tokenizer.json and its configuration

With the format torch-export the graphs end in .pt2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import jsonschema

from bundle.diffusion.sampling import Sampling
from bundle.networks.weights import WeightsError, file_sha256

ExportFormat = Literal["onnx", "torch-export"]
DESCRIPTION, TOKENIZER = "export.json", "tokenizer"
#: Of export.json itself; a runner refuses others.
LAYOUT_VERSION = 3
SUFFIXES: Mapping[ExportFormat, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
GRAPHS = ("text_prior", "image_prior", "denoiser")
_COUNT = {"type": "integer", "minimum": 1}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_GRAPH = {
    "type": "object",
    "properties": {"sha256": _SHA256, "inputs": _NAMES, "outputs": _NAMES},
    "required": ["sha256", "inputs", "outputs"],
}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "layout_version": {"const": LAYOUT_VERSION},
        "format": {"enum": list(get_args(ExportFormat))},
        "quantised": {"type": "boolean"},
        "network": {
            "type": "object",
            "properties": {
                "classes": _COUNT,
                "stride": _COUNT,
                "mask_stride": _COUNT,
                "schedule": {
                    "type": "object",
                    "properties": {"name": {"const": "cosine"}, "shift": {"type": "number"}},
                    "required": ["name", "shift"],
                },
                "names_structures": {"type": "boolean"},
                "max_tokens": {"type": ["integer", "null"], "minimum": 3},
            },
            "required": ["classes", "stride", "mask_stride", "schedule", "names_structures", "max_tokens"],
        },
        "graphs": {
            "type": "object",
            "properties": dict.fromkeys(GRAPHS, _GRAPH),
            "required": ["image_prior", "denoiser"],
            "additionalProperties": False,
        },
        "settings": {"type": "object", "required": [field.name for field in fields(Sampling)]},
        "weights": {"type": "object", "properties": {"sha256": _SHA256}, "required": ["sha256"]},
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": [
        "layout_version",
        "format",
        "quantised",
        "network",
        "graphs",
        "settings",
        "weights",
        "versions",
    ],
}


@dataclass(frozen=True)
class Export:
    """An exported folder.

    Attributes:
        folder: where it lies.
        content: of export.json, which says nothing about paths: the names of files are fixed.
    """

    folder: Path
    content: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Values by ids of configs/inference.yaml, see `bundle.settings.export_settings_of`."""
        settings: Mapping[str, Any] = self.content["settings"]
        return settings

    @property
    def network(self) -> Mapping[str, Any]:
        """What the graphs do not say themselves."""
        network: Mapping[str, Any] = self.content["network"]
        return network

    def graph(self, name: str) -> bytes:
        """A graph's file, whole as it was written.

        Raises:
            WeightsError: it is missing or another.
        """
        path = self.folder / f"{name}{SUFFIXES[self.content['format']]}"
        if not path.is_file():
            raise WeightsError(f"{path}: is missing; copy the folder again or export again.")
        if file_sha256(path) != self.content["graphs"][name]["sha256"]:
            raise WeightsError(f"{path}: is not the file that {DESCRIPTION} tells of; export again.")
        return path.read_bytes()


def read_export(folder: Path | str) -> Export:
    """What an exported folder says of itself; nothing in it is run.

    Raises:
        WeightsError: no such folder, or its export.json is missing, damaged or of another version.
    """
    path = Path(folder) / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(content, _SCHEMA)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read; give a folder that `tpseg export` wrote.") from error
    except ValueError as error:
        raise WeightsError(f"{path}: is damaged ({error}); export again.") from error
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "it"
        reason = error.message if len(error.message) < 120 else f"fails {error.validator!r}"
        raise WeightsError(
            f"{path}: {place} does not fit ({reason}); export again with this version."
        ) from error
    return Export(Path(folder), content)


def check_packages(*names: str) -> None:
    """Say how to install what is missing.

    Raises:
        WeightsError: a package is.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise WeightsError(f"ONNX needs {', '.join(missing)}; pip install '.[export]' brings what is needed.")
