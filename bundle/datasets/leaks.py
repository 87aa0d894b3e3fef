"""What makes the splits of a data set untrustworthy: patients or images in two of them, and faulty truth."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from tqdm import tqdm

from bundle.cases.case import Case, CaseReference
from bundle.cases.datalist import SPLITS, Entry, read_datalist
from bundle.cases.errors import CaseError
from bundle.cases.files import PICTURE_SUFFIXES, image_suffix, read_head
from bundle.cases.pictures import read_mask
from bundle.cases.reader import read_case, read_label

#: Two images whose hashes differ in at most so many of the 255 bits count as near-identical. On chest X-rays a
#: copy that was recompressed, resized or brightened differs in up to 18 bits and one that lost a margin of 1 % in
#: up to 36, while no two films of different patients come closer than 50.
NEAR_BITS = 32

_HASH_EDGE = 16
_THUMBNAIL_EDGE = 2 * _HASH_EDGE
_BLOCK = 2048  # images whose hashes are compared at once with all others
_MAX_PATTERN = 200
_MAX_VALUES = 10
_EXAMPLES = 5
_PATIENTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?:^|[^a-z0-9])sub-([a-z0-9]+)",  # BIDS, as in BIMCV and QaTa-COV19
        r"(TCGA-[a-z0-9]{2}-[a-z0-9]{4})(?![a-z0-9])",
        r"(Morozov_study_\d+)",  # MosMedData+
        r"(Jun_\w+?_case\d+)",
    )
)


@dataclass(frozen=True)
class Examined:
    """One image of a split with its truth, read and checked.

    Attributes:
        split: the list that names it.
        entry: what the datalist says of it.
        patient: upper case, so that spellings do not matter.
        has_patient: False where `patient` is the whole file name, since the name shows none.
        digest: sha256 of the decoded pixels; None where the image cannot be read.
        bits: (255,) perceptual hash in -1 and 1; None for unreadable images and those of one value.
        image_error, mask_error: why image or mask cannot be read; empty where they can or there is no mask.
        size_error: how the size of the mask differs from that of the image.
        unexpected: values in the mask that no label has; for one label, whatever is not binary.
        is_empty: the mask is background alone.
    """

    split: str
    entry: Entry
    patient: str
    has_patient: bool
    digest: str | None = None
    bits: NDArray[np.float32] | None = field(default=None, compare=False)
    image_error: str = ""
    mask_error: str = ""
    size_error: str = ""
    unexpected: tuple[float, ...] = ()
    is_empty: bool = False

    @property
    def failure(self) -> str:
        """Why the case cannot be used, in one sentence; empty where it can. A missing mask is no failure."""
        if self.unexpected:
            problem = f"holds values that no label is named for ({_values(self.unexpected)})"
            return str(CaseError(self.entry.label or "", problem, "save it as 0 and 255, or name them"))
        return self.image_error or self.mask_error or self.size_error


@dataclass(frozen=True)
class Leaks:
    """What two splits share. Groups and pairs hold images of at least two splits.

    Attributes:
        patients, file_names: patient or file name -> its images.
        identical: groups of images with the same pixels.
        near_identical: (image, image, bits in which the hashes differ), closest first.
    """

    patients: Mapping[str, list[Examined]]
    file_names: Mapping[str, list[Examined]]
    identical: list[list[Examined]]
    near_identical: list[tuple[Examined, Examined, int]]


def compile_patient_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression, blind to case, whose one group finds the patient in a file name.

    Raises:
        CaseError: it is too long, is not a regular expression, or has not exactly one group.
    """
    remedy = "give one with one group, such as 'case([0-9]+)'"
    if len(pattern) > _MAX_PATTERN:
        problem = f"is a regular expression of more than {_MAX_PATTERN} characters"
        raise CaseError("--patient-pattern", problem, remedy)
    try:
        compiled = re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise CaseError(
            "--patient-pattern", f"'{pattern}' is not a regular expression ({error})", remedy
        ) from error
    if compiled.groups != 1:
        problem = f"'{pattern}' has {compiled.groups} groups"
        raise CaseError("--patient-pattern", problem, remedy)
    return compiled


def patient_of(name: str, pattern: re.Pattern[str] | None = None) -> tuple[str, bool]:
    """The patient that a file name shows.

    Args:
        name: the file name with its suffix.
        pattern: see `compile_patient_pattern`; None tries the naming of BIDS, TCGA and MosMedData+.

    Returns:
        The patient in upper case and True; or the name without its suffix and False.
    """
    for one in _PATIENTS if pattern is None else (pattern,):
        match = one.search(name)
        if match and match.group(1):
            return match.group(1).upper(), True
    return name[: len(name) - len(image_suffix(Path(name)))].upper(), False


def examine(
    splits: Mapping[str, Sequence[Entry]],
    pattern: re.Pattern[str] | None = None,
    *,
    progress: bool = False,
) -> list[Examined]:
    """Read every image and mask of the splits, in their order.

    Args:
        splits: name of a split -> its images.
        pattern: see `patient_of`.
        progress: show a progress bar.
    """
    entries = [(split, entry) for split, listed in splits.items() for entry in listed]
    return [
        _examined(split, entry, pattern)
        for split, entry in tqdm(entries, desc="images", unit="image", disable=not progress)
    ]


def find_leaks(examined: Sequence[Examined]) -> Leaks:
    """What the splits share; images that cannot be read have patients and names, but no pixels.

    A file name that shows no patient says nothing of patients: sets that number their images in every folder would
    be all leaks.
    """
    readable = [one for one in examined if one.digest is not None]
    pairs = [
        (first, second, bits)
        for first, second, bits in near_pairs(examined)
        if first.split != second.split and first.digest != second.digest
    ]
    return Leaks(
        patients=_shared([one for one in examined if one.has_patient], lambda one: one.patient),
        file_names=_shared(examined, lambda one: one.entry.image.name),
        identical=list(_shared(readable, lambda one: one.digest or "").values()),
        near_identical=sorted(pairs, key=lambda pair: pair[2]),
    )


def near_pairs(examined: Sequence[Examined]) -> Iterator[tuple[Examined, Examined, int]]:
    """Every two images, of one split or of two, whose hashes differ in at most `NEAR_BITS` bits."""
    hashed = [one for one in examined if one.bits is not None]
    if not hashed:
        return
    bits = np.stack([one.bits for one in hashed if one.bits is not None])
    for start in range(0, len(hashed), _BLOCK):
        # Of two hashes in -1 and 1, the product is their length less twice the bits that differ.
        distances = (bits.shape[1] - bits[start : start + _BLOCK] @ bits[start:].T) / 2
        for row, column in np.argwhere(distances <= NEAR_BITS):
            if row < column:
                yield hashed[start + row], hashed[start + column], round(float(distances[row, column]))


def datalist_report(
    path: Path, pattern: re.Pattern[str] | None = None, *, progress: bool = False
) -> dict[str, Any]:
    """The report over every list of a datalist that holds images.

    Raises:
        CaseError: the file is not a datalist, or none of its images can be read.
    """
    read_datalist(path)
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    splits = {
        key: read_datalist(path, key)
        for key, value in content.items()
        # A list of strings names images of other lists: a selection, and no split of its own.
        if isinstance(value, list) and value and (key in SPLITS or any(isinstance(i, dict) for i in value))
    }
    examined = examine(splits, pattern, progress=progress)
    if all(one.image_error for one in examined):
        problem = f"names no image that can be read ({examined[0].image_error.rstrip('.')})"
        raise CaseError(path, problem, "check its folder")
    return build_report(examined, find_leaks(examined), Path(os.path.abspath(path.parent)))


def build_report(examined: Sequence[Examined], leaks: Leaks, folder: Path) -> dict[str, Any]:
    """Everything that was found, ready for JSON; paths are relative to `folder`."""

    def named(path: Path) -> str:
        return relative(path, folder)

    def by_split(images: Iterable[Examined]) -> dict[str, list[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for one in images:
            found[one.split].append(named(one.entry.image))
        return dict(found)

    def masks(error: Callable[[Examined], str]) -> list[dict[str, str]]:
        return [{"label": named(label), "error": error(one)} for one, label in with_mask if error(one)]

    with_mask = [(one, one.entry.label) for one in examined if one.entry.label is not None]
    patients = {split: {one.patient for one in examined if one.split == split} for split in _splits(examined)}
    texts = Counter(one.entry.text for one in examined if one.entry.text)
    text_splits: defaultdict[str, set[str]] = defaultdict(set)
    for one in examined:
        text_splits[one.entry.text].add(one.split)
    return {
        "cases": dict(Counter(one.split for one in examined)),
        "patients": {split: len(found) for split, found in patients.items()},
        "names_without_patient": sum(not one.has_patient for one in examined),
        "leaks": {
            "patients": [
                {"patient": key, "images": by_split(group)} for key, group in leaks.patients.items()
            ],
            "identical_images": [by_split(group) for group in leaks.identical],
            "near_identical_images": [
                {"bits": bits, "images": by_split(pair)} for *pair, bits in leaks.near_identical
            ],
            "file_names": [
                {"name": key, "images": by_split(group)} for key, group in leaks.file_names.items()
            ],
        },
        "texts": {
            "missing": [named(one.entry.image) for one in examined if not one.entry.text],
            "distinct": len(texts),
            "shared": sum(count > 1 for count in texts.values()),
            "cases_with_shared_text": sum(count for count in texts.values() if count > 1),
            "shared_across_splits": sum(len(text_splits[text]) > 1 for text in texts),
        },
        "masks": {
            "missing": [named(one.entry.image) for one in examined if one.entry.label is None],
            "unreadable": masks(lambda one: one.mask_error),
            "other_size": masks(lambda one: one.size_error),
            "empty": [named(label) for one, label in with_mask if one.is_empty],
            "unexpected_values": [
                {"label": named(label), "values": list(one.unexpected)}
                for one, label in with_mask
                if one.unexpected
            ],
        },
        "failed": [
            {"image": named(one.entry.image), "split": one.split, "error": one.failure}
            for one in examined
            if one.failure
        ],
    }


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """The report for a terminal: a line a finding, and the first few examples of it."""
    leaks, texts, masks = report["leaks"], report["texts"], report["masks"]
    lines = [
        f"{split}: {count} cases of {report['patients'][split]} patients"
        for split, count in report["cases"].items()
    ]
    if report["names_without_patient"]:
        lines.append(
            f"{report['names_without_patient']} file names show no patient and count as a patient each"
        )
    findings: list[tuple[str, list[str] | None]] = [
        (
            "patients in more than one split",
            [f"{i['patient']}: {_split_counts(i)}" for i in leaks["patients"]],
        ),
        ("identical images in more than one split", [_listed(group) for group in leaks["identical_images"]]),
        (
            "near-identical pairs of images across splits",
            [f"{i['bits']} of 255 bits: {_listed(i['images'])}" for i in leaks["near_identical_images"]],
        ),
        ("file names in more than one split", [item["name"] for item in leaks["file_names"]]),
        ("cases without a text", texts["missing"]),
        ("texts of one image that differ, of which the first was taken", texts.get("contradictory")),
        ("images without a mask", masks["missing"]),
        ("masks that cannot be read", [item["error"] for item in masks["unreadable"]]),
        ("masks of another size than their image", [item["error"] for item in masks["other_size"]]),
        ("empty masks", masks["empty"]),
        (
            "masks with values that no label has",
            [f"{item['label']}: {_values(item['values'])}" for item in masks["unexpected_values"]],
        ),
        ("masks without an image", report.get("masks_without_image")),
        ("rows of text without an image", report.get("texts_without_image")),
        (
            "dropped because the test split has them",
            [item["image"] for item in report["dropped"]] if "dropped" in report else None,
        ),
        ("failed", [item["error"] for item in report["failed"]]),
    ]
    for title, examples in findings:
        if examples is None:  # of the import of a folder, and this is the report on a datalist
            continue
        lines.append(f"{title}: {len(examples)}")
        lines.extend(f"  {example}" for example in examples[:_EXAMPLES])
        if len(examples) > _EXAMPLES:
            lines.append("  ...")
    lines.append(
        f"texts: {texts['distinct']} distinct, {texts['shared']} of them on several cases "
        f"({texts['cases_with_shared_text']} cases), {texts['shared_across_splits']} in more than one split"
    )
    # A file name may hold bytes that are no UTF-8.
    return [line.encode("utf-8", "backslashreplace").decode("utf-8") for line in lines]


def relative(path: Path, folder: Path) -> str:
    """A path as a datalist in `folder` writes it."""
    return Path(os.path.relpath(path, folder)).as_posix()


# --- one image -------------------------------------------------------------------------------------------


def _examined(split: str, entry: Entry, pattern: re.Pattern[str] | None) -> Examined:
    patient, has_patient = patient_of(entry.image.name, pattern)
    found = Examined(split, entry, patient, has_patient)
    reference = CaseReference(entry.image.name, entry.image, entry.label, modality=entry.modality)
    case: Case | None = None
    try:
        case = read_case(reference)
        pixels = hashlib.sha256(repr(case.array.shape).encode())
        pixels.update(case.array.tobytes())
        found = replace(found, digest=pixels.hexdigest(), bits=_perceptual_hash(case))
    except CaseError as error:
        found = replace(found, image_error=str(error))
    return found if entry.label is None else _with_mask(found, reference, entry.label, case)


def _with_mask(found: Examined, reference: CaseReference, label: Path, case: Case | None) -> Examined:
    try:
        read_head(label)
        # A picture's own values, since `read_label` refuses a mask at the first value that it cannot name.
        mask = read_mask(label) if image_suffix(label).lower() in PICTURE_SUFFIXES else read_label(reference)
    except CaseError as error:
        return replace(found, mask_error=str(error))
    if case is not None and mask.shape != case.array.shape[1:]:
        sizes = [" x ".join(map(str, shape)) for shape in (mask.shape, case.array.shape[1:])]
        problem = f"has the shape {sizes[0]}, but its image {sizes[1]}"
        return replace(found, size_error=str(CaseError(label, problem, "resample the mask onto the image")))
    values = [float(value) for value in np.unique(mask)]
    return replace(found, unexpected=_unexpected(values, found.entry.labels), is_empty=values == [0.0])


def _unexpected(values: list[float], labels: Mapping[int, str]) -> tuple[float, ...]:
    if set(values) <= {0.0, 255.0} and 255 not in labels:
        return ()
    allowed = {0, *labels} if labels else set(range(256))
    return tuple(value for value in values if value not in allowed)


def _perceptual_hash(case: Case) -> NDArray[np.float32] | None:
    """The signs of the lowest frequencies of the discrete cosine transform, the mean left out."""
    plane = case.array.mean(axis=0, dtype=np.float64)
    if case.is_volume:
        plane = plane.mean(axis=-1)
    size = (_THUMBNAIL_EDGE, _THUMBNAIL_EDGE)
    thumbnail = np.asarray(
        Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BOX), dtype=np.float64
    )
    if np.ptp(thumbnail) == 0:
        return None
    low = dctn(thumbnail, norm="ortho")[:_HASH_EDGE, :_HASH_EDGE].ravel()[1:]
    return np.where(low > np.median(low), 1, -1).astype(np.float32)


# --- groups ----------------------------------------------------------------------------------------------


def _shared(examined: Sequence[Examined], key: Callable[[Examined], str]) -> dict[str, list[Examined]]:
    groups: defaultdict[str, list[Examined]] = defaultdict(list)
    for one in examined:
        groups[key(one)].append(one)
    return {name: group for name, group in sorted(groups.items()) if len(_splits(group)) > 1}


def _splits(examined: Iterable[Examined]) -> list[str]:
    return list(dict.fromkeys(one.split for one in examined))


def _split_counts(item: Mapping[str, Any]) -> str:
    return ", ".join(f"{len(images)} {split}" for split, images in item["images"].items())


def _listed(images: Mapping[str, list[str]]) -> str:
    return " = ".join(f"{split} {name}" for split, names in images.items() for name in names)


def _values(values: Sequence[float]) -> str:
    named = ", ".join(f"{value:g}" for value in values[:_MAX_VALUES])
    return f"{named}, ... ({len(values)} values)" if len(values) > _MAX_VALUES else named
