"""What processes that read ahead send to the one that works: bytes through a pipe.

Tensors would go through shared memory, of which containers have 64 MB, and a process that finds it full waits for ever.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

from torch.utils.data import get_worker_info


@dataclass(frozen=True)
class _Packed:
    """What a worker of this process packed. Only that is unpickled, never bytes that an item came with."""

    content: bytes


def packed(item: Any) -> Any:
    """Packed where this is a worker of a DataLoader, else the item itself."""
    return item if get_worker_info() is None else _Packed(pickle.dumps(item, pickle.HIGHEST_PROTOCOL))


def unpacked(item: Any) -> Any:
    """What `packed` was given."""
    return pickle.loads(item.content) if isinstance(item, _Packed) else item
