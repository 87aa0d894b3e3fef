"""What sorting needs of a DICOM file: the few attributes that say which series it belongs to."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pydicom

from bundle.cases.files import DICOM_SUFFIXES
from bundle.cases.privacy import Identity

#: Of every object that this software makes: by it a result is known again and is neither segmented nor read.
MANUFACTURER = "Text-prior diffusion segmentation (research use only)"
#: PS3.4 B.5: what the storage classes named here hold.
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
SECONDARY_CAPTURES = (
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.1",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
    "1.2.840.10008.5.1.4.1.1.7.4",
)
#: Modality of storage classes, where a file leaves its own empty, or contradicts it.
MODALITY_OF_CLASS = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
    "1.2.840.10008.5.1.4.1.1.20": "NM",
    "1.2.840.10008.5.1.4.1.1.6.1": "US",
    WHOLE_SLIDE: "SM",
}
_STRUCTURED_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"

_NAMES = ("PatientName", "OtherPatientNames", "PatientBirthName")
_NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber")
_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "ImageType",
    "SeriesDescription",
    "SeriesNumber",
    "PresentationIntentType",
    "NumberOfFrames",
    "ConcatenationUID",
    "Rows",
    "ImageOrientationPatient",
    *_NAMES,
    *_NUMBERS,
    "PatientBirthDate",
    "StudyDate",
)
_UID = re.compile(r"[0-9.]{1,64}")
# The first element of a data set: its group, and in explicit encodings its value representation.
_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_REPRESENTATION = re.compile(rb"[A-Z]{2}")
_ROWS = 0x00280010
_TAG_AND_LENGTH = 8  # bytes that begin a data element


@dataclass(frozen=True)
class Instance:
    """One DICOM file.

    Attributes:
        uids: keyword -> value of SOPClassUID, SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID and
            FrameOfReferenceUID; empty where the file has none that is valid.
        media: SOPClassUID and SOPInstanceUID as the file meta information has them.
        modality: as stated, or told from the storage class.
        image_type: upper case.
        concatenation: ConcatenationUID of a part of an image that is split over files.
        orientation: ImageOrientationPatient where the data set has one of its own.
        identity: what names the patient or the visit, to keep it out of names and texts.
        is_cut: whether the file ends within its header.
    """

    path: Path
    uids: Mapping[str, str]
    media: Mapping[str, str]
    modality: str
    states_modality: bool
    image_type: tuple[str, ...]
    description: str
    series_number: str
    for_processing: bool
    frames: int
    has_pixels: bool
    concatenation: str = ""
    orientation: tuple[float, ...] = ()
    identity: Identity = field(default=Identity(), repr=False)
    is_cut: bool = False

    @property
    def sop_class(self) -> str:
        return self.uids["SOPClassUID"] or self.media["SOPClassUID"]

    @property
    def is_slide(self) -> bool:
        return self.sop_class == WHOLE_SLIDE

    @property
    def is_report(self) -> bool:
        return self.sop_class.startswith(_STRUCTURED_REPORTS)


def looks_like_dicom(path: Path, head: bytes) -> bool:
    """Whether name or first bytes say DICOM; archives send files without a suffix, and some without a preamble."""
    return path.name.lower().endswith(DICOM_SUFFIXES) or is_dicom_content(head)


def is_dicom_content(head: bytes) -> bool:
    """Whether the first bytes are those of a DICOM file, PS3.10 7.1, or of a data set without preamble."""
    if head[128:132] == b"DICM":
        return True
    if head[:2] not in _GROUPS or len(head) < 8:
        return False
    if _REPRESENTATION.match(head[4:6]):
        return True
    # Implicit VR: a low element number and a short value, PS3.5 7.1.3.
    return head[:2] != b"\x00\x08" and head[3] == 0 and 0 < int.from_bytes(head[4:8], "little") <= 256


@contextmanager
def quiet() -> Iterator[None]:
    """Without libraries' remarks on odd values: they quote the values, which may name a patient."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def read_instance(path: Path) -> Instance | None:
    """The attributes of one file; None where it is no DICOM file, or one too broken to say what it is."""
    try:
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
            instance = _instance(path, header)
            if instance is None or instance.has_pixels or instance.sop_class not in MODALITY_OF_CLASS:
                return instance
            return replace(instance, is_cut=_ends_in_header(path))
    except Exception:  # pydicom raises every kind for what is not DICOM
        return None


def _instance(path: Path, header: Any) -> Instance | None:
    meta = getattr(header, "file_meta", None) or pydicom.Dataset()
    keywords = (
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
    )
    uids = {keyword: uid(header, keyword) for keyword in keywords}
    media = {keyword: uid(meta, f"MediaStorage{keyword}") for keyword in keywords[:2]}
    stated = text(header, "Modality").upper()
    modality = stated or MODALITY_OF_CLASS.get(uids["SOPClassUID"] or media["SOPClassUID"], "")
    if not (uids["SOPClassUID"] or media["SOPClassUID"] or modality):
        return None
    return Instance(
        path=path,
        uids=uids,
        media=media,
        modality=modality,
        states_modality=bool(stated),
        image_type=tuple(part.strip().upper() for part in texts(header, "ImageType")),
        description=text(header, "SeriesDescription"),
        series_number=text(header, "SeriesNumber"),
        for_processing=text(header, "PresentationIntentType").upper() == "FOR PROCESSING"
        or uids["SOPClassUID"] == _FOR_PROCESSING,
        frames=_count(header, "NumberOfFrames"),
        has_pixels=bool(text(header, "Rows")),
        concatenation=uid(header, "ConcatenationUID"),
        orientation=tuple(numbers(header, "ImageOrientationPatient", 6) or ()),
        identity=_identity(header),
    )


def uid(dataset: Any, keyword: str) -> str:
    """A UID; empty where it is absent or no UID at all."""
    value = text(dataset, keyword)
    return value if _UID.fullmatch(value) else ""


def text(dataset: Any, keyword: str) -> str:
    """A value as text without the padding around it; empty where it is absent or cannot be read."""
    return "\\".join(texts(dataset, keyword))


def texts(dataset: Any, keyword: str) -> list[str]:
    """The values of an attribute, each as text; none where it is absent or cannot be read."""
    try:
        value = dataset.get(keyword)
        if value is None:
            return []
        many = value if isinstance(value, list | tuple | pydicom.multival.MultiValue) else [value]
        return [str(one).strip(" \0\r\n\t") for one in many]
    except Exception:  # pydicom converts values when they are asked for
        return []


def numbers(dataset: Any, keyword: str, count: int) -> list[float] | None:
    """The numbers of an attribute; None where it is absent or does not hold as many."""
    try:
        values = [float(value) for value in texts(dataset, keyword)]
    except ValueError:
        return None
    return values if len(values) == count else None


def _count(header: Any, keyword: str) -> int:
    values = numbers(header, keyword, 1)
    return max(1, int(values[0])) if values else 1


def _identity(header: Any) -> Identity:
    names, numbers, births, visits = (
        [value for keyword in keywords for value in texts(header, keyword)]
        for keywords in (_NAMES, _NUMBERS, ("PatientBirthDate",), ("StudyDate",))
    )
    return Identity.of(names, numbers, births, visits)


def _ends_in_header(path: Path) -> bool:
    """Whether a file of an image's storage class ends before its image is described."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        last = max(header.keys())
        element = header.get_item(last)
        end = element.value_tell + element.length  # of the raw element, as it says itself
    except Exception:  # pydicom raises several kinds where a sequence ends too early
        return True
    return last < _ROWS and end + _TAG_AND_LENGTH > path.stat().st_size
