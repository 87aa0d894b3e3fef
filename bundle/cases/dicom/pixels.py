"""Pixels of a DICOM file as it means them: decoded, checked against what the header promises, rescaled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bundle.cases.dicom.headers import numbers, quiet, text
from bundle.cases.errors import CaseError
from bundle.cases.privacy import printable

try:  # pydicom 3
    from pydicom.pixels import apply_modality_lut
    from pydicom.pixels import pixel_array as _pixel_array
except ImportError:  # pydicom 2
    from pydicom.pixel_data_handlers.util import apply_modality_lut, convert_color_space

    def _pixel_array(dataset: Any) -> NDArray[Any]:
        array = dataset.pixel_array
        colour = str(dataset.PhotometricInterpretation)
        return convert_color_space(array, colour, "RGB") if colour.startswith("YBR_FULL") else array


#: HU of air, which padding becomes where it would look like tissue; and the most that 12-bit scanners give.
AIR_HU = -1024.0
_HIGHEST_HU = 3071.0
_EXPORT_UNCOMPRESSED = "export it uncompressed (Explicit VR Little Endian)"
_COPY_AGAIN = "copy or export it again"
_NATIVE = {
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
}
# JPEG, JPEG-LS and JPEG 2000 streams all end with this marker.
_END_OF_IMAGE = b"\xff\xd9"
# Markers that are followed by the size: of JPEG (not 0xC4, 0xC8, 0xCC), and of JPEG-LS.
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_MARKED_SYNTAXES = "1.2.840.10008.1.2.4."
_OF_ONE_VALUE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_HU_TYPES = ("", "HU", "US", "HU_MOD")


def open_image(path: Path, repaired: Mapping[str, str] | None = None) -> Any:
    """Read a whole file and see to it that its transfer syntax is known.

    Args:
        repaired: keyword -> value of what is filled in.

    Raises:
        CaseError: the file cannot be read, or holds no pixels.
    """
    try:
        with quiet():
            dataset = pydicom.dcmread(path, force=True)
            for keyword, value in (repaired or {}).items():
                setattr(dataset, keyword, value)
            _settle_syntax(dataset)
            present = "PixelData" in dataset and len(dataset.PixelData) > 0
    except OSError as error:
        raise CaseError(path, "cannot be read", _COPY_AGAIN) from error
    except Exception as error:
        raise CaseError(path, "is corrupt or truncated", _COPY_AGAIN) from error
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise CaseError(
            path, "holds floating-point pixels, which are not read", "export it with whole numbers"
        )
    if not present:
        raise CaseError(path, "holds no pixel data, or is cut off before them", "send the whole image")
    return dataset


def _settle_syntax(dataset: Any) -> None:
    """Files without meta information say by their first bytes how they are encoded, and are not compressed."""
    if getattr(dataset, "file_meta", None) is None:
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if dataset.file_meta.get("TransferSyntaxUID"):
        return
    encoding = getattr(dataset, "original_encoding", None) or (
        dataset.is_implicit_VR,
        dataset.is_little_endian,
    )
    if encoding[1] is False:
        dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.2")
    else:
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if encoding[0] else ExplicitVRLittleEndian
        )


def stored_values(path: Path, dataset: Any) -> NDArray[Any]:
    """Stored values: (rows, columns), (frames, rows, columns), or with 3 colours along a last axis.

    Raises:
        CaseError: no codec decodes them, or they are not what the header says.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    name = UID(syntax).name
    native = str(syntax) in _NATIVE
    _check_description(path, dataset)
    _check_length(path, dataset, native, name)
    try:
        with quiet():
            values = np.asarray(_pixel_array(dataset))
    except MemoryError:
        raise
    except Exception as error:
        if native:
            problem = "has pixel data that are truncated or do not fit its header"
            raise CaseError(path, problem, _COPY_AGAIN) from error
        if not _has_decoder(syntax):
            problem = f"is compressed as {name}, which nothing installed here decodes"
            raise CaseError(path, problem, _EXPORT_UNCOMPRESSED) from error
        problem = f"has pixel data that cannot be decoded as the {name} that it says they are"
        raise CaseError(path, problem, _EXPORT_UNCOMPRESSED) from error
    shape = (int(dataset.Rows), int(dataset.Columns))
    start = 1 if int(dataset.get("NumberOfFrames") or 1) > 1 else 0
    if values.shape[start : start + 2] != shape:
        raise CaseError(path, "has pixel data of another size than its header says", _COPY_AGAIN)
    return _without_stray_bits(path, dataset, values) if native else values


def _check_description(path: Path, dataset: Any) -> None:
    """See that what a header says of its pixels goes together: decoders believe one part of it or the other."""
    allocated = int(dataset.BitsAllocated)
    stored = int(dataset.get("BitsStored") or allocated)
    if stored > allocated or int(dataset.get("HighBit", stored - 1)) != stored - 1:
        raise CaseError(path, "has BitsStored and HighBit that do not fit each other", _COPY_AGAIN)
    meaning = text(dataset, "PhotometricInterpretation").upper()
    if int(dataset.get("SamplesPerPixel") or 1) == 1 and meaning not in _OF_ONE_VALUE:
        problem = (
            f"has a PhotometricInterpretation ({printable(meaning) or 'none'}) that is none of grey values"
        )
        raise CaseError(path, problem, "export it as MONOCHROME1 or MONOCHROME2")


def _has_decoder(syntax: str) -> bool:
    try:
        from pydicom.pixels import get_decoder
    except ImportError:  # pydicom 2 tells by the error alone
        return True
    try:
        return bool(get_decoder(UID(syntax)).is_available)
    except NotImplementedError:  # how pydicom says that it knows no decoder for a syntax
        return False


def _check_length(path: Path, dataset: Any, native: bool, name: str) -> None:
    """Refuse pixel data that end too early: some decoders fill the rest with what they please."""
    data = dataset.PixelData
    frames = int(dataset.get("NumberOfFrames") or 1)
    encapsulated = bytes(data[:4]) == b"\xfe\xff\x00\xe0"
    if native:
        row = (
            int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1) * int(dataset.BitsAllocated) // 8
        )
        length = row * int(dataset.Rows) * frames
        if str(dataset.get("PhotometricInterpretation")) == "YBR_FULL_422":
            length = length * 2 // 3
        if encapsulated and len(data) != length + length % 2:
            problem = f"holds compressed pixel data, though its transfer syntax is {name}"
            raise CaseError(path, problem, _COPY_AGAIN)
        if length > len(data) or len(data) - length >= max(row, 2):
            fault = "is truncated, with" if length > len(data) else "has"
            problem = f"{fault} pixel data of {len(data):,} bytes where its header says {length:,}"
            raise CaseError(path, problem, _COPY_AGAIN)
        return
    if not encapsulated:
        problem = f"holds pixel data that are not compressed as its transfer syntax says ({name})"
        raise CaseError(path, problem, _COPY_AGAIN)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    number = syntax[len(_MARKED_SYNTAXES) :].split(".")[0]
    if not syntax.startswith(_MARKED_SYNTAXES) or not number.isdigit():
        return
    if 100 <= int(number) <= 108:
        raise CaseError(path, f"is a video ({name})", "export it as single images")
    size = _stream_size(bytes(data[: 1 << 16]))
    if size is not None and size != (int(dataset.Rows), int(dataset.Columns)):
        problem = f"has pixel data of {size[0]} x {size[1]}, another size than its header says"
        raise CaseError(path, problem, _COPY_AGAIN)
    if frames == 1 and _END_OF_IMAGE not in bytes(data[-64:]):
        raise CaseError(path, f"has pixel data that end too early ({name})", _COPY_AGAIN)


def _stream_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns as the first JPEG, JPEG-LS or JPEG 2000 stream says, which decoders do not compare with the
    header; None where it cannot be told.

    Args:
        data: the beginning of encapsulated pixel data, PS3.5 A.4: an item of offsets, then one of a stream.
    """
    start = 8 + int.from_bytes(data[4:8], "little") + 8
    stream = data[start:]
    if stream[:4] == b"\xff\x4f\xff\x51":
        right, bottom, left, top = (int.from_bytes(stream[at : at + 4], "big") for at in (8, 12, 16, 20))
        return bottom - top, right - left
    at = 2
    while stream[:2] == b"\xff\xd8" and at + 9 <= len(stream) and stream[at] == 0xFF:
        if stream[at + 1] in _START_OF_FRAME:
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(
                stream[at + 7 : at + 9], "big"
            )
        at += 1 if stream[at + 1] == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def _without_stray_bits(path: Path, dataset: Any, values: NDArray[Any]) -> NDArray[Any]:
    """See that masking to BitsStored, PS3.5 8.1.1, takes away nothing but overlays and padding."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.get("BitsStored") or dataset.BitsAllocated)
    if stored == allocated or allocated not in (8, 16, 32) or int(dataset.get("SamplesPerPixel") or 1) != 1:
        return values
    big_endian = str(dataset.file_meta.TransferSyntaxUID) == "1.2.840.10008.1.2.2"
    kind = "i" if int(dataset.get("PixelRepresentation") or 0) else "u"
    dtype = np.dtype(f"{'>' if big_endian else '<'}{kind}{allocated // 8}")
    if big_endian and allocated == 8:
        return values
    raw = np.frombuffer(dataset.PixelData, dtype=dtype, count=values.size).reshape(values.shape)
    wrong = raw != values
    # pydicom 2 leaves the bits above as they are, pydicom 3 masks them.
    low = -(1 << (stored - 1)) if kind == "i" else 0
    high = (1 << (stored - (kind == "i"))) - 1
    wrong |= (raw < low) | (raw > high)
    if not wrong.any():
        return values
    padded = padding_of(dataset, raw)
    if padded is not None and not (wrong & ~padded).any():
        return raw
    if _has_embedded_overlay(dataset, stored):
        mask = np.array((1 << stored) - 1, dtype=f"u{allocated // 8}").astype(raw.dtype.newbyteorder("="))
        masked = raw.astype(raw.dtype.newbyteorder("=")) & mask
        return np.where(masked > high, masked - (1 << stored), masked) if kind == "i" else masked
    problem = f"holds values that do not fit its {stored} bits (BitsStored)"
    raise CaseError(path, problem, "export it with a true BitsStored")


def _has_embedded_overlay(dataset: Any, stored: int) -> bool:
    """Whether bits above those of the pixels are an overlay's, PS3.3 C.9.2 as it was until 2004."""
    return any(
        element.tag.group & 0xFF01 == 0x6000
        and element.tag.elem == 0x0102
        and int(element.value or 0) >= stored
        for element in dataset
    )


def padding_of(dataset: Any, values: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Which stored values are padding, PS3.3 C.7.5.1.1.2; None where the header names none."""
    padding = numbers(dataset, "PixelPaddingValue", 1)
    if padding is None:
        return None
    limit = numbers(dataset, "PixelPaddingRangeLimit", 1) or padding
    info = np.iinfo(values.dtype) if values.dtype.kind in "iu" else None

    def fitted(value: float) -> float:
        # Written as unsigned though the pixels are signed, or the other way round.
        if info is None or info.min <= value <= info.max:
            return value
        return value - (1 << info.bits) if value > info.max else value + (1 << info.bits)

    low, high = sorted((fitted(padding[0]), fitted(limit[0])))
    return np.asarray((values >= low) & (values <= high))


def in_hounsfield(
    path: Path, dataset: Any, values: NDArray[Any], rescale: Any, is_ct: bool
) -> tuple[NDArray[np.float32], bool]:
    """Stored values of one slice as HU, PS3.3 C.11.1.1.2.

    Args:
        values: (rows, columns).
        rescale: holds RescaleSlope and RescaleIntercept: the image itself, or an item of a functional group.
        is_ct: whether there must be a rescale, and to HU; else values without one stay as they are.

    Returns:
        (rows, columns); and whether padding was set to air.

    Raises:
        CaseError: nothing says how stored values become HU.
    """
    if dataset.get("ModalityLUTSequence"):
        hounsfield = np.asarray(apply_modality_lut(values, dataset), dtype=np.float32)
        kind = text(dataset.ModalityLUTSequence[0], "ModalityLUTType")
    else:
        slope, intercept = (numbers(rescale, f"Rescale{name}", 1) for name in ("Slope", "Intercept"))
        kind = text(rescale, "RescaleType")
        if (slope is None or intercept is None) and is_ct:
            problem = "states no RescaleSlope and RescaleIntercept, so that its values are not known in HU"
            raise CaseError(path, problem, "export it with them")
        slope, intercept = slope or [1.0], intercept or [0.0]
        if slope[0] == 0 or not np.isfinite([*slope, *intercept]).all():
            raise CaseError(
                path, "has a RescaleSlope or RescaleIntercept that makes no sense", "export it again"
            )
        hounsfield = values.astype(np.float32)
        if slope[0] != 1:
            hounsfield *= slope[0]
        if intercept[0]:
            hounsfield += intercept[0]
    if is_ct and kind.upper() not in _HU_TYPES:
        raise CaseError(path, f"holds values of type {kind}, not HU", "send the series in HU")
    padded = padding_of(dataset, values)
    if padded is None or not is_ct:
        return hounsfield, False
    bright = padded & (hounsfield > _HIGHEST_HU)
    hounsfield[bright] = AIR_HU
    return hounsfield, bool(bright.any())
