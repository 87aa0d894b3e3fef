"""Files and folders that appear under their final name only when they are whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".partial-"
_KEPT_CHARACTERS = 24  # of the final name: its ending tells libraries the format, all of it might be too long


def _mark(path: Path) -> str:
    """What the temporary names of `path`, and of no other, begin with."""
    digest = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{_PREFIX}{digest[:12]}-"


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f"{_mark(path)}{uuid.uuid4().hex[:8]}-{path.name[-_KEPT_CHARACTERS:]}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what a killed process left of an earlier attempt at `path`, which no other may be writing."""
    for sibling in path.parent.iterdir():
        if sibling.name.startswith(_mark(path)):
            _remove(sibling)


def synchronise(path: Path) -> None:
    """Have a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name `path` in an OSError that does not name a file itself, as 'no space left' does not."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder to write to; on success it takes the name `path`.

    An older file is replaced in one step. On an error the temporary file is removed and the older file,
    if there was one, is untouched. The folder is created when it is missing.

    Raises:
        OSError: naming the file, when it cannot be written.
    """
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_sibling(path)
        try:
            yield temporary
            synchronise(temporary)
            os.replace(temporary, path)
        finally:
            _remove(temporary)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Give a hidden sibling folder to fill; on success it takes the name `folder`, an older one goes.

    On an error the hidden folder is removed and the older one is untouched. What a killed attempt left
    behind is removed by the next one: a folder has one writer at a time.

    Raises:
        OSError: naming the file or the folder, when it cannot be written.
    """
    with _naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        temporary = _temporary_sibling(folder)
        try:
            temporary.mkdir()
            yield temporary
            for path in temporary.rglob("*"):
                if path.is_file():
                    synchronise(path)
            _exchange(temporary, folder)
        finally:
            _remove(temporary)


def _exchange(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`; a folder cannot replace a full one, so the older steps aside first."""
    if not folder.exists():
        temporary.rename(folder)
        return
    older = _temporary_sibling(folder)
    folder.rename(older)
    try:
        temporary.rename(folder)
    except OSError:
        older.rename(folder)
        raise
    _remove(older)
