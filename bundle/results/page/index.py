"""The run as one page: a row a case, failures first, to sort and to search."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.atomic import write_atomically
from bundle.results.page.rendering import STATIC, data_uri, render
from bundle.results.report import RESEARCH_USE_ONLY
from bundle.results.result_files import PAGE, THUMBNAIL, VIEWER_DATA, known_files

_FIRST_FACTS = ("command", "started", "weights", "weights_sha256", "seed", "steps", "members", "device")
_NO_FACTS = {"cases", "left_out", "versions", *_FIRST_FACTS}
_VIEWER = "viewer"
_VIEWER_FILES = ("niivue.js", "niivue.LICENSE.txt")


@dataclass(frozen=True)
class _Row:
    """One case in the table.

    Attributes:
        case: its entry in run.json.
        report: empty where there is none, since a page with a gap is better than no page.
        page: link to its own page; None where there is none.
        thumbnail: data URI.
    """

    case: Mapping[str, Any]
    report: Mapping[str, Any]
    page: str | None
    thumbnail: str | None

    @property
    def failed(self) -> bool:
        return bool(self.case.get("status") == "failed")

    @property
    def warnings(self) -> list[str]:
        """Flags, then warnings."""
        flags = [str(flag["text"]) for flag in self.report.get("flags") or []]
        return flags + [str(warning) for warning in self.report.get("warnings") or []]

    @property
    def found(self) -> dict[str, Mapping[str, Any]]:
        """Structure -> its entry in the report, of those found."""
        return {
            name: entry for name, entry in (self.report.get("labels") or {}).items() if entry.get("found")
        }

    @property
    def missing(self) -> list[str]:
        """Structures that were asked for and not found."""
        return [name for name in self.report.get("labels") or {} if name not in self.found]

    @property
    def files(self) -> dict[str, str]:
        """Path -> its link, of the files that are no part of the case's page itself."""
        known, paths = known_files(), [str(file) for file in self.case.get("files") or []]
        names = [path.rsplit("/", 1)[-1] for path in paths]
        labels = [known[name].label if name in known else name for name in names]
        return {path: label for path, label in zip(paths, labels, strict=True) if label}

    @property
    def sizes(self) -> dict[str, float | None]:
        """For sorting and filtering: structure -> ml or pixels; None where it was not found."""
        sizes: dict[str, float | None] = dict.fromkeys(self.missing)
        return sizes | {
            name: float(entry.get("volume_ml") or entry.get("area_px") or 0)
            for name, entry in self.found.items()
        }


def write_index(output_dir: Path, run: Mapping[str, Any]) -> Path:
    """Write `output_dir`/index.html, and viewer/ for the pages of the cases.

    Each case's details come from its report.json and thumbnail.jpg, where they exist. viewer/ holds the 3D viewer,
    once for all cases and where one of them is a volume, and the order of the cases, by which their pages are linked.

    Args:
        output_dir: the run's folder.
        run: what run.json holds: "cases" (each "id", "input", "status" 'done' or 'failed', "error",
            "files" relative to `output_dir`, "seconds"), "left_out" (each "input", "reason"), "versions", and any
            further facts.

    Raises:
        OSError: naming the page, when it cannot be written.
    """
    names = [name for name in _FIRST_FACTS if run.get(name) is not None]
    names += [name for name in run if name not in _NO_FACTS]
    cases = sorted(run.get("cases", []), key=lambda case: case.get("status") != "failed")
    rows = [_row(output_dir, case) for case in cases]
    _write_viewer(output_dir, rows)
    page = render(
        "index",
        rows=rows,
        counts=_counts(rows),
        structures=_structures(rows),
        modalities=sorted({str(row.report["modality"]) for row in rows if row.report.get("modality")}),
        facts={name: run[name] for name in names},
        versions=dict(run.get("versions") or {}),
        left_out=run.get("left_out") or [],
        notice=RESEARCH_USE_ONLY,
    )
    path = output_dir / "index.html"
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return path


def _write_viewer(output_dir: Path, rows: Sequence[_Row]) -> None:
    pages = [str(row.case["id"]) for row in rows if row.page is not None]
    if not pages:
        return
    folder = output_dir / _VIEWER
    with write_atomically(folder / "cases.js") as temporary:
        temporary.write_text(f"globalThis.runCases = {json.dumps(pages)};\n", encoding="utf-8")
    if any((output_dir / case / VIEWER_DATA).is_file() for case in pages):
        for name in _VIEWER_FILES:
            with write_atomically(folder / name) as temporary:
                shutil.copyfile(STATIC / name, temporary)


def _row(output_dir: Path, case: Mapping[str, Any]) -> _Row:
    case_id = str(case.get("id", ""))
    if case.get("status") == "failed" or Path(case_id).name != case_id or not case_id:
        return _Row(case, {}, None, None)  # the folder of a failed case could only be an earlier run's
    folder = output_dir / case_id
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        report = {}
    try:
        thumbnail = data_uri((folder / THUMBNAIL).read_bytes(), "image/jpeg")
    except OSError:
        thumbnail = None
    page = f"{case_id}/{PAGE}" if (folder / PAGE).is_file() else None
    return _Row(case, report if isinstance(report, dict) else {}, page, thumbnail)


def _counts(rows: Sequence[_Row]) -> dict[str, int]:
    counts = {
        "cases": len(rows),
        "done": sum(not row.failed for row in rows),
        "failed": sum(row.failed for row in rows),
        "with warnings": sum(bool(row.warnings) for row in rows),
        "without a find": sum(row.report.get("found") is False for row in rows),
    }
    return {name: count for name, count in counts.items() if count or name in {"cases", "done"}}


def _structures(rows: Sequence[_Row]) -> dict[str, int]:
    """Structure -> in how many cases it was found; those asked for anywhere, by name."""
    found = Counter(name for row in rows for name in row.found)
    asked = {name for row in rows for name in (*row.found, *row.missing)}
    return {name: found[name] for name in sorted(asked, key=str.lower)}
