"""Results that wait to be delivered: a folder a series, which is there whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bundle.atomic import replace_folder
from bundle.serving.pacs.exchange import ArrivedSeries

_RECORD = "delivery.json"


@dataclass
class Outcome:
    """What came of segmenting one series.

    Attributes:
        objects: SOPInstanceUID -> DICOM file of results, relative to the folder of results.
        errors: a sentence for each case of the series that failed.
        notes: a sentence for each DICOM object that could not be made, and on a report that was not there.
        prompt_source: who gave the prompt, see `bundle.cases.CaseReference`; empty where there was none.
    """

    objects: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    prompt_source: str = ""


@dataclass(frozen=True)
class Parcel:
    """The results of one series, in `folder` a folder a case."""

    series: ArrivedSeries
    folder: Path
    outcome: Outcome

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in self.outcome.objects.values()]


class Outbox:
    """The folder of results of a node, which no other process writes to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.name.startswith(".") or not (path / _RECORD).is_file():
                shutil.rmtree(path, ignore_errors=True)  # of a process that was killed

    @contextmanager
    def filling(self, series: ArrivedSeries) -> Iterator[Path]:
        """Give a hidden folder for the results of a series; `seal` it within, and it takes its place."""
        with replace_folder(self.folder / series.series) as folder:
            yield folder

    @staticmethod
    def seal(folder: Path, series: ArrivedSeries, outcome: Outcome) -> None:
        """Write down what is in a folder that was filled."""
        record = {"study": series.study, "instances": series.instances, **asdict(outcome)}
        (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def parcel(self, series_uid: str) -> Parcel:
        """The results of a series, which are there."""
        folder = self.folder / series_uid
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        series = ArrivedSeries(record.pop("study"), series_uid, record.pop("instances"))
        return Parcel(series, folder, Outcome(**record))

    def parcels(self) -> list[Parcel]:
        """All results that are there, delivered or not."""
        return [self.parcel(path.name) for path in sorted(self.folder.iterdir())]

    @staticmethod
    def remove(parcel: Parcel) -> None:
        """Delete the results of a series; the record first, so that what a killed process leaves is no parcel."""
        (parcel.folder / _RECORD).unlink(missing_ok=True)
        shutil.rmtree(parcel.folder, ignore_errors=True)
