"""One run at a time in a folder, by a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_held: set[int] = set()


def _close_in_child() -> None:
    """Forked processes, such as those that read training images, may live a little longer than what forked them."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


class FolderInUseError(OSError):
    """Another process holds the folder."""


@contextmanager
def folder_lock(folder: Path, shared: bool = False) -> Iterator[None]:
    """Hold a folder that exists.

    The lock is on the folder itself: no file is left in it. File systems that know no such locks go without.

    Args:
        shared: with others that share it too, against those that want it for themselves.

    Raises:
        FolderInUseError: another run holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderInUseError(errno.EBUSY, "another run is writing into it", str(folder)) from error
        except OSError:
            pass
        yield
    finally:
        if descriptor in _held:
            _held.discard(descriptor)
            os.close(descriptor)
