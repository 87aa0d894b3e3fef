"""Masks and maps as NIfTI in the source's geometry bit for bit, or as 8-bit PNG."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

# The largest float32 that does not take 255 beyond 1.0; the one nearest to 1/255 does.
BYTE_SLOPE = float(np.nextafter(np.float32(1 / 255), np.float32(0)))
_COMPRESSION = 4  # of gzip's 1-9: the higher levels cost seconds a case and save a few per cent
_UNIT_UNKNOWN = 0
_SPATIAL_UNIT_BITS = 0x07
_MILLIMETRE = 2
# Free text that may carry a patient's name, or describes the source's grey values, not ours.
_CLEARED_TEXT = ("data_type", "db_name", "descrip", "aux_file", "intent_name")
_CLEARED_NUMBERS = [
    "intent_code",
    "intent_p1",
    "intent_p2",
    "intent_p3",
    "cal_min",
    "cal_max",
    "glmin",
    "glmax",
]


def to_bytes(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Values in [0, 1] as 0-255, rounded; the shape is kept.

    Raises:
        ValueError: when a value is not finite.
    """
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("a probability or uncertainty is not a finite number")
    scaled = np.multiply(values, 255.0, dtype=np.float32)
    np.rint(scaled, out=scaled)
    stored: NDArray[np.uint8] = np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)
    return stored


def write_nifti(
    target: Path | BinaryIO,
    shape: tuple[int, ...],
    blocks: Iterable[NDArray[np.uint8]],
    affine: NDArray[np.float64],
    header: Any = None,
    slope: float = 1.0,
) -> None:
    """Write gzipped single-file NIfTI; identical arguments give identical bytes.

    nibabel takes whole arrays only, and checks a header so strictly that sform and qform of a two-file one are lost.

    Args:
        target: the file, ending in .nii.gz, or a stream.
        shape: (X, Y, Z), or (X, Y, Z, K) with K channels along the last axis.
        blocks: the data in the order of the file, X fastest, in arrays of any number of whole slices.
        affine: (4, 4) voxel index -> mm, RAS+; used when there is no header.
        header: the source's nibabel NIfTI-1 or NIfTI-2 header; sform, qform, their codes, voxel sizes
            and byte order are carried over as they are. Texts and extensions are not: they may name a
            patient.
        slope: what a reader multiplies the stored values with.
    """
    out = _prepared_header(_header_from_affine(affine) if header is None else header)
    out.set_data_shape(shape if header is None else _source_shape(shape, header.get_data_shape()))
    out["scl_slope"], out["scl_inter"] = slope, 0.0
    opened = target.open("wb") if isinstance(target, Path) else nullcontext(target)
    with opened as file, gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as stream:
        out.write_to(stream)
        for block in blocks:
            stream.write(block.tobytes(order="F"))


def _source_shape(shape: tuple[int, ...], source: tuple[int, ...]) -> tuple[int, ...]:
    """The source's own shape where it differs by axes of length 1 only, as in (X, Y, Z, 1)."""
    same = [edge for edge in shape if edge != 1] == [edge for edge in source if edge != 1]
    return tuple(int(edge) for edge in source) if same else shape


def _header_from_affine(affine: NDArray[np.float64]) -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_shape((1, 1, 1))
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_sform(affine, code="scanner")
    return header


def _prepared_header(source: Any) -> Any:
    """A single-file uint8 header with the source's geometry and none of its texts."""
    kind: Any = (
        nib.Nifti2Header if int(source["sizeof_hdr"]) == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Header
    )
    # From the raw block: nibabel's conversion of a two-file header would lose sform and qform.
    header = kind(source.binaryblock, endianness=source.endianness, check=False)
    known = header.structarr.dtype.names
    for name in (*_CLEARED_TEXT, *_CLEARED_NUMBERS):
        if name in known:
            header[name] = b"" if name in _CLEARED_TEXT else 0
    header.set_data_dtype(np.uint8)
    header["magic"] = kind().structarr["magic"]
    header["vox_offset"] = kind.single_vox_offset
    units = int(header["xyzt_units"])
    if units & _SPATIAL_UNIT_BITS == _UNIT_UNKNOWN:
        header["xyzt_units"] = units | _MILLIMETRE
    return header


def write_png(path: Path, data: NDArray[np.uint8]) -> None:
    """Write (H, W) as 8-bit grey PNG; identical data give identical bytes."""
    Image.fromarray(np.ascontiguousarray(data)).save(path, format="PNG", compress_level=6)


def write_numbers(path: Path, numbers: NDArray[np.int32]) -> None:
    """Write (H, W) of numbers from 0 as 16-bit grey TIFF, or 32-bit where they need it, as Cellpose and StarDist do.

    Identical numbers give identical bytes.
    """
    small = int(numbers.max(initial=0)) <= np.iinfo(np.uint16).max
    data = numbers.astype(np.uint16 if small else np.uint32)
    tifffile.imwrite(
        path,
        data,
        compression="zlib",
        photometric="minisblack",
        metadata=None,
        software=False,
        maxworkers=1,
    )
