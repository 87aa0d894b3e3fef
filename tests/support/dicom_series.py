"""Small DICOM series made with pydicom, and cases and predictions as a reader of them hands them on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
)

from bundle.cases.case import Case, CaseReference
from bundle.cases.dicom import DicomSource
from bundle.results import Prediction

ROOT = "1.2.826.0.1.3680043.8.498.7"
STUDY, SERIES, FRAME = f"{ROOT}.1", f"{ROOT}.2", f"{ROOT}.3"
COLUMNS, ROWS, SLICES = 32, 24, 12
SPACING = (0.9, 0.7, 2.5)  # mm: of rows, of columns, of slices
TILT = np.deg2rad(20.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (float(np.cos(TILT)), 0.0, float(np.sin(TILT)), 0.0, 1.0, 0.0)


def _general(sop_class: str, instance: str, modality: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID, header.SOPInstanceUID = sop_class, instance
    header.StudyInstanceUID, header.SeriesInstanceUID = STUDY, SERIES
    header.PatientName, header.PatientID = "M\u00fcller^Jos\u00e9", "P-4711"
    header.PatientBirthDate, header.PatientSex = "19500203", "F"
    header.StudyDate, header.StudyTime, header.StudyID = "20240506", "070809", "1"
    header.SeriesDate, header.SeriesTime = "20240506", "071500"
    header.ContentDate, header.ContentTime = "20240506", "071600"
    header.AccessionNumber, header.ReferringPhysicianName = "A-1", "House^Gregory"
    header.Modality, header.SeriesNumber, header.InstanceNumber = modality, 3, 1
    header.Manufacturer, header.ManufacturerModelName = "Maker", "Model"
    header.SoftwareVersions, header.DeviceSerialNumber = "1", "1"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.LossyImageCompression = "00"
    return header


def _pixels(header: Dataset, pixels: NDArray[Any]) -> None:
    header.Rows, header.Columns = pixels.shape[-2:]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 1
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = 0, 1, "HU"
    header.PixelData = pixels.astype("<i2").tobytes()


def positions(orientation: Sequence[float] = AXIAL, feet_first: bool = False) -> NDArray[np.float64]:
    """(slices, 3) in mm, LPS."""
    normal = np.cross(orientation[:3], orientation[3:])
    steps = np.arange(SLICES)[::-1] if feet_first else np.arange(SLICES)
    return np.array([-12.5, 31.25, -100.0]) + np.outer(steps * SPACING[2], normal)


def write_ct(
    folder: Path, orientation: Sequence[float] = AXIAL, feet_first: bool = False, **changes: Any
) -> list[Path]:
    """A CT series, a file a slice, in the order of its slices; `changes` overwrite or (None) remove elements."""
    folder.mkdir(parents=True, exist_ok=True)
    hounsfield = np.random.default_rng(3).integers(-200, 300, (SLICES, ROWS, COLUMNS))
    files = []
    for index, position in enumerate(positions(orientation, feet_first)):
        header = _general(CTImageStorage, f"{SERIES}.{index + 1}", "CT")
        _pixels(header, hounsfield[index])
        header.FrameOfReferenceUID, header.PositionReferenceIndicator = FRAME, ""
        header.ImagePositionPatient = [float(f"{value:.6f}") for value in position]
        header.ImageOrientationPatient = [float(f"{value:.8f}") for value in orientation]
        header.PixelSpacing, header.SliceThickness = list(SPACING[:2]), SPACING[2]
        header.InstanceNumber, header.KVP, header.AcquisitionNumber = index + 1, 120, 1
        _change(header, changes)
        # file names say nothing of the order
        files.append(folder / f"{(index * 5) % SLICES:02d}")
        header.save_as(files[-1], enforce_file_format=True)
    return files


def write_enhanced_ct(path: Path) -> Path:
    """The same as one multi-frame file whose frames are not in the order of their positions."""
    order = frame_order()
    hounsfield = np.random.default_rng(3).integers(-200, 300, (SLICES, ROWS, COLUMNS))
    header = _general(EnhancedCTImageStorage, f"{SERIES}.99", "CT")
    _pixels(header, hounsfield[order])
    header.NumberOfFrames, header.FrameOfReferenceUID = SLICES, FRAME
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = list(SPACING[:2]), SPACING[2]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index in order:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [float(value) for value in positions()[index]]
        frame.PlanePositionSequence = [place]
        groups.append(frame)
    header.PerFrameFunctionalGroupsSequence = groups
    header.save_as(path, enforce_file_format=True)
    return path


def frame_order() -> list[int]:
    """Slice of each frame of the enhanced file."""
    return [int(index) for index in np.random.default_rng(5).permutation(SLICES)]


def write_film(path: Path, **changes: Any) -> Path:
    """A computed radiograph without any place in the patient."""
    header = _general(ComputedRadiographyImageStorage, f"{SERIES}.50", "CR")
    _pixels(header, np.random.default_rng(4).integers(0, 4000, (40, 28)))
    for keyword in ("RescaleIntercept", "RescaleSlope", "RescaleType"):
        delattr(header, keyword)
    header.BodyPartExamined, header.ViewPosition = "CHEST", "PA"
    _change(header, changes)
    header.save_as(path, enforce_file_format=True)
    return path


def _change(header: Dataset, changes: dict[str, Any]) -> None:
    for keyword, value in changes.items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)


def affine_of(headers: Sequence[Dataset]) -> NDArray[np.float64]:
    """(column, row, slice) -> RAS+ mm, as PS3.3 C.7.6.2.1.1 places pixels."""
    first, last = headers[0], headers[-1]
    rows, columns = (float(value) for value in first.PixelSpacing)
    orientation = np.array(first.ImageOrientationPatient, dtype=float)
    start = np.array(first.ImagePositionPatient, dtype=float)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = orientation[:3] * columns, orientation[3:] * rows
    along = np.array(last.ImagePositionPatient, dtype=float) - start
    normal = np.cross(orientation[:3], orientation[3:]) * float(first.get("SliceThickness") or 1.0)
    affine[:3, 2] = along / (len(headers) - 1) if len(headers) > 1 else normal
    affine[:3, 3] = start
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def source_of(files: Sequence[Path], **extra: Any) -> DicomSource:
    header = pydicom.dcmread(files[0], stop_before_pixels=True)
    study, series = (header.get(name) or "" for name in ("StudyInstanceUID", "SeriesInstanceUID"))
    return DicomSource(tuple(files), study or STUDY, series or SERIES, **extra)


def volume_case(files: Sequence[Path], case_id: str = "case_1") -> Case:
    """What a reader makes of a series of single slices."""
    data = [pydicom.dcmread(path) for path in files]
    slices = [
        header.pixel_array.astype(np.float32) * float(header.RescaleSlope) + float(header.RescaleIntercept)
        for header in data
    ]
    array = np.stack(slices).transpose(2, 1, 0)[None]
    return Case(
        CaseReference(case_id, files[0].parent), array, affine_of(data), "CT", "file", source_of(files)
    )


def enhanced_case(path: Path) -> Case:
    header = pydicom.dcmread(path)
    order = frame_order()
    frames = tuple(order.index(index) + 1 for index in range(SLICES))
    array = header.pixel_array[np.array(frames) - 1].astype(np.float32).transpose(2, 1, 0)[None]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.array(
        [
            [SPACING[1], 0, 0, -12.5],
            [0, SPACING[0], 0, 31.25],
            [0, 0, SPACING[2], -100.0],
            [0, 0, 0, 1],
        ]
    )
    return Case(CaseReference("case_1", path), array, affine, "CT", "file", source_of([path], frames=frames))


def film_case(path: Path) -> Case:
    array = pydicom.dcmread(path).pixel_array.astype(np.float32)[None]
    return Case(
        CaseReference("case_1", path), array, None, "X-ray", "file", source_of([path]), full_scale=4095.0
    )


def predicted(case: Case, labels: dict[int, str], seed: int = 11, **extra: Any) -> Prediction:
    """A mask of blobs at places that no mirror or exchange of axes would bring onto themselves."""
    rng = np.random.default_rng(seed)
    shape = case.array.shape[1:]
    mask = np.zeros(shape, np.uint8)
    for value in labels:
        corner = [int(rng.integers(0, max(edge // 2, 1))) for edge in shape]
        size = [int(rng.integers(max(edge // 4, 1), max(edge // 2, 2))) for edge in shape]
        place = tuple(slice(start, start + edge) for start, edge in zip(corner, size, strict=True))
        mask[place] = np.where(rng.random(mask[place].shape) < 0.8, value, mask[place])
    probability = rng.random((len(labels), *shape), np.float32) / max(len(labels), 1)
    return Prediction(
        case,
        mask,
        probability,
        rng.random(shape, np.float32),
        labels,
        settings={"steps": 2, "seed": 0},
        **extra,
    )
