"""The words of a structured report: what a radiologist wrote of the study becomes the prompt of its images.

highdicom.sr reads the templates that it writes and refuses Basic Text SR, the usual class of reports; the content
tree (PS3.3 C.17.3) is simple enough to be walked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom

from bundle.cases.dicom.headers import MANUFACTURER, Instance, quiet, text

#: Basic Text, Enhanced, Comprehensive and Comprehensive 3D SR; dose and CAD reports are no prose.
PROSE_REPORTS = tuple(f"1.2.840.10008.5.1.4.1.1.88.{number}" for number in ("11", "22", "33", "34"))
_MEASUREMENT_REPORT = "126000"
_CONCLUSIONS = re.compile(r"finding|impression|conclusion|opinion|befund|beurteilung", re.IGNORECASE)
_DEEPEST = 20
_MAX_CHARACTERS = 1_000_000


def report_text(reports: Sequence[Instance], study_uid: str, hide: bool = True) -> tuple[str, list[str]]:
    """The text of a study's report.

    Findings and conclusions where the report has sections of such names, else all its text. Names of persons are
    not taken. What this or other software measured (TID 1500) is no prose, nor is anything else of this software.

    Args:
        reports: of any study.
        study_uid: the study.
        hide: replace what the report's header gives as name, number or date of birth of the patient.

    Returns:
        The text, empty where the study has no report in prose; and what a reader should know.
    """
    found: list[tuple[str, str]] = []
    for report in reports:
        if (
            not study_uid
            or report.uids["StudyInstanceUID"] != study_uid
            or report.sop_class not in PROSE_REPORTS
        ):
            continue
        read = _read(report.path)
        if read is not None:
            when, words = read
            found.append((when, report.identity.hidden(words) if hide else words))
    if not found:
        return "", []
    found.sort()
    notes = (
        []
        if len(found) == 1
        else [f"The study has {len(found)} reports; the latest was taken as the prompt."]
    )
    return found[-1][1], notes


def _read(path: Path) -> tuple[str, str] | None:
    """When the report was written, and its text; None where it has none or cannot be read."""
    try:
        with quiet():
            report = pydicom.dcmread(path, force=True)
            title = report.get("ConceptNameCodeSequence") or [pydicom.Dataset()]
            if (
                text(report, "Manufacturer") == MANUFACTURER
                or text(title[0], "CodeValue") == _MEASUREMENT_REPORT
            ):
                return None
            items = list(_texts(report, False, 0))
            when = text(report, "ContentDate") + text(report, "ContentTime")
            chosen = [words for words, concluding in items if concluding] or [words for words, _ in items]
            words = "\n".join(chosen).strip()
    except Exception:  # pydicom raises every kind for files that are broken
        return None
    return (when, words[:_MAX_CHARACTERS]) if words else None


def _texts(item: Any, concluding: bool, depth: int) -> Iterator[tuple[str, bool]]:
    """The TEXT items below an item in reading order, and whether each stands under findings or conclusions."""
    if depth > _DEEPEST:
        return
    for child in item.get("ContentSequence") or []:
        names = child.get("ConceptNameCodeSequence") or [pydicom.Dataset()]
        within = concluding or bool(_CONCLUSIONS.search(text(names[0], "CodeMeaning")))
        if text(child, "ValueType") == "TEXT" and (words := text(child, "TextValue")):
            yield words, within
        yield from _texts(child, within, depth + 1)
