"""From DICOM files in any order and under any names to series, one a case, and to what is left out and why."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom.uid import generate_uid

from bundle.cases.dicom.exclusion import Reason, is_volume, no_patient_image, not_selected
from bundle.cases.dicom.headers import MEDIA_DIRECTORY, WHOLE_SLIDE, Instance, read_instance
from bundle.cases.dicom.selection import SeriesSelection
from bundle.cases.modality import Modality
from bundle.cases.privacy import Identity


@dataclass(frozen=True)
class DicomSeries:
    """The files of one case, before their pixels are read.

    Attributes:
        files: sorted by path; some may be copies of others.
        instances: SOPInstanceUID of each file.
        modality: DICOM modality.
        description: SeriesDescription.
        is_volume: whether the files are slices, or frames, of one volume; else one film or picture, or the levels of a
            whole-slide image.
        repaired: file -> keyword -> value of what was empty or absent and was filled in.
        notes: what a reader of the report should know of the sorting.
        resample: let unevenly spaced or missing slices be interpolated.
        identity: what the headers give as names and numbers of patient and visit.
    """

    files: tuple[Path, ...]
    instances: tuple[str, ...]
    study_uid: str
    series_uid: str
    modality: str
    description: str
    is_volume: bool
    sop_class: str = ""
    repaired: Mapping[Path, Mapping[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    resample: bool = False
    identity: Identity = field(default=Identity(), repr=False)

    @property
    def is_slide(self) -> bool:
        return self.sop_class == WHOLE_SLIDE

    @property
    def place(self) -> Path:
        """The file, or the folder that holds all files: what errors and records name."""
        if len(self.files) == 1:
            return self.files[0]
        return Path(os.path.commonpath([path.parent for path in self.files]))


@dataclass(frozen=True)
class Exclusion:
    """A series, or a part of one, that is not segmented, which is no failure.

    Attributes:
        input: its file, or the folder that holds nothing else of DICOM, or the first of its files; as a path, or as
            results name it.
        reason: a clause such as 'is a localizer'.
        files: how many.
        series: SeriesInstanceUID; empty where the files have none.
        remedy: the setting that would take it, as a clause; empty where there is none.
    """

    input: str
    reason: str
    files: int
    series: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """One sentence."""
        more = "" if self.files == 1 else f" ({self.files} files, series {self.series or 'without a UID'})"
        return f"{self.input}{more} {self.reason}{f'; {self.remedy}' if self.remedy else ''}."


@dataclass
class Sorted:
    """What sorting gives.

    Attributes:
        cases: name wanted for the case id, and its series.
        excluded: what is no case, and whose it is.
        unreadable: files that have a DICOM name or preamble and are too broken to tell what they are, or cut short.
        reports: structured reports, of any study; they are among what is left out too.
        identity: of all studies.
    """

    cases: list[tuple[str, DicomSeries]] = field(default_factory=list)
    excluded: list[tuple[Exclusion, Identity]] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    reports: list[Instance] = field(default_factory=list)
    identity: Identity = field(default=Identity(), repr=False)


def sort_series(
    files: Iterable[Path],
    selection: SeriesSelection | None = None,
    stated: Modality | None = None,
    named: frozenset[Path] = frozenset(),
    hide: bool = True,
) -> Sorted:
    """Sort files into cases: a volume a series, a film an instance.

    Args:
        files: that have a DICOM name or content.
        selection: which series are taken, and how.
        stated: modality that the user states, which lets images through whose own modality is another.
        named: files that the user named, whose cases are called after the file.
        hide: call no case after a folder or file that is named after a patient.

    Returns:
        The cases in the order of their paths.
    """
    selection = selection or SeriesSelection()
    result = Sorted()
    groups: defaultdict[tuple[str, ...], list[Instance]] = defaultdict(list)
    identities: set[Identity] = set()
    for path in sorted(set(files)):
        instance = read_instance(path)
        if instance is None or instance.is_cut:
            result.unreadable.append(path)
        elif instance.sop_class != MEDIA_DIRECTORY:
            groups[_key(instance)].append(instance)
            if instance.is_report:
                result.reports.append(instance)
        if instance is not None:
            identities.add(instance.identity)
    result.identity = Identity.union(identities)
    folders = Counter(one.path.parent for instances in groups.values() for one in instances)
    for instances in groups.values():
        _sort_one(instances, selection, stated, named, hide, folders, result)
    result.cases = _noted(result)
    return result


def _key(instance: Instance) -> tuple[str, ...]:
    """What the files of one series share; without UIDs, whatever else tells series of a folder apart."""
    study, series = instance.uids["StudyInstanceUID"], instance.uids["SeriesInstanceUID"]
    if series:
        return study, series
    return (
        study,
        "",
        str(instance.path.parent),
        instance.modality,
        instance.series_number,
        instance.description,
    )


def _sort_one(
    instances: list[Instance],
    selection: SeriesSelection,
    stated: Modality | None,
    named: frozenset[Path],
    hide: bool,
    folders: Mapping[Path, int],
    result: Sorted,
) -> None:
    uid = instances[0].uids["SeriesInstanceUID"]
    identity = Identity.union({one.identity for one in instances})
    wanted = uid in selection.uids
    reasons = {one.path: no_patient_image(one, stated, wanted) for one in instances}
    kept = [one for one in instances if reasons[one.path] is None]
    if kept and (unwanted := not_selected(kept, selection, stated)) is not None:
        reasons.update({one.path: unwanted for one in kept})
        kept = []
    dropped: defaultdict[Reason, list[Path]] = defaultdict(list)
    for path, why in reasons.items():
        if why is not None:
            dropped[why].append(path)
    for reason, files in dropped.items():
        remedy = reason.remedy.format(uid=uid) if uid else ""
        excluded = Exclusion(_place(files, folders), reason.clause, len(files), uid, remedy)
        result.excluded.append((excluded, identity))
    if not kept:
        return
    notes = [
        f"Left out of the series: {_files(len(files))}, since each {reason.clause}."
        for reason, files in dropped.items()
        if not reason.is_usual
    ]
    repaired, study, series = _repaired(kept)
    if repaired:
        keywords = ", ".join(sorted({keyword for values in repaired.values() for keyword in values}))
        notes.append(f"The files have empty or absent identifiers ({keywords}); they were filled in.")
    for part in _parts(kept, stated):
        paths = tuple(one.path for one in part)
        dicom = DicomSeries(
            files=paths,
            instances=tuple(
                repaired.get(one.path, {}).get("SOPInstanceUID") or one.uids["SOPInstanceUID"] for one in part
            ),
            study_uid=study,
            series_uid=series,
            modality=part[0].modality,
            description=part[0].description,
            is_volume=is_volume(part[0], stated),
            sop_class=part[0].sop_class,
            repaired={path: repaired[path] for path in paths if path in repaired},
            notes=tuple(notes),
            resample=selection.resample_slices,
            identity=identity,
        )
        result.cases.append((_name(dicom, named, hide), dicom))


# --- identity ----------------------------------------------------------------------------------------------


def _repaired(kept: list[Instance]) -> tuple[dict[Path, dict[str, str]], str, str]:
    """What is filled in, a file; then study and series UID. The same files give the same UIDs, wherever they lie."""
    filled: dict[Path, dict[str, str]] = {}
    instances: dict[Path, str] = {}
    for one in kept:
        values = {key: one.media[key] for key in one.media if not one.uids[key] and one.media[key]}
        known = one.uids["SOPInstanceUID"] or one.media["SOPInstanceUID"]
        if not known:
            known = generate_uid(entropy_srcs=[_content_hash(one.path)])
            values["SOPInstanceUID"] = known
        instances[one.path] = known
        if one.modality and not one.states_modality:
            values["Modality"] = one.modality
        if values:
            filled[one.path] = values
    own = {key: next((one.uids[key] for one in kept if one.uids[key]), "") for key in kept[0].uids}
    seed = "\n".join(sorted(set(instances.values())))
    common = {
        key: own[key] or str(generate_uid(entropy_srcs=[key, own["SeriesInstanceUID"] or seed]))
        for key in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    }
    for one in kept:
        for key, value in common.items():
            # A film needs no frame of reference; what differs between files is refused when they are read.
            if not one.uids[key] and (key != "FrameOfReferenceUID" or one.orientation or one.frames > 1):
                filled.setdefault(one.path, {})[key] = value
    return filled, common["StudyInstanceUID"], common["SeriesInstanceUID"]


def _content_hash(path: Path) -> str:
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _parts(kept: list[Instance], stated: Modality | None) -> list[list[Instance]]:
    """The cases within one series: each film, and each file of several frames, is one of its own.

    The files of a whole-slide image are its levels, and one case together, as those of a concatenation are.
    """
    slide = [one for one in kept if one.is_slide]
    whole = [one for one in kept if is_volume(one, stated) and one.frames == 1 and not one.concatenation]
    single: defaultdict[str, list[Instance]] = defaultdict(list)
    for one in kept:
        if one.is_slide:
            continue
        if not is_volume(one, stated) or one.frames > 1 or one.concatenation:
            # Copies of one instance stay together, to be compared when they are read.
            single[
                one.concatenation
                or one.uids["SOPInstanceUID"]
                or one.media["SOPInstanceUID"]
                or str(one.path)
            ].append(one)
    return [part for part in (slide, whole) if part] + list(single.values())


def _name(series: DicomSeries, named: frozenset[Path], hide: bool) -> str:
    """What the case is to be called; with `hide` nothing that its headers give as name, number or date of a patient."""
    first = series.files[0]
    folder = series.place if len(series.files) > 1 else first.parent
    by_file = len(series.files) == 1 and (not series.is_volume or first in named)
    name = re.sub(r"\.(dcm|dicom|ima)$", "", first.name, flags=re.IGNORECASE) if by_file else folder.name
    return "" if hide and series.identity.is_in(name) else name


def unique_hash(series: DicomSeries) -> str:
    """Eight letters that tell a case from others of its name, the same wherever the files lie."""
    together = (series.is_volume or series.is_slide) and len(series.files) > 1
    single = "" if together else series.files[0].name
    return hashlib.sha256(f"{series.study_uid} {series.series_uid} {single}".encode()).hexdigest()[:8]


# --- words -------------------------------------------------------------------------------------------------


def _noted(result: Sorted) -> list[tuple[str, DicomSeries]]:
    """Let a series tell of files beside its own that nobody can read: they may be slices of it."""
    cases = []
    for name, series in result.cases:
        folders = {path.parent for path in series.files}
        broken = sum(path.parent in folders for path in result.unreadable)
        if broken:
            note = (
                f"Left out of the folder: {_files(broken)} that cannot be read as DICOM or end too early; "
                "slices may be missing."
            )
            series = replace(series, notes=(*series.notes, note))
        cases.append((name, series))
    return cases


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _place(paths: Sequence[Path], folders: Mapping[Path, int]) -> str:
    """The file, or the folder where it holds nothing else of DICOM, or the first of several files."""
    parents = {path.parent for path in paths}
    alone = len(parents) == 1 and folders[paths[0].parent] == len(paths) > 1
    return str(paths[0].parent if alone else min(paths))
