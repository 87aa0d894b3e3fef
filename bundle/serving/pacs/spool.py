"""What was sent by C-STORE, on disk until it is segmented.

partial/                       objects that are being written
arrived/<study>/<series>/      objects that are whole; a sender was told so
taken/<study>/<series>/        series that are being segmented
reports/<study>/               reports that are read as prompts, where they are; kept for a day and for as long as
                               images of their study wait
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pydicom

from bundle.atomic import synchronise
from bundle.cases.dicom.headers import MANUFACTURER, quiet, text, uid
from bundle.cases.dicom.reports import PROSE_REPORTS
from bundle.serving.pacs.exchange import ArrivedSeries, is_uid

_REPORT_SECONDS = 86_400.0


class SpoolFull(Exception):
    """There is no room for an object."""


class NotUsable(Exception):
    """What was sent is no DICOM object with UIDs of its own."""


class Spool:
    """Takes objects from the threads of a receiver and hands series to a node.

    Args:
        folder: of this spool alone.
        max_bytes: that all objects in it may have together.
        with_reports: keep reports for `reports`, which are series to be handed on otherwise.
    """

    def __init__(self, folder: Path, max_bytes: int, with_reports: bool = False) -> None:
        self.partial, self.arrived, self.taken, self.kept = (
            folder / name for name in ("partial", "arrived", "taken", "reports")
        )
        self.max_bytes = max_bytes
        self.with_reports = with_reports
        self._lock = threading.Lock()
        shutil.rmtree(self.partial, ignore_errors=True)
        for path in (self.partial, self.arrived, self.taken, self.kept):
            path.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.taken.glob("*/*")):
            self._return(path)  # of a process that was killed
        whole = (*self.arrived.glob("*/*/*"), *self.kept.glob("*/*"))
        self._bytes = sum(path.stat().st_size for path in whole)

    # --- for the receiver ----------------------------------------------------------------------------------

    def temporary(self) -> Path:
        """A name on the spool's own file system to write an object under."""
        return self.partial / uuid.uuid4().hex

    def add(self, path: Path, instance: str) -> None:
        """Take over a file that `temporary` named; when this returns it is on disk under its own name.

        Args:
            instance: SOPInstanceUID that the sender stated.

        Raises:
            SpoolFull: it does not fit.
            NotUsable: it is not what the sender stated.
            OSError: it cannot be written.
        """
        study, series, is_report = _identity(path, instance)
        synchronise(path)
        folder = self.kept / study if is_report and self.with_reports else self.arrived / study / series
        place = folder / f"{instance}.dcm"
        with self._lock:
            more = path.stat().st_size - (place.stat().st_size if place.exists() else 0)
            if self._bytes + more > self.max_bytes:
                raise SpoolFull
            folder.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
            self._bytes += more
            for parent in (folder, folder.parent, folder.parent.parent):
                synchronise(parent)

    # --- for the node --------------------------------------------------------------------------------------

    def studies(self) -> Mapping[str, Sequence[ArrivedSeries]]:
        self._drop_old_reports()
        studies: defaultdict[str, list[ArrivedSeries]] = defaultdict(list)
        for folder in sorted(self.arrived.glob("*/*")):
            count = len(os.listdir(folder))
            if count and is_uid(folder.name) and is_uid(folder.parent.name):
                studies[folder.parent.name].append(ArrivedSeries(folder.parent.name, folder.name, count))
        return studies

    def fetch(self, series: ArrivedSeries) -> Path:
        taken = self.taken / series.study / series.series
        taken.parent.mkdir(exist_ok=True)
        with self._lock:
            os.replace(self._place(series), taken)
        return taken

    def reports(self, study: str) -> list[Path]:
        return sorted((self.kept / study).glob("*.dcm"))

    def grew(self, series: ArrivedSeries) -> bool:
        return self._place(series).exists()

    def put_back(self, series: ArrivedSeries) -> None:
        taken = self.taken / series.study / series.series
        if taken.exists():
            with self._lock:
                self._return(taken)

    def discard(self, series: ArrivedSeries) -> None:
        """Delete what was taken or, where nothing was, what has arrived."""
        taken = self.taken / series.study / series.series
        with self._lock:
            folder = taken if taken.exists() else self._place(series)
            if folder.exists():
                self._bytes -= sum(path.stat().st_size for path in folder.iterdir())
                shutil.rmtree(folder)
            for parent in (taken.parent, self._place(series).parent):
                if parent.exists() and not os.listdir(parent):
                    parent.rmdir()

    def _drop_old_reports(self) -> None:
        """Delete reports a day after they came, unless images of their study wait: they may come before or after it."""
        oldest = time.time() - _REPORT_SECONDS
        for folder in sorted(self.kept.iterdir()):
            if any((place / folder.name).exists() for place in (self.arrived, self.taken)):
                continue
            with self._lock:
                for path in folder.iterdir():
                    status = path.stat()
                    if status.st_mtime < oldest:
                        path.unlink()
                        self._bytes -= status.st_size
                if not os.listdir(folder):
                    folder.rmdir()

    def _place(self, series: ArrivedSeries) -> Path:
        return self.arrived / series.study / series.series

    def _return(self, taken: Path) -> None:
        """Move a series back to what has arrived; of an object that came again meanwhile, the newer one stays."""
        place = self.arrived / taken.parent.name / taken.name
        place.mkdir(parents=True, exist_ok=True)
        for path in taken.iterdir():
            if (place / path.name).exists():
                path.unlink()
            else:
                os.replace(path, place / path.name)
        taken.rmdir()


def _identity(path: Path, instance: str) -> tuple[str, str, bool]:
    """Study and series of an object, and whether it is a report in prose that is not of this software."""
    try:
        with quiet():
            keywords = ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
            further = ["SOPClassUID", "Manufacturer"]
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*keywords, *further])
            own, study, series = (uid(header, keyword) for keyword in keywords)
            is_prose = (
                uid(header, "SOPClassUID") in PROSE_REPORTS and text(header, "Manufacturer") != MANUFACTURER
            )
    except Exception as error:  # pydicom raises every kind for what is not DICOM
        raise NotUsable("cannot be read") from error
    if own != instance or not all(is_uid(one) for one in (own, study, series)):
        raise NotUsable("has no UIDs, or others than stated")
    return study, series, is_prose
