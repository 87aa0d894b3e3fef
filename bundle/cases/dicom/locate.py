"""The one series at a path, for cases that are named by a folder or a file and nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bundle.cases.dicom.headers import is_dicom_content, looks_like_dicom, read_instance
from bundle.cases.dicom.series import DicomSeries, Exclusion, sort_series
from bundle.cases.errors import CaseError
from bundle.cases.files import read_head
from bundle.cases.modality import Modality


class AllExcludedError(CaseError):
    """All that is there is nothing to segment (localizers, reports, segmentations), which is no fault of it."""


def series_at(path: Path, stated: Modality | None = None) -> DicomSeries:
    """The series of a file, or of the files in a folder and the folders below it.

    Raises:
        CaseError: there is none, or there are several.
    """
    path = Path(os.path.abspath(path))
    files = _files_below(path) if os.path.isdir(path) else [path]
    found = sort_series(files, stated=stated, named=frozenset([path]))
    if not found.cases:
        raise nothing_in(path, [one for one, _ in found.excluded], found.unreadable)
    if len(found.cases) > 1:
        raise CaseError(path, f"holds {len(found.cases)} DICOM series or images", "name one of them")
    return found.cases[0][1]


def _files_below(folder: Path) -> list[Path]:
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(root, name) for name in names if not name.startswith(".")]
        files += [path for path in paths if has_dicom(path)]
    return files


def has_dicom(path: Path) -> bool:
    """Whether a file can be read and has the name or the first bytes of DICOM."""
    try:
        return looks_like_dicom(path, read_head(path))
    except CaseError:
        return False


def nothing_in(path: Path, excluded: Sequence[Exclusion], unreadable: Sequence[Path]) -> CaseError:
    """Why DICOM files give no case."""
    if excluded:
        reasons = ", ".join(dict.fromkeys(one.reason.removeprefix("is ") for one in excluded))
        problem = f"holds DICOM of which nothing is segmented ({reasons})"
        return AllExcludedError(path, problem, "send the original images, or name the series")
    if unreadable:
        return unreadable_file(unreadable[0])
    return CaseError(path, "is a folder without DICOM images", "name an image file or a folder with a series")


def unreadable_file(path: Path) -> CaseError:
    """What is wrong with a file that has the name or the preamble of DICOM."""
    try:
        head = read_head(path)
    except CaseError as error:
        return error
    if not is_dicom_content(head):
        return CaseError(path, "is not DICOM in spite of its name", "export it again")
    instance = read_instance(path)
    if instance is None:
        return CaseError(path, "is corrupt or truncated DICOM", "copy or export it again")
    if instance.is_cut:
        return CaseError(path, "is cut short within its header", "copy or export it again")
    return CaseError(path, "holds no DICOM image", "send the original images")
