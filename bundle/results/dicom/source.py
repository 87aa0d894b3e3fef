"""The DICOM images behind a prediction, made ready for objects that refer to them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pydicom
from highdicom import UID
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from bundle.cases.case import Case
from bundle.cases.dicom import DicomSource
from bundle.cases.dicom.headers import MANUFACTURER
from bundle.results.prediction import Prediction

NAME = "Text-prior diffusion segmentation"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://monai.io/model-zoo/text_prior_diffusion_segmentation")
# Of type 2 in the Patient, General Study and General Series modules (PS3.3 C.7.1.1, C.7.2.1): present, maybe empty.
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
_FORMAL = ("AS", "CS", "DA", "DS", "DT", "IS", "TM")  # value representations that programs read
_COPIED_GROUPS = (0x0008, 0x0010)  # where the attributes of patient and study are
_SEXES = ("", "M", "F", "O")
_UTF_8 = "ISO_IR 192"
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_ROUNDING = 1e-4  # of direction cosines


class NoDicomResult(ValueError):
    """A DICOM result that cannot be made of this case, in one sentence for the report."""


@dataclass(frozen=True)
class Algorithm:
    """What made a result.

    Attributes:
        version: of the bundle.
        weights_sha256: of the weights' file, in hexadecimal; empty where it is not known.
        settings: of the sampling.
        request: a digest of all that was asked for beside the images; where it is given, UIDs of results follow from
            it and from the images alone, see `object_identity`.
    """

    version: str
    weights_sha256: str
    settings: Mapping[str, Any]
    request: str = ""

    def parameters(self) -> dict[str, str]:
        """Name and value of what the algorithm ran with, weights first."""
        plain = {name: str(value) for name, value in sorted(self.settings.items())}
        return {"weights_sha256": self.weights_sha256 or "unknown", **plain}


@dataclass(frozen=True)
class SourceImages:
    """The headers that results refer to.

    Attributes:
        headers: without pixels, in the order of the slices; one for a film or a multi-frame image.
        frames: of a multi-frame image, the number of each slice's frame, from 1; empty otherwise.
        volume: whether the case is one.
        made: when the results are made, in local time.
    """

    headers: tuple[Dataset, ...]
    frames: tuple[int, ...]
    volume: bool
    made: datetime

    @property
    def first(self) -> Dataset:
        return self.headers[0]

    def stacked(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array of the case's grid as one of the images' frames.

        Args:
            array: (X, Y, Z) of a volume or (H, W) of an image, further axes behind.

        Returns:
            (frames, rows, columns, ...): in the order of `headers` or, of a multi-frame image, of its frames, with
            zeros where a frame is no slice of the volume.
        """
        if not self.volume:
            return array[np.newaxis]
        slices = np.moveaxis(array, (0, 1, 2), (2, 1, 0))
        if not self.frames:
            return slices
        frames = np.zeros((int(self.first.NumberOfFrames), *slices.shape[1:]), dtype=array.dtype)
        frames[np.asarray(self.frames) - 1] = slices
        return frames

    def references(self, slices: Sequence[int] | None = None) -> list[tuple[str, str, list[int] | None]]:
        """SOP class, SOP instance and frame numbers (None for all) of each image, or of those of some slices."""
        chosen, frames = self.headers, self.frames
        if slices is not None and frames:
            frames = tuple(sorted(frames[index] for index in slices))
        elif slices is not None:
            chosen = tuple(chosen[index] for index in slices)
        return [(str(h.SOPClassUID), str(h.SOPInstanceUID), list(frames) or None) for h in chosen]


def slices_with(prediction: Prediction, value: int) -> list[int]:
    """The slices of a volume on which the mask has a value."""
    slices: list[int] = np.flatnonzero((prediction.mask == value).any(axis=(0, 1))).tolist()
    return slices


def source_images(prediction: Prediction) -> SourceImages:
    """Read the headers of the images behind a prediction and fill what objects made from them cannot go without.

    Type 2 attributes of patient and study (PS3.3 C.7.1.1, C.7.2.1) become empty where they are absent or cannot be
    read; a Frame of Reference UID of images that have positions is made up from the series where it is absent. Text
    is in UTF-8 afterwards, in which every structure's name can be written beside it.

    Raises:
        NoDicomResult: the case is not from DICOM, or its array is not the images' own grid.
        OSError: a file is gone.
    """
    case = prediction.case
    source = case.header
    if not isinstance(source, DicomSource):
        raise NoDicomResult("The input is not DICOM: no DICOM objects were written.")
    if prediction.is_overview:
        raise NoDicomResult(
            "No DICOM objects are written of whole-slide images: mask.tif and mask.geojson hold the mask."
        )
    if source.frames and len(source.files) > 1:
        raise NoDicomResult(
            "The images are of the enhanced kind in several files, to which no DICOM object made here can refer: "
            "none were written."
        )
    headers = source.datasets()
    for header in headers:
        _make_complete(header, source)
    _check_grid(case, source, headers)
    if case.is_volume:
        _check_places(case, source, headers)
        _fill_thickness(case, headers)
    _share_orientation(headers)
    made = datetime.now().replace(microsecond=0)
    return SourceImages(tuple(headers), tuple(source.frames), case.is_volume, made)


def _make_complete(header: Dataset, source: DicomSource) -> None:
    _drop_malformed(header)
    header.decode()
    header.SpecificCharacterSet = _UTF_8
    meta = getattr(header, "file_meta", Dataset())
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if not header.get(keyword):
            setattr(header, keyword, meta.get(f"MediaStorage{keyword}") or "")
    if not (header.SOPClassUID and header.SOPInstanceUID):
        raise NoDicomResult("An image has no SOP Instance UID to refer to: no DICOM objects were written.")
    header.StudyInstanceUID, header.SeriesInstanceUID = source.study_uid, source.series_uid
    for keyword in _TYPE_2:
        if header.get(keyword) is None:
            setattr(header, keyword, "")
    if str(header.PatientSex or "") not in _SEXES:
        header.PatientSex = ""
    if _has_position(header):
        if not header.get("FrameOfReferenceUID"):
            header.FrameOfReferenceUID = derived_uid("frame of reference", source.series_uid)
    elif "FrameOfReferenceUID" in header:
        # A film has no place in the patient; with an empty or idle UID readers look for one.
        del header.FrameOfReferenceUID


def _drop_malformed(header: Dataset) -> None:
    """Leave out what cannot be read and, of patient and study, dates, ages and numbers in a form that is forbidden.

    Names and identifiers stay as they are, whatever their form: with them the PACS finds the patient.
    """
    for tag in list(header.keys()):
        try:
            element = header[tag]
            if element.VR in _FORMAL and tag.group in _COPIED_GROUPS:
                for value in element.value if element.VM > 1 else [element.value]:
                    validate_value(element.VR, str("" if value is None else value), pydicom.config.RAISE)
        except Exception:  # of every kind, from as many converters
            del header[tag]


def _has_position(header: Dataset) -> bool:
    if "ImagePositionPatient" in header:
        return True
    groups = header.get("PerFrameFunctionalGroupsSequence") or header.get("SharedFunctionalGroupsSequence")
    return bool(groups) and "PlanePositionSequence" in groups[0]


def _check_grid(case: Case, source: DicomSource, headers: Sequence[Dataset]) -> None:
    shape = case.array.shape[1:]
    rows, columns = int(headers[0].Rows), int(headers[0].Columns)
    slices = len(source.frames) or len(source.files)
    expected = (columns, rows, slices) if case.is_volume else (rows, columns)
    if shape != expected:
        raise NoDicomResult(
            "The mask is not on the grid of the DICOM images (it was resampled or cropped when it was read): "
            "no DICOM objects were written."
        )
    if not case.is_volume and int(headers[0].get("NumberOfFrames") or 1) > 1:
        raise NoDicomResult(
            "The DICOM image has several frames and is no volume (a tiled slide or a film): "
            "no DICOM objects were written."
        )


def _check_places(case: Case, source: DicomSource, headers: Sequence[Dataset]) -> None:
    """Refuse images that lie half a voxel or more away from where the mask has their slices."""
    assert case.affine is not None
    if source.frames:
        groups = headers[0].PerFrameFunctionalGroupsSequence
        places = [groups[number - 1].PlanePositionSequence[0] for number in source.frames]
    else:
        places = list(headers)
    points = np.array([place.get("ImagePositionPatient") or [np.nan] * 3 for place in places], dtype=float)
    index = (points * LPS_TO_RAS - case.affine[:3, 3]) @ np.linalg.inv(case.affine[:3, :3]).T
    index[:, 2] -= np.arange(len(index))
    if not (np.abs(index) < 0.5).all():
        raise NoDicomResult(
            "The DICOM images do not lie where the mask has their slices: no DICOM objects were written."
        )


def _fill_thickness(case: Case, headers: Sequence[Dataset]) -> None:
    """Slice Thickness is of type 2 in CT and may be empty; pixel measures of a result want one (PS3.3 C.7.6.16.2.1)."""
    assert case.affine is not None
    across = np.cross(case.affine[:3, 0], case.affine[:3, 1])
    distance = abs(float(case.affine[:3, 2] @ across) / float(np.linalg.norm(across)))
    for header in headers:
        if "NumberOfFrames" not in header and not header.get("SliceThickness"):
            header.SliceThickness = round(distance, 6)


def _share_orientation(headers: Sequence[Dataset]) -> None:
    """Where orientations differ by rounding only, which exporters do, take the first for all."""
    first = headers[0].get("ImageOrientationPatient")
    for header in headers[1:]:
        other = header.get("ImageOrientationPatient")
        if (
            first
            and other
            and np.allclose(np.asarray(first, float), np.asarray(other, float), atol=_ROUNDING)
        ):
            header.ImageOrientationPatient = first


# --- what makes a second run write the same objects, but for the time ------------------------------------


def derived_uid(*parts: str) -> str:
    """A UID that is the same for the same parts: a name-based UUID under 2.25, PS3.5 B.2 and RFC 4122 4.3."""
    return str(UID.from_uuid(str(uuid.uuid5(_NAMESPACE, "\n".join(parts)))))


def content_digest(prediction: Prediction, algorithm: Algorithm, *more: str) -> str:
    """SHA-256 of all that goes into a result beside the source: mask, labels, settings, weights, version."""
    digest = hashlib.sha256()
    settings = repr((sorted(prediction.labels.items()), sorted(algorithm.parameters().items())))
    for text in (algorithm.version, settings, repr(prediction.mask.shape), *more):
        digest.update(text.encode("utf-8", "replace") + b"\0")
    for block in np.moveaxis(prediction.mask, -1, 0):
        digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def object_arguments(
    kind: str,
    prediction: Prediction,
    source: SourceImages,
    algorithm: Algorithm,
    series_number: int,
    *content: str,
) -> dict[str, Any]:
    """What makes an object one of its own: UIDs from series, weights and content, who made it, and when.

    With a request the UIDs follow from series, images, weights, settings and request, not from the content: a server
    then knows an object for one that it has, even where another device computes some voxels otherwise.

    Args:
        kind: of object; two kinds made of the same content are two objects.
        content: digests of what goes into it beside the mask.

    Returns:
        arguments that all of highdicom's objects take.
    """
    images = repr(source.references())
    if algorithm.request:
        asked = repr((algorithm.version, sorted(algorithm.parameters().items()), algorithm.request, images))
        digest = hashlib.sha256(asked.encode()).hexdigest()
    else:
        digest = content_digest(prediction, algorithm, images, *content)
    parts = (str(source.first.SeriesInstanceUID), digest)
    return {
        "series_instance_uid": derived_uid(f"{kind} series", *parts),
        "series_number": series_number,
        "sop_instance_uid": derived_uid(kind, *parts),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": NAME,
        "software_versions": algorithm.version,
        "device_serial_number": algorithm.weights_sha256 or "unknown",
        "content_date": source.made.date(),
        "content_time": source.made.time(),
        "specific_character_set": _UTF_8,
    }


def make_repeatable(result: Dataset, source: SourceImages) -> None:
    """Replace what highdicom takes from the clock itself or draws at random, in place.

    Creation times become those of `source.made`, UIDs of dimension organisations follow from the instance's own.
    """
    date, time = source.made.strftime("%Y%m%d"), source.made.strftime("%H%M%S")
    result.InstanceCreationDate, result.InstanceCreationTime = date, time
    result.SeriesDate, result.SeriesTime = date, time
    organisation = derived_uid("dimensions", str(result.SOPInstanceUID))
    for item in (*result.get("DimensionOrganizationSequence", ()), *result.get("DimensionIndexSequence", ())):
        item.DimensionOrganizationUID = organisation
    for item in result.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            item.ContributionDateTime = date + time
