"""The error that concerns one case and no other."""

from __future__ import annotations

from pathlib import Path

from bundle.cases.privacy import printable


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
