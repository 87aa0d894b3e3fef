"""What processes that read ahead send to the one that works: bytes through a pipe.

Tensors would go through shared memory, of which containers have 64 MB, and a process that finds it full waits for ever.
"""

from __future__ import annotations

import pickle
from typing import Any

from torch.utils.data import get_worker_info


def packed(item: Any) -> Any:
    """As bytes where this is a worker of a DataLoader, else the item itself."""
    return item if get_worker_info() is None else pickle.dumps(item, pickle.HIGHEST_PROTOCOL)


def unpacked(item: Any) -> Any:
    """What `packed` was given; the bytes are those of this process's own workers."""
    return pickle.loads(item) if isinstance(item, bytes) else item
