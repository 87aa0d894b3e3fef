"""Results of earlier runs, by the records that lie beside them, so that no run segments what another has made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from bundle.cases.errors import CaseError
from bundle.cases.files import read_json
from bundle.cases.ids import RUN_FILES

_CASE, _RUN = "report.json", "run.json"
_CASE_KEYS = frozenset(("case", "input", "prompt", "labels", "warnings", "research_use_only"))
_RUN_KEYS = frozenset(("cases", "versions"))
_MOST_BYTES = 200_000_000


class OwnResults:
    """Tells files that an earlier run has written from others.

    Args:
        names: of the files that a run may write for a case.

    Attributes:
        folders: run -> folders of its cases that were met.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.folders: dict[Path, set[Path]] = {}
        self._listed: set[Path] = set()

    def in_folder(self, folder: Path, names: Iterable[str]) -> set[str]:
        """Of the names in a folder, those of results.

        A case's folder has report.json. A run's folder has run.json, which lists those of its cases.
        """
        names, found = set(names), set[str]()
        if not self.names:
            return found
        if folder in self._listed or (_CASE in names and self._is_record(folder / _CASE, _CASE_KEYS)):
            found |= names & set(self.names)
            self.folders.setdefault(folder.parent, set()).add(folder)
        if _RUN in names and (record := self._is_record(folder / _RUN, _RUN_KEYS)):
            found |= names & set(RUN_FILES)
            self._listed |= set(self._cases(folder, record["cases"]))
        return found

    def _cases(self, folder: Path, cases: Any) -> Iterable[Path]:
        for case in cases if isinstance(cases, list) else ():
            for name in case.get("files", ()) if isinstance(case, dict) else ():
                parts = PurePosixPath(str(name)).parts
                if len(parts) == 2 and parts[1] in self.names:
                    yield folder / parts[0]

    @staticmethod
    def _is_record(path: Path, keys: frozenset[str]) -> dict[str, Any]:
        """The content where it is a record of this software's, else nothing."""
        try:
            content = read_json(path, _MOST_BYTES)
        except CaseError:
            return {}
        return content if isinstance(content, dict) and keys <= content.keys() else {}
