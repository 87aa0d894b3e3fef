"""The error that concerns one case and no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundle.cases.privacy import printable

CORRUPT = "is corrupt or truncated"
COPY_AGAIN = "copy or export it again"


class CaseError(ValueError):
    """One case cannot be processed; the others can.

    Args:
        source: the file or folder at fault.
        problem: what is wrong with it, without a full stop.
        remedy: what the user can do about it, without a full stop.
    """

    def __init__(self, source: Path | str, problem: str, remedy: str) -> None:
        super().__init__(printable(f"{source}: {problem}; {remedy}."))
        self.source = str(source)
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[CaseError], tuple[str, str, str]]:
        # An exception is pickled by its message otherwise, which a worker process could not send back.
        return type(self), (self.source, self.problem, self.remedy)


@contextmanager
def broken_file(path: Path, problem: str = CORRUPT, remedy: str = COPY_AGAIN) -> Iterator[None]:
    """Turn whatever a library raises for a broken file into a `CaseError`; want of memory is no fault of the file."""
    try:
        yield
    except (CaseError, MemoryError):
        raise
    except Exception as error:
        raise CaseError(path, problem, remedy) from error


def root_cause(error: BaseException, *known: type[BaseException]) -> BaseException:
    """The case's own error, or what went wrong in the first place: MONAI wraps what a part raises, sometimes twice.

    Args:
        known: further errors that are sentences for the user, whatever stands behind them.
    """
    while not isinstance(error, (CaseError, *known)):
        cause = error.__cause__ or error.__context__
        if cause is None:
            break
        error = cause
    return error
