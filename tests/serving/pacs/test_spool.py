"""The spool: what is whole, what is not, what fits, and what is handed on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bundle.cases.dicom.headers import MANUFACTURER
from bundle.serving.pacs.exchange import ArrivedSeries
from bundle.serving.pacs.spool import NotUsable, Spool, SpoolFull
from tests.support.pacs_node import phantom_series, study_report


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", 10**6)


def written(spool: Spool, dataset: Any) -> Path:
    path = spool.temporary()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def sent(spool: Spool, dataset: Any) -> None:
    spool.add(written(spool, dataset), dataset.SOPInstanceUID)


def everything(spool: Spool) -> int:
    folders = (spool.arrived, spool.taken)
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*.dcm"))


def test_objects_become_studies_and_go(spool: Spool) -> None:
    ct = phantom_series()
    for dataset in ct.slices:
        sent(spool, dataset)
    sent(spool, ct.slices[0])  # a second time
    series = ArrivedSeries(ct.study, ct.series, 8)
    assert spool.studies() == {ct.study: [series]}
    assert not any(spool.partial.iterdir())
    folder = spool.fetch(series)
    assert len(os.listdir(folder)) == 8 and spool.studies() == {} and not spool.grew(series)
    sent(spool, ct.slices[0])
    assert spool.grew(series)
    spool.discard(series)
    # what came meanwhile is not what was taken
    assert spool.studies() == {ct.study: [ArrivedSeries(ct.study, ct.series, 1)]}
    spool.discard(ArrivedSeries(ct.study, ct.series, 1))
    assert spool.studies() == {} and everything(spool) == 0
    assert not any(spool.arrived.iterdir()) and not any(spool.taken.iterdir())


def test_reports_are_kept_for_the_images_of_their_study(tmp_path: Path) -> None:
    ct = phantom_series()
    written_by_us, dose = study_report(ct.study, "Liver.", MANUFACTURER), study_report(ct.study, "Dose.")
    dose.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.67"
    prose = study_report(ct.study, "Liver enlarged.")
    spool = Spool(tmp_path / "spool", 10**6, with_reports=True)
    for dataset in (prose, written_by_us, dose, ct.slices[0]):
        sent(spool, dataset)
    # what is no prose of a person is a series like others, which the node leaves out and says so
    series = {one.series for one in spool.studies()[ct.study]}
    assert series == {ct.series, written_by_us.SeriesInstanceUID, dose.SeriesInstanceUID}
    [path] = spool.reports(ct.study)
    assert path.name == f"{prose.SOPInstanceUID}.dcm" and spool.reports("1.2") == []
    for one in spool.studies()[ct.study]:
        spool.discard(one)
    assert spool.studies() == {} and spool.reports(ct.study) == [path]

    # it counts as what waits, over a restart too, and goes after a day without images
    again = Spool(tmp_path / "spool", 10**6, with_reports=True)
    assert again._bytes == path.stat().st_size == spool._bytes
    sent(again, ct.slices[0])
    os.utime(path, (0, 0))
    again.studies()
    assert again.reports(ct.study) == [path]
    again.discard(ArrivedSeries(ct.study, ct.series, 1))
    again.studies()
    assert again.reports(ct.study) == [] and again._bytes == 0 and not any(again.kept.iterdir())


def test_without_being_asked_for_a_report_is_a_series(spool: Spool) -> None:
    report = study_report("1.2.3", "Liver enlarged.")
    sent(spool, report)
    assert spool.studies() == {"1.2.3": [ArrivedSeries("1.2.3", report.SeriesInstanceUID, 1)]}
    assert spool.reports("1.2.3") == []


def test_what_is_put_back_is_whole_again(spool: Spool) -> None:
    ct = phantom_series()
    for dataset in ct.slices[:6]:
        sent(spool, dataset)
    series = ArrivedSeries(ct.study, ct.series, 6)
    spool.fetch(series)
    for dataset in ct.slices[5:]:
        sent(spool, dataset)
    spool.put_back(series)
    assert spool.studies() == {ct.study: [ArrivedSeries(ct.study, ct.series, 8)]}


def test_a_killed_process_loses_nothing_that_was_whole(spool: Spool, tmp_path: Path) -> None:
    ct = phantom_series()
    for dataset in ct.slices[:4]:
        sent(spool, dataset)
    spool.fetch(ArrivedSeries(ct.study, ct.series, 4))
    for dataset in ct.slices[4:]:
        sent(spool, dataset)
    written(spool, ct.slices[0])  # and was killed before it was taken over
    again = Spool(tmp_path / "spool", 10**6)
    assert again.studies() == {ct.study: [ArrivedSeries(ct.study, ct.series, 8)]}
    assert not any(again.partial.iterdir()) and not list(again.taken.glob("*/*"))
    # what it found counts as well
    full = Spool(tmp_path / "spool", everything(again) + 10)
    with pytest.raises(SpoolFull):
        sent(full, phantom_series().slices[0])


def test_it_is_on_disk_before_it_counts(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        order.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).parent.name}")
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        order.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    dataset = phantom_series().slices[0]
    sent(spool, dataset)
    # the object itself, its name, and the folders that hold its name
    assert order == [
        "fsync partial",
        "replace",
        f"fsync {dataset.StudyInstanceUID}",
        "fsync arrived",
        "fsync spool",
    ]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    ct = phantom_series()
    spool = Spool(tmp_path / "spool", 10**6)
    size = written(spool, ct.slices[0]).stat().st_size
    spool = Spool(tmp_path / "spool", 2 * size + size // 2)
    sent(spool, ct.slices[0])
    sent(spool, ct.slices[1])
    with pytest.raises(SpoolFull):
        sent(spool, ct.slices[2])
    assert spool.studies() == {ct.study: [ArrivedSeries(ct.study, ct.series, 2)]}
    spool.discard(ArrivedSeries(ct.study, ct.series, 2))
    sent(spool, ct.slices[2])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", ""),
        ("SeriesInstanceUID", "../../../../escaped"),
        ("SOPInstanceUID", "../escaped"),
        ("StudyInstanceUID", ".."),
    ],
)
def test_uids_are_no_paths(spool: Spool, tmp_path: Path, keyword: str, value: str) -> None:
    dataset = phantom_series().slices[0]
    setattr(dataset, keyword, value)
    with pytest.raises(NotUsable):
        sent(spool, dataset)
    assert not list(tmp_path.rglob("*escaped*")) and spool.studies() == {}


def test_an_object_is_what_its_sender_says(spool: Spool) -> None:
    dataset = phantom_series().slices[0]
    with pytest.raises(NotUsable):
        spool.add(written(spool, dataset), "1.2.3")
    path = spool.temporary()
    path.write_bytes(b"no DICOM at all")
    with pytest.raises(NotUsable):
        spool.add(path, "1.2.3")
