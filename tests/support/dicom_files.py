"""Small DICOM series of known voxels and geometry, whole and broken, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
DX_IMAGE = "1.2.840.10008.5.1.4.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
SHAPE = (36, 34)  # rows, columns; OpenJPEG encodes nothing below 32
SPACING = (0.7, 0.9)  # between rows, between columns, mm
ORIGIN = (-40.0, -55.0, 120.0)
STEP = 2.5
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def ramp(index: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """HU (rows, columns) of a slice: no two voxels of a series, and no two directions, look alike."""
    rows, columns = np.indices(shape)
    return (-1000 + 100 * index + 3 * rows + 7 * columns + 2 * (rows * columns % 5)).astype(np.int16)


class Ct:
    """A CT series in memory: change its data sets, then write them.

    Args:
        count: slices.
        orientation: ImageOrientationPatient.
        step: mm between slices, along the normal.
        lean: mm that each slice is shifted along its columns against the one before, as a tilted gantry does.
    """

    def __init__(
        self,
        count: int = 12,
        orientation: tuple[float, ...] = AXIAL,
        step: float = STEP,
        lean: float = 0.0,
        shape: tuple[int, int] = SHAPE,
    ) -> None:
        self.shape = shape
        row, column = np.array(orientation[:3]), np.array(orientation[3:])
        self.vectors = row, column, step * np.cross(row, column) + lean * column
        self.study, self.series, self.frame = generate_uid(), generate_uid(), generate_uid()
        self.slices = [self.slice(index, orientation) for index in range(count)]

    def position(self, index: float) -> np.ndarray:
        """LPS mm."""
        return np.array(ORIGIN) + index * self.vectors[2]

    def slice(self, index: int, orientation: tuple[float, ...] = AXIAL) -> Any:
        dataset = new_dataset(CT_IMAGE, self.study, self.series)
        dataset.Modality = "CT"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.FrameOfReferenceUID = self.frame
        dataset.SeriesDescription = "Abdomen 2.5 B30f"
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = [float(value) for value in np.round(self.position(index), 6)]
        dataset.ImageOrientationPatient = list(orientation)
        dataset.PixelSpacing = list(SPACING)
        dataset.SliceThickness = float(np.round(np.linalg.norm(self.vectors[2]), 6))
        set_pixels(dataset, ramp(index, self.shape) + 1024, intercept=-1024)
        return dataset

    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """What independent arithmetic gives: (columns, rows, slices) HU, and the affine in RAS+."""
        array = np.stack([ramp(index, self.shape).T for index in range(len(self.slices))], axis=-1)
        affine = np.eye(4)
        affine[:3, 0] = self.vectors[0] * SPACING[1]
        affine[:3, 1] = self.vectors[1] * SPACING[0]
        affine[:3, 2] = self.vectors[2]
        affine[:3, 3] = ORIGIN
        return array.astype(np.float32), np.diag([-1, -1, 1, 1]) @ affine

    def write(self, folder: Path, name: Callable[[int], str] = "IM{:04d}.dcm".format) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for index, dataset in enumerate(self.slices):
            save(dataset, folder / name(index))
        return folder


def new_dataset(sop_class: str, study: str, series: str) -> Any:
    """The attributes that every DICOM object has, of a patient whose name must never come up."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientName, dataset.PatientID = "Sorrow^Jane", "HX-48151"
    dataset.PatientBirthDate, dataset.StudyDate = "19550312", "20200229"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def set_pixels(dataset: Any, values: np.ndarray, slope: float = 1, intercept: float | None = None) -> None:
    """Store grey values of 16 bits, or 8, signed where they are negative."""
    eight = values.dtype == np.uint8
    signed = bool(values.min() < 0)
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 if eight else 16
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(signed)
    data = values.astype("u1" if eight else ("<i2" if signed else "<u2")).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if eight else "OW"
    if intercept is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept


def save(dataset: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = dataset.file_meta
    if "MediaStorageSOPInstanceUID" not in meta:
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
            dataset.SOPClassUID,
            dataset.SOPInstanceUID,
        )
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def compress(dataset: Any, syntax: str, stream: bytes) -> None:
    """Put an encoded frame in the place of the pixels."""
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax


def film(values: np.ndarray, photometric: str = "MONOCHROME2", **attributes: Any) -> Any:
    """A digital radiograph (rows, columns) with what else is given by keyword."""
    dataset = new_dataset(DX_IMAGE, generate_uid(), generate_uid())
    dataset.Modality, dataset.ImageType = "DX", ["ORIGINAL", "PRIMARY"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    set_pixels(dataset, values)
    dataset.PhotometricInterpretation = photometric
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def report(study: str, *sections: tuple[str, str], sop_class: str = BASIC_TEXT_SR) -> Any:
    """A structured report of (heading, text) sections."""
    dataset = new_dataset(sop_class, study, generate_uid())
    dataset.Modality, dataset.ContentDate, dataset.ContentTime = "SR", "20200229", "101500"
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"

    def named(meaning: str, **values: Any) -> Any:
        item, code = pydicom.Dataset(), pydicom.Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99TEST", meaning
        item.ConceptNameCodeSequence = [code]
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return item

    dataset.ContentSequence = [
        named("Person Observer Name", ValueType="PNAME", PersonName="Gloom^Doctor"),
        *(
            named(
                heading,
                ValueType="CONTAINER",
                ContentSequence=[named("Text", ValueType="TEXT", TextValue=text)],
            )
            for heading, text in sections
        ),
    ]
    return dataset
