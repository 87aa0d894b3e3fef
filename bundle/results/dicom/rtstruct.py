"""A mask as contours on the source's slices: RT Structure Set (PS3.3 A.19), as treatment planning takes it.

highdicom has no such object; rt_utils takes neither multi-frame images nor holes without OpenCV's contours, which
run through the pixels' centres and lose a structure's outer half pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom.base import SOPClass
from nibabel.affines import apply_affine
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import format_number_as_ds

from bundle.cases.structures import Structures
from bundle.results.dicom.codes import short_text, structure_codes
from bundle.results.dicom.seg import Segment, segments_of
from bundle.results.dicom.source import (
    LPS_TO_RAS,
    NAME,
    Algorithm,
    NoDicomResult,
    SourceImages,
    make_repeatable,
    object_arguments,
    slices_with,
)
from bundle.results.files.contours import keyholed, outlines
from bundle.results.prediction import Prediction

STRUCTURE_SET_SERIES = 9004
_STUDY_COMPONENT = (
    "1.2.840.10008.3.1.2.3.1"  # Detached Study Management SOP Class, as PS3.3 table C.8-41 wants a study
)


def make_structure_set(prediction: Prediction, source: SourceImages, algorithm: Algorithm) -> SOPClass:
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
    arguments = object_arguments("structure set", prediction, source, algorithm, STRUCTURE_SET_SERIES)
    result = SOPClass(
        study_instance_uid=str(source.first.StudyInstanceUID),
        sop_class_uid=RTStructureSetStorage,
        modality="RTSTRUCT",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=f"Contours, {NAME}",
        **{**arguments, "content_date": None, "content_time": None},  # the IOD has other names for them
    )
    result.copy_patient_and_study_information(source.first)
    result.OperatorsName, result.PositionReferenceIndicator = "", ""
    result.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    result.StructureSetLabel, result.StructureSetDescription = "SEGMENTATION", "Research use only"
    result.ReferencedFrameOfReferenceSequence = [_referenced_frame_of_reference(source)]
    result.StructureSetROISequence = [_roi(segment, source) for segment in segments]
    result.ROIContourSequence = [_contours(segment, prediction, source) for segment in segments]
    result.RTROIObservationsSequence = [_observation(segment, prediction.structures) for segment in segments]
    result.ApprovalStatus = "UNAPPROVED"
    make_repeatable(result, source)
    result.StructureSetDate, result.StructureSetTime = result.SeriesDate, result.SeriesTime
    return result


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _referenced_frame_of_reference(source: SourceImages) -> Dataset:
    images = _images(source, None)
    series = _item(SeriesInstanceUID=source.first.SeriesInstanceUID, ContourImageSequence=images)
    study = _item(
        ReferencedSOPClassUID=_STUDY_COMPONENT, ReferencedSOPInstanceUID=source.first.StudyInstanceUID
    )
    study.RTReferencedSeriesSequence = [series]
    return _item(FrameOfReferenceUID=source.first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _roi(segment: Segment, source: SourceImages) -> Dataset:
    item = _item(ROINumber=segment.number, ROIName=short_text(segment.name))
    item.ReferencedFrameOfReferenceUID = source.first.FrameOfReferenceUID
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    return item


def _images(source: SourceImages, slices: Sequence[int] | None) -> list[Dataset]:
    """The images, or those of some slices; of a multi-frame image its frames."""
    items = []
    for sop_class, sop_instance, frames in source.references(slices):
        items.append(_item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=sop_instance))
        if frames and slices is not None:
            items[-1].ReferencedFrameNumber = frames
    return items


def _contours(segment: Segment, prediction: Prediction, source: SourceImages) -> Dataset:
    affine = prediction.case.affine
    assert affine is not None
    contours: list[Dataset] = []
    for place in slices_with(prediction, segment.value):
        # (X, Y) of the grid; outlines therefore come as column and row of the image
        for outline, holes in outlines(prediction.mask[:, :, place] == segment.value):
            ring = keyholed(outline, holes)[:-1]  # a closed contour does not repeat its first point
            index = np.column_stack([ring, np.full(len(ring), place)])
            points = apply_affine(affine, index) * LPS_TO_RAS
            contour = _item(ContourImageSequence=_images(source, [place]), ContourNumber=len(contours) + 1)
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [format_number_as_ds(round(float(value), 4)) for value in points.ravel()]
            contours.append(contour)
    colour = list(prediction.structures.colour(segment.name))
    return _item(ROIDisplayColor=colour, ReferencedROINumber=segment.number, ContourSequence=contours)


def _observation(segment: Segment, structures: Structures) -> Dataset:
    structure = structure_codes(segment.name, structures)
    item = _item(ObservationNumber=segment.number, ReferencedROINumber=segment.number, ROIInterpreter="")
    item.RTROIInterpretedType = "ORGAN" if structure.region is None else ""
    kind = structure.type
    identification = _item(CodeValue=kind.value, CodingSchemeDesignator=kind.scheme_designator)
    identification.CodeMeaning = kind.meaning
    item.RTROIIdentificationCodeSequence = [identification]
    return item
