"""Images of a data set with their masks, read and checked, and what makes two of them the same to the eye."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from tqdm import tqdm

from bundle.cases.case import Case, CaseReference
from bundle.cases.datalist import Entry
from bundle.cases.errors import CaseError
from bundle.cases.files import PICTURE_SUFFIXES, image_suffix, read_head
from bundle.cases.pictures import read_mask
from bundle.cases.reader import read_case, read_label

_HASH_EDGE = 16
_THUMBNAIL_EDGE = 2 * _HASH_EDGE
_MAX_PATTERN = 200
_MAX_VALUES = 10
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
    """One image of a split with its mask, read and checked.

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
            problem = f"holds values that no label is named for ({listed_values(self.unexpected)})"
            return str(CaseError(self.entry.label or "", problem, "save it as 0 and 255, or name them"))
        return self.image_error or self.mask_error or self.size_error


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
        # A 2-D image's own values, since `read_label` refuses a mask at the first value that it cannot name.
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
    """The signs of the lowest frequencies of the discrete cosine transform, the mean left out.

    That is imagehash's `phash`, which takes 8 bits alone: films of 16 would be clipped.
    """
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


def listed_values(values: Sequence[float]) -> str:
    """The first of many values, for a message."""
    named = ", ".join(f"{value:g}" for value in values[:_MAX_VALUES])
    return f"{named}, ... ({len(values)} values)" if len(values) > _MAX_VALUES else named
