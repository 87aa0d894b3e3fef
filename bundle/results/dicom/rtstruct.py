"""A mask as contours on the source's slices: RT Structure Set (PS3.3 A.19), as treatment planning takes it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import format_number_as_ds

from bundle.results.dicom.codes import short_text, structure_codes
from bundle.results.dicom.seg import Segment, object_identity, segments_of
from bundle.results.dicom.source import NAME, Algorithm, NoDicomResult, SourceImages
from bundle.results.files.contours import keyholed, outlines
from bundle.results.pictures.colours import structure_colour
from bundle.results.prediction import Prediction

STRUCTURE_SET_SERIES = 9004
_STUDY_COMPONENT = (
    "1.2.840.10008.3.1.2.3.1"  # Detached Study Management SOP Class, as PS3.3 table C.8-41 wants a study
)
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
#: Of patient and study (PS3.3 C.7.1.1, C.7.2.1), taken from the source.
_COPIED = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)


def make_structure_set(prediction: Prediction, source: SourceImages, algorithm: Algorithm) -> FileDataset:
    """One ROI a structure that was found, one closed planar contour a region and slice, in mm of the patient (LPS).

    A pixel belongs to the ROI if its centre lies within a contour. A hole is reached by a channel of no width
    ('keyhole', PS3.3 C.8.8.6.3), which every reader understands.

    Raises:
        NoDicomResult: the case is no volume, or nothing was found.
    """
    if not source.volume:
        raise NoDicomResult(
            "A film has no place in the patient to draw contours in: no RT structure set was written."
        )
    segments = segments_of(prediction, source, algorithm)
    if not segments:
        raise NoDicomResult("No structure was found: no RT structure set was written.")
    identity = object_identity("structure set", prediction, source, algorithm, STRUCTURE_SET_SERIES)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = identity["sop_instance_uid"]
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword in _COPIED:
        setattr(result, keyword, source.first.get(keyword) or "")
    date, time = source.made.strftime("%Y%m%d"), source.made.strftime("%H%M%S")
    result.SOPClassUID, result.SOPInstanceUID = RTStructureSetStorage, identity["sop_instance_uid"]
    result.InstanceCreationDate, result.InstanceCreationTime = date, time
    result.Modality, result.OperatorsName = "RTSTRUCT", ""
    result.SeriesInstanceUID, result.SeriesNumber = identity["series_instance_uid"], STRUCTURE_SET_SERIES
    result.SeriesDescription, result.InstanceNumber = f"Contours, {NAME}", 1
    result.SeriesDate, result.SeriesTime = date, time
    result.Manufacturer = identity["manufacturer"]
    result.ManufacturerModelName = identity["manufacturer_model_name"]
    result.SoftwareVersions = identity["software_versions"]
    result.DeviceSerialNumber = identity["device_serial_number"]
    result.FrameOfReferenceUID, result.PositionReferenceIndicator = _frame_of_reference(source), ""
    result.StructureSetLabel = "SEGMENTATION"
    result.StructureSetDescription = "Research use only"
    result.StructureSetDate, result.StructureSetTime = date, time
    result.ReferencedFrameOfReferenceSequence = Sequence([_referenced_frame_of_reference(source)])
    result.StructureSetROISequence = Sequence(_roi(segment, source) for segment in segments)
    result.ROIContourSequence = Sequence(_contours(segment, prediction, source) for segment in segments)
    result.RTROIObservationsSequence = Sequence(_observation(segment) for segment in segments)
    result.ApprovalStatus = "UNAPPROVED"
    return result


def _frame_of_reference(source: SourceImages) -> str:
    return str(source.first.FrameOfReferenceUID)


def _image_references(source: SourceImages, places: range | None = None) -> list[Dataset]:
    """The images, or those of some slices; of a multi-frame image its frames."""
    if source.frames:
        item = _reference(str(source.first.SOPClassUID), str(source.first.SOPInstanceUID))
        if places is not None:
            item.ReferencedFrameNumber = [source.frames[place] for place in places]
        return [item]
    chosen = source.headers if places is None else [source.headers[place] for place in places]
    return [_reference(str(header.SOPClassUID), str(header.SOPInstanceUID)) for header in chosen]


def _reference(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    return item


def _referenced_frame_of_reference(source: SourceImages) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = source.first.SeriesInstanceUID
    series.ContourImageSequence = Sequence(_image_references(source))
    study = _reference(_STUDY_COMPONENT, str(source.first.StudyInstanceUID))
    study.RTReferencedSeriesSequence = Sequence([series])
    frame = Dataset()
    frame.FrameOfReferenceUID = _frame_of_reference(source)
    frame.RTReferencedStudySequence = Sequence([study])
    return frame


def _roi(segment: Segment, source: SourceImages) -> Dataset:
    item = Dataset()
    item.ROINumber = segment.number
    item.ReferencedFrameOfReferenceUID = _frame_of_reference(source)
    item.ROIName = short_text(segment.name)
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    return item


def _contours(segment: Segment, prediction: Prediction, source: SourceImages) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = [round(255 * part) for part in structure_colour(segment.name)]
    item.ReferencedROINumber = segment.number
    contours: list[Dataset] = []
    inside = prediction.mask == segment.value
    for place in np.flatnonzero(inside.any(axis=(0, 1))).tolist():
        # (X, Y) of the grid; outlines therefore come as column and row of the image
        for outline, holes in outlines(inside[:, :, place]):
            ring = keyholed(outline, holes)[:-1]  # a closed contour does not repeat its first point
            contours.append(_contour(ring, place, prediction, source, len(contours) + 1))
    item.ContourSequence = Sequence(contours)
    return item


def _contour(
    ring: NDArray[Any], place: int, prediction: Prediction, source: SourceImages, number: int
) -> Dataset:
    affine = prediction.case.affine
    assert affine is not None
    index = np.column_stack([ring, np.full(len(ring), float(place))])  # (points, 3)
    points = (index @ affine[:3, :3].T + affine[:3, 3]) * _RAS_TO_LPS
    contour = Dataset()
    contour.ContourImageSequence = Sequence(_image_references(source, range(place, place + 1)))
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    contour.ContourNumber = number
    contour.ContourData = [format_number_as_ds(round(float(value), 4)) for value in points.ravel()]
    return contour


def _observation(segment: Segment) -> Dataset:
    codes = structure_codes(segment.name)
    item = Dataset()
    item.ObservationNumber = segment.number
    item.ReferencedROINumber = segment.number
    identification = Dataset()
    identification.CodeValue, identification.CodingSchemeDesignator = (
        codes.type.value,
        codes.type.scheme_designator,
    )
    identification.CodeMeaning = codes.type.meaning
    item.RTROIIdentificationCodeSequence = Sequence([identification])
    item.RTROIInterpretedType = "ORGAN" if codes.region is None else ""
    item.ROIInterpreter = ""
    return item
