"""Volumes with a geometry in mm: NIfTI through nibabel; MetaImage and NRRD through ITK."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.fileholders import FileHolder
from numpy.typing import NDArray

from bundle.cases.errors import COPY_AGAIN, CORRUPT, CaseError
from bundle.cases.image import SourceImage

MAX_VOXELS = 2_000_000_000

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20
_HEADER_LIMIT = 1 << 16
_SPLIT = "split it into 3-D volumes"
# The data-file field of MetaImage ('ElementDataFile = x') and of NRRD ('data file: x'). Looser than either
# format's own parser, so that no spelling which that parser accepts is missed here.
_DATA_FILE = re.compile(r"^\s*(?:element\s*)?data\s*file\s*[=:]\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_META_GEOMETRY = re.compile(r"^\s*(TransformMatrix|Rotation|Orientation)\s*[=:]", re.MULTILINE)
_NRRD_GEOMETRY = re.compile(r"^\s*space directions\s*:", re.IGNORECASE | re.MULTILINE)
# Other spaces, such as scanner-xyz, say nothing of the patient's left and right.
_NRRD_ANATOMY = re.compile(
    r"^\s*space\s*:\s*(LPS|RAS|LAS|(left|right)-(anterior|posterior)-superior)", re.IGNORECASE | re.MULTILINE
)
_NRRD_UNITS = re.compile(r"^\s*space units\s*:\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_META_UNITS = re.compile(r"^\s*DistanceUnits\s*[=:]\s*(.*?)\s*$", re.MULTILINE)
# mm in what headers give lengths in: the codes of NIfTI's xyzt_units, and names in MetaImage and NRRD.
_NIFTI_UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNITS = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("", "?", "mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(
        ("um", "\u00b5m", "\u00c2\u00b5m", "micron", "microns", "micrometer", "micrometers"), 0.001
    ),
}
# No scan is longer than a few people, or shorter than a voxel of the network.
_LEAST_MM, _MOST_MM = 3.0, 5000.0
_NOMINAL = "The file states no orientation or position in space; its geometry is nominal."


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
    return _checked(path, volume)


def read_itk(path: Path, head: bytes) -> SourceImage:
    """Read and check a MetaImage or NRRD file; one with its data in a second file is named by its header.

    Raises:
        CaseError: see `read_nifti`.
    """
    return _checked(path, _decode_itk(path))


def _checked(path: Path, volume: SourceImage) -> SourceImage:
    affine, values = volume.affine, volume.array
    assert affine is not None
    if not np.isfinite(affine).all():
        raise CaseError(path, "has a geometry with values that are not finite", "correct its header")
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    # Relative to the voxel, so that microscopic voxels pass and axes that fall together do not.
    if edges.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / edges)) < 1e-4:
        raise CaseError(path, "has a geometry that cannot be inverted", "correct its header")
    longest = float((edges * values.shape).max())
    if not _LEAST_MM <= longest <= _MOST_MM:
        problem = f"is {longest:.4g} mm long by its header"
        raise CaseError(path, problem, "correct its voxel size or the unit of its lengths")
    wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
    if wrong == values.size:
        raise CaseError(path, "holds only values that are not finite (NaN or infinite)", COPY_AGAIN)
    if wrong:
        raise CaseError(path, f"holds {wrong} values that are not finite (NaN or infinite)", "replace them")
    return volume


def _spatial_shape(path: Path, shape: tuple[int, ...], warnings: list[str]) -> tuple[int, int, int]:
    """The (X, Y, Z) that a file's dimensions stand for; a 2-D image is a volume of one slice."""
    if len(shape) < 2:
        raise CaseError(path, f"has {len(shape)} dimension(s)", "use a 2-D or 3-D image")
    if math.prod(shape) == 0:
        raise CaseError(path, f"holds no voxels (shape {_times(shape)})", COPY_AGAIN)
    if any(length != 1 for length in shape[3:]):
        raise CaseError(path, f"has {len(shape)} dimensions ({_times(shape)})", _SPLIT)
    if math.prod(shape) > MAX_VOXELS:
        raise CaseError(path, f"has more than {MAX_VOXELS:,} voxels ({_times(shape)})", "crop or resample it")
    if len(shape) > 3:
        warnings.append(f"Axes of length 1 after the third were dropped (shape {_times(shape)}).")
    x, y, z = (*shape, 1)[:3]
    return x, y, z


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)


# --- NIfTI -----------------------------------------------------------------------------------------------


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
    return _nifti_volume(path, image)


def _nifti_volume(path: Path, image: Any) -> SourceImage:
    warnings: list[str] = []
    dtype = image.header.get_data_dtype()
    if dtype.kind not in "iuf":
        held = "complex" if dtype.kind == "c" else "colour or structured"
        raise CaseError(path, f"holds {held} values", "export one grey value a voxel")
    shape = _spatial_shape(path, tuple(int(length) for length in image.shape), warnings)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except (OSError, ValueError) as error:
        if isinstance(error, gzip.BadGzipFile):
            raise
        raise CaseError(path, CORRUPT, COPY_AGAIN) from error
    header = image.header
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        warnings.append(_NOMINAL)
    unit = int(header["xyzt_units"]) & 7
    if unit not in _NIFTI_UNITS:
        raise CaseError(
            path, f"states a unit of length that NIfTI does not have ({unit})", "correct xyzt_units"
        )
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= _NIFTI_UNITS[unit]
    return SourceImage(array.reshape(shape), affine, "CT", warnings, header.copy())


# --- MetaImage and NRRD ----------------------------------------------------------------------------------


def _decode_itk(path: Path) -> SourceImage:
    import itk  # takes seconds to load, and most runs need none of it

    is_meta = path.name.lower().endswith((".mha", ".mhd"))
    text = _header_text(path, is_meta)
    _check_data_files(path, text, is_meta)
    io = itk.MetaImageIO.New() if is_meta else itk.NrrdImageIO.New()
    io.SetFileName(str(path))
    try:
        io.ReadImageInformation()
    except RuntimeError as error:
        raise CaseError(path, "has a header that cannot be read", COPY_AGAIN) from error
    warnings: list[str] = []
    if io.GetNumberOfComponents() != 1:
        raise CaseError(
            path, f"holds {io.GetNumberOfComponents()} values a voxel", "export one grey value a voxel"
        )
    dimensions = tuple(int(io.GetDimensions(axis)) for axis in range(io.GetNumberOfDimensions()))
    shape = _spatial_shape(path, dimensions, warnings)
    stated = (_META_GEOMETRY,) if is_meta else (_NRRD_GEOMETRY, _NRRD_ANATOMY)
    if not all(pattern.search(text) for pattern in stated):
        warnings.append(_NOMINAL)
    affine = _ras_affine(io)
    affine[:3] *= _unit(path, text, is_meta)
    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(path), ImageIO=io)
    try:
        reader.Update()
    except RuntimeError as error:
        raise CaseError(path, f"{CORRUPT}, or its geometry cannot be inverted", COPY_AGAIN) from error
    array = np.ascontiguousarray(itk.array_from_image(reader.GetOutput()).transpose(2, 1, 0))
    return SourceImage(array.reshape(shape), affine, "CT", warnings)


def _ras_affine(io: Any) -> NDArray[np.float64]:
    """(4, 4) voxel index -> mm in RAS+, from the header that ITK has read, whose world is LPS+.

    Of an image of more than three axes the first three count: ITK's reader drops their directions.
    """
    affine = np.eye(4)
    for axis in range(min(3, io.GetNumberOfDimensions())):
        direction = np.array([*io.GetDirection(axis), 0.0])[:3]
        affine[: len(direction), axis] = direction * io.GetSpacing(axis)
        affine[axis, 3] = io.GetOrigin(axis)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _unit(path: Path, text: str, is_meta: bool) -> float:
    """mm in the unit of a header's lengths."""
    found = (_META_UNITS if is_meta else _NRRD_UNITS).search(text)
    names = [] if found is None else re.findall(r'"([^"]*)"', found[1]) or [found[1]]
    units = {_UNITS.get(name.strip().lower()) for name in names[:3]} or {1.0}
    if None in units or len(units) > 1:
        raise CaseError(
            path,
            f"gives its lengths in units that are not known ({found[1] if found else ''})",
            "save it in mm",
        )
    return float(units.pop() or 1.0)


def _header_text(path: Path, is_meta: bool) -> str:
    """The part of the file that is text: it ends with the data-file field, or with an empty line in NRRD."""
    with open(path, "rb") as stream:
        text = stream.read(_HEADER_LIMIT).decode("latin-1").replace("\r\n", "\n")
    if is_meta:
        last = re.search(r"^\s*ElementDataFile\s*[=:].*$", text, re.IGNORECASE | re.MULTILINE)
        if last is None:
            raise CaseError(path, "is not a MetaImage file in spite of its name", "export it again")
        return text[: last.end()]
    if not text.startswith("NRRD"):
        raise CaseError(path, "is not an NRRD file in spite of its name", "export it again")
    return text.split("\n\n", 1)[0]


def _check_data_files(path: Path, text: str, is_meta: bool) -> None:
    """Let a header lead only to files in its own folder: it may come from a stranger."""
    for name in _DATA_FILE.findall(text):
        if is_meta and name.upper() == "LOCAL":
            continue
        if name.split(" ")[0].upper() == "LIST" or re.search(r"%\d*[di]", name):
            raise CaseError(path, "spreads its data over several files", "save it as one file")
        if "%" in name:
            problem = "names a data file with a per cent sign, which stands for numbers there"
            raise CaseError(path, problem, "rename that file, here and on disk")
        if not name or Path(name).name != name or "\\" in name or name in (".", ".."):
            raise CaseError(path, "names a data file outside its own folder", "put both into one folder")
        if not (path.parent / name).is_file():
            raise CaseError(path, f"needs the data file {name}, which is missing", "put it beside the header")
