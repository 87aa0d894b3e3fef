"""What a run shows of itself: run.json and index.html, both made from the entries of its journal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.atomic import write_atomically
from bundle.inference.entries import INTERNAL
from bundle.inference.parts import RECORD
from bundle.results.page import write_index


def run_content(entries: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json holds.

    Args:
        entries: of the journal.
        about: the run, beside its cases.
    """
    ordered = sorted(entries, key=lambda entry: str(entry["id"]))
    shown = [{key: value for key, value in one.items() if key not in INTERNAL} for one in ordered]
    return {"cases": shown, **about}


def write_record(folder: Path, content: Mapping[str, Any]) -> None:
    """Write run.json.

    Raises:
        OSError: naming the file, when it cannot be written.
    """
    with write_atomically(folder / RECORD) as path:
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def publish(output_dir: Path, entries: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write the record of a whole run and the page over its cases; arguments as of `run_content`.

    Raises:
        OSError: naming the file, when one cannot be written.
    """
    content = run_content(entries, about)
    write_record(output_dir, content)
    write_index(output_dir, content)


def failed(entries: Sequence[Mapping[str, Any]]) -> int:
    """How many cases failed."""
    return sum(entry["status"] == "failed" for entry in entries)


def counts(entries: Sequence[Mapping[str, Any]]) -> str:
    """'3 done (1 with warnings), 1 failed, 1 implausible'."""
    warned = sum(bool(entry.get("warnings")) for entry in entries)
    flagged = sum(bool(entry.get("flags")) for entry in entries)
    warnings = f" ({warned} with warnings)" if warned else ""
    implausible = f", {flagged} implausible" if flagged else ""
    bad = failed(entries)
    return f"{len(entries) - bad} done{warnings}, {bad} failed{implausible}"
