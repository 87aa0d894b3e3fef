"""A good series, broken in every way we could think of: the right volume, or one clear sentence; nothing in between."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from bundle.cases import CaseError, collect, read_case
from bundle.cases.case import Case
from bundle.cases.dicom import SeriesSelection
from tests.support.dicom_files import (
    AXIAL,
    CT_IMAGE,
    MR_IMAGE,
    SECONDARY_CAPTURE,
    SHAPE,
    SPACING,
    STEP,
    Ct,
    compress,
    new_dataset,
    ramp,
    save,
    set_pixels,
)

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)
TILTED = (1.0, 0.0, 0.0, 0.0, 0.970295726, -0.241921896)
Broken = Callable[[Path], Ct]
ROWS: dict[str, tuple[Broken, str, str]] = {}


def row(name: str, refused: str = "", warning: str = "") -> Callable[[Broken], Broken]:
    """A row of the table: what the error says, or what the report says of a volume that is right."""

    def add(broken: Broken) -> Broken:
        ROWS[name] = (broken, refused, warning)
        return broken

    return add


def attribute(name: str, refused: str, keyword: str, value: Any, which: slice = slice(None)) -> None:
    """A row whose slices have an attribute changed, or dropped where the value is None."""

    def broken(folder: Path) -> Ct:
        ct = Ct()
        for dataset in ct.slices[which]:
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        ct.write(folder)
        return ct

    ROWS[name] = (broken, refused, "")


def patch_file(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


# --- names, order, company -----------------------------------------------------------------------------------


@row("as it should be")
def _whole(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    return ct


@row("shuffled names without suffix")
def _shuffled(folder: Path) -> Ct:
    ct = Ct()
    order = np.random.default_rng(0).permutation(12)
    ct.write(folder, lambda index: f"Z{order[index] * 7919 % 101:03d}")
    return ct


@row("scrambled InstanceNumber")
def _scrambled(folder: Path) -> Ct:
    ct = Ct()
    for dataset, number in zip(ct.slices, np.random.default_rng(1).permutation(12), strict=True):
        dataset.InstanceNumber = int(number)
    ct.write(folder)
    return ct


attribute("absent InstanceNumber", "", "InstanceNumber", None)
attribute("one InstanceNumber for all", "", "InstanceNumber", 1)
attribute("slice location that lies", "", "SliceLocation", 3.0)


@row("files in subfolders")
def _tree(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder, lambda index: f"disk{index % 3}/a{index}")
    return ct


@row("text, pictures of nothing and empty files among them")
def _company(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    (folder / "README.txt").write_text("exported for research")
    (folder / "notes").write_bytes(b"\x00\x01\x02")
    (folder / "empty").touch()
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 200)
    return ct


@row("an empty .dcm and a text called .dcm among them", warning="2 files that cannot be read as DICOM")
def _broken_company(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    (folder / "IM0100.dcm").touch()
    (folder / "IM0101.dcm").write_text("the requested object was not found")
    return ct


@row("DICOMDIR beside them")
def _dicomdir(folder: Path) -> Ct:
    from pydicom.fileset import FileSet

    ct = Ct()
    for dataset in ct.slices:
        dataset.PatientName, dataset.PatientID, dataset.StudyDate, dataset.StudyTime = (
            "A^B",
            "77",
            "20200229",
            "10",
        )
        dataset.StudyID, dataset.SeriesNumber = "1", 1
    ct.write(folder / "files")
    fileset = FileSet()
    for path in sorted((folder / "files").iterdir()):
        fileset.add(path)
    fileset.write(folder / "media")
    shutil.rmtree(folder / "files")
    assert (folder / "media" / "DICOMDIR").is_file()
    return ct


# --- copies and strangers ------------------------------------------------------------------------------------


@row("every file twice under other names", warning="12 files are copies")
def _twice(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    ct.write(folder / "copy", lambda index: f"b{index}")
    return ct


@row("a copy that is compressed otherwise", warning="1 file is a copy")
def _compressed_copy(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    ct.slices[4].compress(RLELossless, generate_instance_uid=False)
    save(ct.slices[4], folder / "copy")
    return ct


@row("one SOPInstanceUID, two contents", "differs from")
def _two_contents(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    other = ct.slices[3]
    set_pixels(other, ramp(7) + 1024, intercept=-1024)
    save(other, folder / "other")
    return ct


@row("one SOPInstanceUID, two positions", "differs from")
def _two_positions(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    ct.slices[3].ImagePositionPatient = [float(value) for value in ct.position(12)]
    save(ct.slices[3], folder / "other")
    return ct


@row("one SOPInstanceUID for all", "differs from")
def _one_uid(folder: Path) -> Ct:
    ct = Ct()
    for dataset in ct.slices:
        dataset.SOPInstanceUID = ct.slices[0].SOPInstanceUID
    ct.write(folder)
    return ct


@row("two slices at one position", "two different slices at one position")
def _duplicate(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    ct.slices[5].SOPInstanceUID = generate_uid()
    del ct.slices[5].file_meta.MediaStorageSOPInstanceUID
    save(ct.slices[5], folder / "again.dcm")
    return ct


@row("all slices at one position", "all its 12 slices at one position")
def _one_position(folder: Path) -> Ct:
    ct = Ct()
    for dataset in ct.slices:
        dataset.ImagePositionPatient = ct.slices[0].ImagePositionPatient
    ct.write(folder)
    return ct


def _scout(ct: Ct, image_type: list[str]) -> Any:
    scout = ct.slice(0, SAGITTAL)
    scout.ImageType = image_type
    set_pixels(scout, ramp(3, (40, 30)) + 1024, intercept=-1024)
    return scout


@row("localizer inside", warning="is a localizer")
def _localizer(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    save(_scout(ct, ["ORIGINAL", "PRIMARY", "LOCALIZER"]), folder / "scout")
    return ct


@row("localizer inside that does not say so", "mixes slices of different size")
def _unnamed_localizer(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    save(_scout(ct, ["ORIGINAL", "PRIMARY", "AXIAL"]), folder / "scout")
    return ct


@row("a screenshot inside", warning="secondary capture")
def _screenshot(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    shot = new_dataset(SECONDARY_CAPTURE, ct.study, ct.series)
    shot.Modality, shot.ImageType = "CT", ["DERIVED", "SECONDARY"]
    set_pixels(shot, np.full((64, 64), 3, np.uint8))
    save(shot, folder / "shot")
    return ct


@row("two acquisitions under one series UID", "two different slices at one position")
def _two_acquisitions(folder: Path) -> Ct:
    ct, other = Ct(), Ct()
    ct.write(folder)
    for dataset in other.slices:
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = ct.series, ct.study
        dataset.FrameOfReferenceUID = ct.frame
    other.write(folder, "other{}".format)
    return ct


@row("two patients under one series UID", "more than one patient")
def _two_patients(folder: Path) -> Ct:
    ct = Ct()
    for dataset in ct.slices[6:]:
        dataset.PatientID = "another"
    ct.write(folder)
    return ct


attribute(
    "two frames of reference",
    "more than one frame of reference",
    "FrameOfReferenceUID",
    "1.2.3.4",
    slice(6, None),
)
attribute("two modalities", "more than one modality", "Modality", "MR", slice(6, None))


# --- geometry ------------------------------------------------------------------------------------------------


@row("missing slice", "slices missing or unevenly spaced")
def _missing(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    (folder / "IM0005.dcm").unlink()
    return ct


@row("uneven spacing", "slices missing or unevenly spaced")
def _uneven(folder: Path) -> Ct:
    ct = Ct()
    for index, dataset in enumerate(ct.slices):
        dataset.ImagePositionPatient = [float(value) for value in ct.position(index + 0.1 * (index > 6))]
    ct.write(folder)
    return ct


@row("positions rounded to a tenth of a mm")
def _rounded(folder: Path) -> Ct:
    ct = Ct(step=2.5001)
    for index, dataset in enumerate(ct.slices):
        dataset.ImagePositionPatient = [float(value) for value in np.round(ct.position(index), 1)]
    ct.write(folder)
    return ct


@row("one slice out of line", "shifted against each other")
def _out_of_line(folder: Path) -> Ct:
    ct = Ct()
    ct.slices[6].ImagePositionPatient = [float(value) for value in ct.position(6) + (3.0, 0, 0)]
    ct.write(folder)
    return ct


def _shaped(name: str, warning: str = "", **options: Any) -> None:
    def broken(folder: Path) -> Ct:
        ct = Ct(**options)
        ct.write(folder)
        return ct

    ROWS[name] = (broken, "", warning)


_shaped("one slice", count=1)
_shaped("two slices", count=2)
_shaped("coronal", orientation=CORONAL)
_shaped("sagittal", orientation=SAGITTAL)
_shaped("oblique", orientation=OBLIQUE)
_shaped("feet first: rows and columns turned", orientation=(-1.0, 0, 0, 0, -1.0, 0))
_shaped("tilted gantry", "gantry was tilted by 14.0", orientation=TILTED, lean=STEP * np.tan(np.radians(14)))


@row("files in the order from head to feet")
def _flipped(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder, lambda index: f"IM{50 - index}")
    for path, number in zip(sorted(folder.iterdir()), range(1, 13), strict=True):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = number
        dataset.save_as(path)
    return ct


@row("slices mirrored: positions against the normal", warning="")
def _mirrored(folder: Path) -> Ct:
    # The normal points down: the first slice of the stack is the highest one.
    ct = Ct(orientation=(1.0, 0, 0, 0, -1.0, 0))
    ct.write(folder)
    return ct


@row("a stack that leans more than any gantry", "more than a gantry tilts")
def _leaning(folder: Path) -> Ct:
    ct = Ct(lean=STEP * 1.2)
    ct.write(folder)
    return ct


attribute("absent PixelSpacing", "has no PixelSpacing", "PixelSpacing", None)
attribute("empty PixelSpacing", "has no PixelSpacing", "PixelSpacing", "")
attribute("zero PixelSpacing", "PixelSpacing of 0 x 0", "PixelSpacing", [0.0, 0.0])
attribute("negative PixelSpacing", "PixelSpacing of -0.7", "PixelSpacing", [-0.7, -0.9])
attribute("one value of PixelSpacing", "no PixelSpacing that makes sense", "PixelSpacing", [0.7])
attribute(
    "PixelSpacing of one slice differs", "different PixelSpacing", "PixelSpacing", [0.8, 0.9], slice(4, 5)
)
attribute("absent ImagePositionPatient", "has no ImagePositionPatient", "ImagePositionPatient", None)
attribute("one absent position", "has no ImagePositionPatient", "ImagePositionPatient", None, slice(2, 3))
attribute("absent ImageOrientationPatient", "has no ImageOrientationPatient", "ImageOrientationPatient", None)
attribute(
    "orientation of zeros",
    "no pair of perpendicular",
    "ImageOrientationPatient",
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
)
attribute(
    "orientation that is skew",
    "no pair of perpendicular",
    "ImageOrientationPatient",
    [1.0, 0, 0, 0.5, 0.866, 0],
)
attribute(
    "mixed orientations",
    "different orientation",
    "ImageOrientationPatient",
    [0.0, 1, 0, -1.0, 0, 0],
    slice(3, 6),
)
attribute(
    "orientation that the positions contradict", "at one position", "ImageOrientationPatient", list(SAGITTAL)
)
attribute("absent SliceThickness", "", "SliceThickness", None)
attribute("SliceThickness 0", "", "SliceThickness", 0.0)


@row("one slice without thickness", "states no thickness")
def _thin(folder: Path) -> Ct:
    ct = Ct(count=1)
    del ct.slices[0].SliceThickness
    ct.write(folder)
    return ct


@row("mixed sizes", "different size")
def _sizes(folder: Path) -> Ct:
    ct = Ct()
    set_pixels(ct.slices[5], ramp(5, SHAPE[::-1]) + 1024, intercept=-1024)
    ct.write(folder)
    return ct


@row("GantryDetectorTilt that the geometry does not show", warning="states a gantry tilt of 12")
def _tilt_tag(folder: Path) -> Ct:
    ct = Ct()
    for dataset in ct.slices:
        dataset.GantryDetectorTilt = 12.0
    ct.write(folder)
    return ct


# --- values --------------------------------------------------------------------------------------------------


def _stored(change: Callable[[Any, int], None]) -> Broken:
    def broken(folder: Path) -> Ct:
        ct = Ct()
        for index, dataset in enumerate(ct.slices):
            change(dataset, index)
        ct.write(folder)
        return ct

    return broken


row("signed values in HU")(_stored(lambda dataset, index: set_pixels(dataset, ramp(index), intercept=0)))


def _called_unsigned(dataset: Any, index: int) -> None:
    set_pixels(dataset, ramp(index), intercept=0)
    dataset.PixelRepresentation = 0


row("signed values called unsigned", "which no scanner gives")(_stored(_called_unsigned))


def _turned_header(syntax: str) -> Broken:
    def change(dataset: Any, index: int) -> None:
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.Rows, dataset.Columns = dataset.Columns, dataset.Rows

    return _stored(change)


for _name, _syntax in (("JPEG 2000", JPEG2000Lossless), ("JPEG-LS", JPEGLSLossless)):
    row(f"Rows and Columns exchanged, {_name}", "of 36 x 34, another size")(_turned_header(_syntax))
row("slope and intercept of each slice its own")(
    _stored(
        lambda dataset, index: set_pixels(
            dataset, (ramp(index) + 1500 + index) * 2, slope=0.5, intercept=-1500 - index
        )
    )
)


def _twelve_bits(dataset: Any, index: int) -> None:
    dataset.BitsStored, dataset.HighBit = 12, 11


row("12 bits stored of 16")(_stored(_twelve_bits))


def _overlay_bits(dataset: Any, index: int) -> None:
    stored = np.frombuffer(dataset.PixelData, "<u2") | 0x8000 * (
        np.arange(SHAPE[0] * SHAPE[1]) % 3 == 0
    ).astype("<u2")
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.add_new(0x60000102, "US", 15)


row("an overlay in the unused bits")(_stored(_overlay_bits))


def _too_few_bits(dataset: Any, index: int) -> None:
    set_pixels(dataset, ramp(index) + 6000, intercept=-6000)
    dataset.BitsStored, dataset.HighBit = 12, 11


row("values beyond BitsStored", "do not fit its 12 bits")(_stored(_too_few_bits))


def _padded(dataset: Any, index: int) -> None:
    values = ramp(index) + 1024
    values[0] = 0
    set_pixels(dataset, values, intercept=-1024)
    dataset.PixelPaddingValue = 0


@row("padding")
def _padding(folder: Path) -> Ct:
    ct = _stored(_padded)(folder)
    ct.truth = _with_row(ct, -1024.0)  # type: ignore[method-assign]
    return ct


@row("padding brighter than bone", warning="set to air")
def _bright_padding(folder: Path) -> Ct:
    def padded(dataset: Any, index: int) -> None:
        values = (ramp(index) + 1024).astype(np.int32)
        values[0] = 63536
        set_pixels(dataset, values, intercept=-1024)
        dataset.PixelPaddingValue = 63536

    ct = _stored(padded)(folder)
    ct.truth = _with_row(ct, -1024.0)  # type: ignore[method-assign]
    return ct


def _with_row(ct: Ct, value: float) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    array, affine = ct.truth()
    array[:, 0] = value
    return lambda: (array, affine)


attribute("MONOCHROME1, which means nothing to HU", "", "PhotometricInterpretation", "MONOCHROME1")
attribute("no RescaleSlope", "no RescaleSlope", "RescaleSlope", None)
attribute("RescaleSlope 0", "makes no sense", "RescaleSlope", 0)
attribute("values that are no HU", "not HU", "RescaleType", "Z_EFF")
attribute("RescaleType HU", "", "RescaleType", "HU")
attribute("Rows that lie", "bytes where its header says", "Rows", SHAPE[0] - 1)
attribute("Columns that lie", "bytes where its header says", "Columns", SHAPE[1] - 1)
attribute("HighBit that lies", "BitsStored and HighBit", "HighBit", 11)
attribute("no pixels in one slice", "no pixel data", "PixelData", None, slice(2, 3))


@row("truncated pixel data", "truncated|bytes where")
def _truncated(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder)
    patch_file(folder / "IM0003.dcm", lambda content: content[:-100])
    return ct


@row("a file cut in its header", warning="cannot be read as DICOM")
def _cut_header(folder: Path) -> Ct:
    ct = Ct(count=13)
    ct.write(folder)
    patch_file(folder / "IM0012.dcm", lambda content: content[:150])
    ct.slices.pop()
    return ct


# --- encodings -----------------------------------------------------------------------------------------------


def _encoded(syntax: str) -> Broken:
    def broken(folder: Path) -> Ct:
        ct = Ct()
        for dataset in ct.slices:
            dataset.file_meta.TransferSyntaxUID = syntax
            if syntax == ExplicitVRBigEndian:
                dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        ct.write(folder)
        return ct

    return broken


row("implicit VR")(_encoded(ImplicitVRLittleEndian))
row("big-endian")(_encoded(ExplicitVRBigEndian))
row("deflated")(_encoded(DeflatedExplicitVRLittleEndian))


def _compressed(syntax: str, signed: bool = False) -> Broken:
    def change(dataset: Any, index: int) -> None:
        if signed:
            set_pixels(dataset, ramp(index), intercept=0)
        dataset.compress(syntax, generate_instance_uid=False)

    return _stored(change)


row("RLE")(_compressed(RLELossless))
row("JPEG-LS")(_compressed(JPEGLSLossless))
row("JPEG 2000")(_compressed(JPEG2000Lossless))
row("JPEG 2000 of signed values")(_compressed(JPEG2000Lossless, signed=True))
row("RLE of signed values")(_compressed(RLELossless, signed=True))


@row("JPEG lossless")
def _jpeg_lossless(folder: Path) -> Ct:
    gdcm = pytest.importorskip("gdcm")
    ct = Ct()
    ct.write(folder)
    for path in sorted(folder.iterdir()):
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    return ct


def _cut_stream(syntax: str) -> Broken:
    def broken(folder: Path) -> Ct:
        ct = _compressed(syntax)(folder)
        path = folder / "IM0004.dcm"
        dataset = pydicom.dcmread(path)
        stream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
        compress(dataset, syntax, stream[: len(stream) * 2 // 3])
        dataset.save_as(path)
        return ct

    return broken


row("JPEG 2000 stream cut", "end too early|cannot be decoded")(_cut_stream(JPEG2000Lossless))
row("JPEG-LS stream cut", "end too early|cannot be decoded")(_cut_stream(JPEGLSLossless))
row("RLE stream cut", "cannot be decoded")(_cut_stream(RLELossless))


@row("compressed file cut", "truncated|end too early|cannot be decoded|no pixel data")
def _cut_file(folder: Path) -> Ct:
    ct = _compressed(JPEG2000Lossless)(folder)
    patch_file(folder / "IM0004.dcm", lambda content: content[:-120])
    return ct


def _meta_says(syntax: str, compressed_as: str | None = None) -> Broken:
    """The syntax in file_meta replaced in the written bytes, so that nothing else knows of it."""

    def broken(folder: Path) -> Ct:
        ct = _compressed(compressed_as)(folder) if compressed_as else _whole(folder)
        true = compressed_as or "1.2.840.10008.1.2.1"
        for path in folder.iterdir():
            patch_file(path, lambda content: _replace_meta(content, true, syntax))
        return ct

    return broken


def _replace_meta(content: bytes, true: str, false: str) -> bytes:
    old, new = (uid.encode() + b"\0" * (len(uid) % 2) for uid in (true, false))
    tag = b"\x02\x00\x10\x00UI"
    start = content.index(tag)
    length_at = content.index(b"\x02\x00\x00\x00UL") + 8
    length = struct.unpack("<I", content[length_at : length_at + 4])[0] + len(new) - len(old)
    patched = content[:start] + tag + struct.pack("<H", len(new)) + new + content[start + 8 + len(old) :]
    return patched[:length_at] + struct.pack("<I", length) + patched[length_at + 4 :]


row("meta says JPEG 2000, pixels are plain", "not compressed as its transfer syntax")(
    _meta_says(JPEG2000Lossless)
)
row("meta says plain, pixels are JPEG 2000", "compressed pixel data")(
    _meta_says("1.2.840.10008.1.2.1", JPEG2000Lossless)
)
row("meta says RLE, pixels are JPEG 2000", "cannot be decoded|bytes")(
    _meta_says(RLELossless, JPEG2000Lossless)
)
row("meta says implicit VR, file is explicit")(_meta_says(ImplicitVRLittleEndian))
row("meta says big-endian, file is little", "not DICOM|corrupt|nothing is segmented|no DICOM")(
    _meta_says(ExplicitVRBigEndian)
)
row("a transfer syntax that nobody knows", "nothing installed here decodes|not compressed as")(
    _meta_says("1.2.826.0.1.3680043.9.9999.1", JPEG2000Lossless)
)


@row("JPEG baseline of 8 bits where 16 are promised", "cannot be decoded|another size")
def _baseline(folder: Path) -> Ct:
    from io import BytesIO

    from PIL import Image

    ct = Ct()
    for index, dataset in enumerate(ct.slices):
        stream = BytesIO()
        Image.fromarray((ramp(index) % 256).astype(np.uint8)).save(stream, "JPEG")
        compress(dataset, JPEGBaseline8Bit, stream.getvalue())
    ct.write(folder)
    return ct


@row("no preamble")
def _no_preamble(folder: Path) -> Ct:
    ct = Ct()
    ct.write(folder, "IM{}".format)
    for path in folder.iterdir():
        patch_file(path, lambda content: content[132:])
    return ct


@row("neither preamble nor meta information")
def _bare(folder: Path) -> Ct:
    ct = Ct()
    for dataset in ct.slices:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ct.write(folder, "IM{}".format)
    for path in folder.iterdir():
        patch_file(path, _without_meta)
    return ct


def _without_meta(content: bytes) -> bytes:
    return content[content.index(b"\x08\x00\x08\x00") :]


@row("empty UIDs in the data sets", warning="empty or absent identifiers")
def _empty_uids(folder: Path) -> Ct:
    ct = Ct()
    for dataset in ct.slices:
        meta = dataset.file_meta
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
            dataset.SOPClassUID,
            dataset.SOPInstanceUID,
        )
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, keyword, "")
    ct.write(folder)
    return ct


@row("no UIDs at all", warning="empty or absent identifiers")
def _no_uids(folder: Path) -> Ct:
    ct = Ct()
    for dataset in ct.slices:
        meta = dataset.file_meta
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT_IMAGE, generate_uid()
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            del dataset[keyword]
    ct.write(folder)
    for path in folder.iterdir():
        patch_file(path, lambda content: content[132:])
    return ct


@row("spacing written as text (wrong VR)")
def _wrong_vr(folder: Path) -> Ct:
    ct = Ct()
    for dataset in ct.slices:
        del dataset.PixelSpacing
        dataset.add_new(0x00280030, "LO", list(map(str, SPACING)))
    ct.write(folder)
    return ct


@row("words where a position should be", "no ImagePositionPatient that makes sense|corrupt")
def _words(folder: Path) -> Ct:
    ct = Ct()
    for dataset in ct.slices:
        del dataset.ImagePositionPatient
        dataset.add_new(0x00200032, "LO", ["here", "there", "up"])
    ct.write(folder)
    return ct


attribute("another modality", "has modality MR", "Modality", "MR")
attribute("no modality, of a CT storage class", "", "Modality", "")
ROWS["no modality, of a CT storage class"] = (*ROWS["no modality, of a CT storage class"][:2], "(Modality)")
attribute("a storage class of another modality", "by its storage class it is MR", "SOPClassUID", MR_IMAGE)
attribute(
    "two reconstruction kernels",
    "more than one reconstruction kernel",
    "ConvolutionKernel",
    "B70f",
    slice(6, None),
)
attribute("PixelSpacing in metres", "PixelSpacing of 0.0007", "PixelSpacing", [0.0007, 0.0009])
attribute("PixelSpacing in micrometres", "PixelSpacing of 700", "PixelSpacing", [700.0, 900.0])
attribute("absent frame of reference in some slices", "", "FrameOfReferenceUID", None, slice(0, 5))
attribute("colour", "colour|truncated|bytes where", "SamplesPerPixel", 3)
attribute("derived reformat", "derived from other images", "ImageType", ["DERIVED", "SECONDARY", "MPR"])
attribute("thin slices that a scanner calls derived", "", "ImageType", ["DERIVED", "PRIMARY", "AXIAL"])


# --- the table -----------------------------------------------------------------------------------------------


def outcome(folder: Path) -> Case | str:
    """The one case of a folder, or the one sentence that says why there is none."""
    try:
        found = collect(folder)
        assert len(found.references) + len(found.failures) == 1, found
        if found.failures:
            return found.failures[0].error
        return read_case(found.references[0])
    except CaseError as error:
        return str(error)


@pytest.mark.parametrize("name", ROWS)
def test_right_or_refused(tmp_path: Path, name: str) -> None:
    broken, refused, warning = ROWS[name]
    folder = tmp_path / "export"
    ct = broken(folder)
    result = outcome(folder)
    if refused:
        assert isinstance(result, str), "silently wrong"
        assert any(words in result for words in refused.split("|")), result
        source, _, told = result.partition(": ")
        assert Path(source).is_relative_to(folder)
        assert told.count("; ") == 1 and told.endswith(".") and "\n" not in told
        assert not any(sign in result for sign in ("Sorrow", "48151", "19550312", "20200229"))
        return
    assert not isinstance(result, str), result
    array, affine = ct.truth()
    assert result.affine is not None
    same_voxels(result, array, affine)
    assert result.is_volume and result.modality == "CT" and result.array.dtype == np.float32
    if warning:
        assert any(warning in text for text in result.warnings), result.warnings
    elif name not in ("one slice",):
        assert [text for text in result.warnings if "FrameOfReference" not in text] == []
    check_source(result)


def same_voxels(case: Case, array: np.ndarray, affine: np.ndarray) -> None:
    """Each voxel has the value, and lies at the place, that the truth gives it; in which order does not matter."""
    assert case.affine is not None
    assert sorted(case.array.shape[1:]) == sorted(array.shape)
    index = np.stack(np.indices(array.shape), -1).reshape(-1, 3)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    back = np.linalg.inv(case.affine)
    there = world @ back[:3, :3].T + back[:3, 3]
    nearest = np.rint(there).astype(int)
    np.testing.assert_allclose(there, nearest, atol=0.05)
    got = case.array[0][tuple(nearest.T)]
    np.testing.assert_allclose(got, array.reshape(-1), atol=1e-3)


def check_source(case: Case) -> None:
    """Slice z of the array is the picture in file z: results refer to files so."""
    source = case.header
    for z, (path, header) in enumerate(zip(source.files, source.datasets(), strict=True)):
        assert path.is_file() and header.SOPInstanceUID
        assert header.SeriesInstanceUID == source.series_uid and header.StudyInstanceUID == source.study_uid
        position = np.array([float(value) for value in header.ImagePositionPatient])
        lps = np.diag([-1, -1, 1, 1]) @ case.affine @ (0, 0, z, 1)
        np.testing.assert_allclose(lps[:3], position, atol=0.06)


@pytest.mark.parametrize("name", ["missing slice", "uneven spacing"])
def test_resampling_is_an_option_and_says_so(tmp_path: Path, name: str) -> None:
    ct = ROWS[name][0](tmp_path / "export")
    found = collect(tmp_path / "export", selection=SeriesSelection(resample_slices=True))
    case = read_case(found.references[0])
    assert any("resampled to 12 slices" in text for text in case.warnings)
    assert case.header.resampled and case.affine is not None
    array, affine = ct.truth()
    if name == "missing slice":
        # The ramp is linear along the stack, so that a blend of neighbours is the slice itself.
        same_voxels(case, array, affine)
    else:
        # At the true place of each voxel the ramp's value: 100 HU a step, 10 HU for the shift of a tenth.
        np.testing.assert_allclose(case.affine[2, 2], STEP * 11.1 / 11, atol=1e-6)
        values = case.array[0, 0, 0] - ramp(0)[0, 0]
        steps = np.arange(12) * 11.1 / 11
        assert np.abs(values - 100 * steps).max() <= 10.01


def test_a_hole_is_not_filled(tmp_path: Path) -> None:
    Ct().write(tmp_path / "export")
    for number in (4, 5, 6, 7):
        (tmp_path / "export" / f"IM{number:04d}.dcm").unlink()
    found = collect(tmp_path / "export", selection=SeriesSelection(resample_slices=True))
    with pytest.raises(CaseError, match="hole of 12.5 mm"):
        read_case(found.references[0])


def test_what_highdicom_reads_is_the_same(tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    for name in (
        "as it should be",
        "coronal",
        "oblique",
        "JPEG-LS",
        "slope and intercept of each slice its own",
    ):
        folder = tmp_path / name
        ROWS[name][0](folder)
        case = outcome(folder)
        assert not isinstance(case, str)
        datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        volume = highdicom.get_volume_from_series(datasets, dtype=np.float32)
        same_voxels(case, volume.array, np.diag([-1, -1, 1, 1]) @ volume.affine)


def test_axial_is_the_default_of_the_helper() -> None:
    assert Ct(count=1).slices[0].ImageOrientationPatient == list(AXIAL)
