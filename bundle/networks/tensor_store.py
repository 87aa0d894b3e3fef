"""What frozen encoders made of an input, kept in memory and, where a folder is named, on disk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bundle.atomic import write_atomically


class TensorStore:
    """Tensors by key: the last used ones in memory, all of them on disk if a folder is given.

    Copies of a store are the store itself: the averaged copy of a network shares it.

    Args:
        folder: for safetensors files named after their key; None for memory alone.
        max_bytes: in memory.
    """

    def __init__(self, folder: Path | str | None = None, max_bytes: int = 2**29) -> None:
        self.folder = None if folder is None else Path(folder)
        self.max_bytes = max_bytes
        self.bytes = 0
        self._kept: OrderedDict[str, dict[str, Tensor]] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> TensorStore:
        return self

    def get(self, key: str) -> dict[str, Tensor] | None:
        """What was put under a key, on the CPU; None where nothing was, or where its file is damaged.

        Args:
            key: letters, digits and '-' alone, such as a hexadecimal digest: it names a file.
        """
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        if self.folder is None:
            return None
        try:
            found = load_file(self._path(key))
        except (OSError, SafetensorError):
            return None
        self._keep(key, found)
        return found

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep copies of tensors under a key."""
        kept = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        self._keep(key, kept)
        if self.folder is not None:
            with write_atomically(self._path(key)) as path:
                save_file(kept, path)

    def _keep(self, key: str, tensors: dict[str, Tensor]) -> None:
        replaced = self._kept.pop(key, {})
        self._kept[key] = tensors
        self.bytes += _size(tensors) - _size(replaced)
        while self.bytes > self.max_bytes and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self.bytes -= _size(dropped)

    def _path(self, key: str) -> Path:
        if not key.replace("-", "").isalnum():
            raise ValueError(f"{key!r} does not name a file")
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.safetensors"


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
