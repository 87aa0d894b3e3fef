"""Standard output and standard error that end no run: full, closed, cut off by `| head`, or of another encoding."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


class _Enduring:
    """A stream; from the first thing that it cannot take, what is written to it is lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        # what is in its buffer goes nowhere, instead of failing again when Python ends
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            try:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            except (OSError, ValueError):
                self._stream = cast(TextIO, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def endure() -> None:
    """Have standard output and standard error of this process so from now on."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # else the next file that is opened takes what libraries print
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if not isinstance(stream, _Enduring):
            setattr(sys, name, _Enduring(stream))


@contextmanager
def enduring() -> Iterator[None]:
    """`endure` for a while."""
    before = sys.stdout, sys.stderr
    endure()
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
