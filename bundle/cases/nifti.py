"""NIfTI through nibabel."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.fileholders import FileHolder

from bundle.cases.errors import COPY_AGAIN, CORRUPT, CaseError
from bundle.cases.image import SourceImage
from bundle.cases.volumes import NOMINAL, checked, spatial_shape

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20
_HIGHEST_CODE = 5  # of qform_code and sform_code
# Further apart than so many voxel edges at a corner, sform and qform are two geometries; a shear of more than this
# cosine is beyond a qform.
_CONTRADICTION, _SHEAR = 0.5, 1e-3
# mm in the units of length that xyzt_units has codes for.
_UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


def read_nifti(path: Path, head: bytes) -> SourceImage:
    """Read and check a NIfTI file.

    Args:
        head: the first bytes of the file, at least 544 where it is not compressed.

    Raises:
        CaseError: the file is broken, is not a scalar 3-D (or 2-D) image, holds values that are not
            finite, or has a geometry that cannot be inverted.
    """
    # Compression is told from the content: a name often says otherwise.
    compressed = head.startswith(_GZIP_MAGIC)
    try:
        with gzip.open(path, "rb") if compressed else open(path, "rb") as opened:
            stream = cast(BufferedIOBase, opened)
            volume = _decode_nifti(path, stream)
            # The checksum of a gzip file stands at its end, after all that nibabel asks for.
            while compressed and stream.read(_CHUNK):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CaseError(path, f"{CORRUPT} (gzip)", COPY_AGAIN) from error
    return checked(path, volume)


def nifti_volume(path: Path, image: Any) -> SourceImage:
    """A nibabel NIfTI image, checked as its file would be; its values are copied.

    Args:
        path: that messages name.

    Raises:
        CaseError: see `read_nifti`.
    """
    volume = _nifti_volume(path, image, image.header)
    return checked(path, replace(volume, array=volume.array.copy()))


def _decode_nifti(path: Path, stream: BufferedIOBase) -> SourceImage:
    start = stream.read(544)
    stream.seek(0)
    # nibabel's methods carry no types.
    kinds: tuple[Any, ...] = (nibabel.nifti1.Nifti1Image, nibabel.nifti2.Nifti2Image)
    kind = next((k for k in kinds if k.header_class.may_contain_header(start)), None)
    if kind is None:
        raise CaseError(path, "is not a NIfTI file in spite of its name", "export it as NIfTI")
    try:
        image = kind.from_file_map({"image": FileHolder(fileobj=stream)}, mmap=False)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise
    except Exception as error:
        raise CaseError(path, "has a NIfTI header that makes no sense", COPY_AGAIN) from error
    least, stated = kind.header_class.single_vox_offset, image.dataobj
    if stated.offset < least:
        # nifti1.h: less than the length of the header means that length
        spec = (stated.shape, stated.dtype, least, stated.slope, stated.inter)
        image._dataobj = ArrayProxy(stream, spec, mmap=False)
    # Without what nibabel mends in silence, such as voxel sizes of 0 or less.
    stated_header = kind.header_class(start[: kind.header_class.template_dtype.itemsize], check=False)
    return _nifti_volume(path, image, stated_header)


def _nifti_volume(path: Path, image: Any, stated: Any) -> SourceImage:
    warnings: list[str] = []
    dtype = image.header.get_data_dtype()
    if dtype.kind not in "iuf":
        held = "complex" if dtype.kind == "c" else "colour or structured"
        raise CaseError(path, f"holds {held} values", "export one grey value a voxel")
    shape = spatial_shape(path, tuple(int(length) for length in image.shape), warnings)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except (OSError, ValueError) as error:
        if isinstance(error, gzip.BadGzipFile):
            raise
        raise CaseError(path, CORRUPT, COPY_AGAIN) from error
    unit = int(image.header["xyzt_units"]) & 7
    if unit not in _UNITS:
        raise CaseError(
            path, f"states a unit of length that NIfTI does not have ({unit})", "correct xyzt_units"
        )
    _check_geometry(path, image.header, stated, shape, warnings)
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= _UNITS[unit]
    return SourceImage(array.reshape(shape), affine, "CT", warnings, image.header.copy())


def _check_geometry(
    path: Path, header: Any, stated: Any, shape: tuple[int, int, int], warnings: list[str]
) -> None:
    """See that a header states one geometry, by its sform or else its qform.

    Args:
        header: as nibabel has mended it.
        stated: as it stands in the file.

    Raises:
        CaseError: what it states makes no sense.
    """
    codes = {name: int(stated[name]) for name in ("sform_code", "qform_code")}
    for name, code in codes.items():
        if code > _HIGHEST_CODE:
            raise CaseError(path, f"states a {name} that NIfTI does not have ({code})", "correct its header")
    by_sform, by_qform = (code > 0 for code in codes.values())
    if not (by_sform or by_qform):
        warnings.append(NOMINAL)
    qfac, *edges = (float(value) for value in stated["pixdim"][:4])
    # A single slice may leave its thickness open.
    sizes = [edge for edge, length in zip(edges, shape, strict=True) if length > 1]
    makes_sense = all(np.isfinite(size) and size > 0 for size in sizes) and qfac in (-1, 0, 1)
    if not by_sform and not makes_sense:
        problem = "has a header whose voxel sizes or directions (pixdim) make no sense"
        raise CaseError(path, problem, "correct its header")
    if not (by_sform and by_qform and makes_sense):
        return
    try:
        one, other = header.get_sform(), header.get_qform()
    except ValueError:  # a quaternion that is none: no second opinion
        return
    columns = one[:3, :3] / np.maximum(np.linalg.norm(one[:3, :3], axis=0), 1e-30)
    corners = np.array([(x, y, z, 1) for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])])
    apart = float(np.linalg.norm(corners @ (one - other).T, axis=1).max())
    edge = min(float(np.linalg.norm(matrix[:3, :3], axis=0).min()) for matrix in (one, other))
    is_sheared = np.abs(columns.T @ columns - np.eye(3)).max() > _SHEAR
    if apart > _CONTRADICTION * edge and not is_sheared:
        unit = _UNITS[int(header["xyzt_units"]) & 7]
        warnings.append(
            f"The file's sform and qform place the image differently, up to {apart * unit:.3g} mm apart; "
            "the sform was taken."
        )
