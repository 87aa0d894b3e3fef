"""A file of lines of JSON that only ever grows; a process that is killed leaves at most its last line torn."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def json_line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, default=str) + "\n"


def append_json(path: Path, content: Mapping[str, Any]) -> None:
    """Add a line so that it outlives the process and the machine, below a torn one if there is one.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("ab+") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(json_line(content).encode("ascii"))
        stream.flush()
        os.fsync(stream.fileno())


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that are JSON objects; torn and damaged ones are passed over.

    Raises:
        OSError: the file cannot be read.
    """
    for line in path.read_bytes().splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            yield content
