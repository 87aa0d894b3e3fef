"""MetaImage and NRRD through ITK, which believes more of a header than is good."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.cases.errors import COPY_AGAIN, CORRUPT, CaseError
from bundle.cases.image import SourceImage
from bundle.cases.volumes import NOMINAL, checked, spatial_shape

_HEADER_LIMIT = 1 << 16
# The data-file field of MetaImage ('ElementDataFile = x') and of NRRD ('data file: x'). Looser than either
# format's own parser, so that no spelling which that parser accepts is missed here.
_DATA_FILE = re.compile(r"^\s*(?:element\s*)?data\s*file\s*[=:]\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_META_GEOMETRY = re.compile(r"^\s*(TransformMatrix|Rotation|Orientation)\s*[=:]", re.MULTILINE)
_META_ORIGIN = re.compile(r"^\s*(Offset|Origin|Position)\s*[=:]", re.MULTILINE)
_META_SPACING = re.compile(r"^\s*Element(Spacing|Size)\s*[=:]", re.MULTILINE)
_META_FIELD = re.compile(r"^[ \t]*(\w+)[ \t]*[=:][ \t]*(.*?)\s*$", re.MULTILINE)
# Names of one and the same thing, which a header may give once.
_META_ONCE = (
    *(("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Origin", "Position"), ("ElementSpacing",)),
    *(("BinaryDataByteOrderMSB", "ElementByteOrderMSB"), ("NDims",), ("DimSize",), ("ElementType",)),
    *(("BinaryData",), ("CompressedData",), ("CompressedDataSize",), ("HeaderSize",)),
)
# How far a direction may be from a length of 1, which is rounding.
_UNIT_LENGTH = 0.01
_CHUNK = 1 << 20
_META_END = re.compile(rb"ElementDataFile\s*[=:][^\n]*\n")
_NRRD_END = re.compile(rb"\n\r?\n")
_NRRD_GEOMETRY = re.compile(r"^\s*space directions\s*:", re.IGNORECASE | re.MULTILINE)
_NRRD_ORIGIN = re.compile(r"^\s*space origin\s*:", re.IGNORECASE | re.MULTILINE)
# Other spaces, such as scanner-xyz, say nothing of the patient's left and right.
_NRRD_ANATOMY = re.compile(
    r"^\s*space\s*:\s*(LPS|RAS|LAS|(left|right)-(anterior|posterior)-superior)", re.IGNORECASE | re.MULTILINE
)
_NRRD_UNITS = re.compile(r"^\s*space units\s*:\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_META_UNITS = re.compile(r"^\s*DistanceUnits\s*[=:]\s*(.*?)\s*$", re.MULTILINE)
# mm in the units of length that headers name.
_UNITS = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("", "?", "mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(
        ("um", "\u00b5m", "\u00c2\u00b5m", "micron", "microns", "micrometer", "micrometers"), 0.001
    ),
}


def read_itk(path: Path, head: bytes) -> SourceImage:
    """Read and check a MetaImage or NRRD file; one with its data in a second file is named by its header.

    Raises:
        CaseError: see `read_nifti`.
    """
    return checked(path, _decode_itk(path))


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
    shape = spatial_shape(path, dimensions, warnings)
    _check_directions(path, io)
    if is_meta:
        _check_meta(path, text, dimensions, int(np.prod(dimensions)) * io.GetComponentSize())
    else:
        _check_skip(path, text, int(np.prod(dimensions)) * io.GetComponentSize())
    stated = (
        (_META_GEOMETRY, _META_ORIGIN, _META_SPACING)
        if is_meta
        else (_NRRD_GEOMETRY, _NRRD_ORIGIN, _NRRD_ANATOMY)
    )
    if not all(pattern.search(text) for pattern in stated):
        warnings.append(NOMINAL)
    affine = _ras_affine(io)
    affine[:3] *= _unit(path, text, is_meta)
    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(path), ImageIO=io)
    try:
        reader.Update()
    except RuntimeError as error:
        raise CaseError(path, f"{CORRUPT}, or its geometry cannot be inverted", COPY_AGAIN) from error
    array = np.ascontiguousarray(itk.array_from_image(reader.GetOutput()).transpose(2, 1, 0))
    return SourceImage(array.reshape(shape), affine, "CT", warnings)


def _check_directions(path: Path, io: Any) -> None:
    """ITK takes lengths of no or negative size, and directions of any length, as they come."""
    axes = range(min(3, io.GetNumberOfDimensions()))
    sizes = np.array([io.GetSpacing(axis) for axis in axes])
    lengths = np.array([np.linalg.norm(io.GetDirection(axis)) for axis in axes])
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        problem = f"has voxels of {' x '.join(f'{size:g}' for size in sizes)} by its header"
        raise CaseError(path, problem, "correct its voxel size")
    if not (np.abs(lengths - 1) <= _UNIT_LENGTH).all():
        problem = "has a geometry whose directions are not of length 1, so that its voxel size is not known"
        raise CaseError(path, problem, "correct its header")


def _check_meta(path: Path, text: str, dimensions: tuple[int, ...], size: int) -> None:
    """What ITK takes without a word, or that ends the whole process.

    Args:
        size: bytes of all values.
    """
    stated: dict[str, list[str]] = {}
    for name, value in _META_FIELD.findall(text):
        stated.setdefault(name, []).append(value)
    for names in _META_ONCE:
        values = [value.lower().split() for name in names for value in stated.get(name, [])]
        if any(value != values[0] for value in values):
            raise CaseError(path, f"states {names[0]} more than once, and differently", "correct its header")

    def is_true(name: str, otherwise: str) -> bool:
        return stated.get(name, [otherwise])[-1][:1] in ("T", "t", "1")

    def number(name: str, otherwise: float) -> float:
        try:
            return float(stated.get(name, [str(otherwise)])[-1])
        except ValueError:
            return float("nan")

    if len(dimensions) != 3 and not is_true("BinaryData", "True"):
        # ITK ends the process on these.
        problem = f"holds its values as text in {len(dimensions)} dimensions, which is not read"
        raise CaseError(path, problem, "save it as binary")
    function = "ElementToIntensityFunction"
    if number(f"{function}Slope", 1) != 1 or number(f"{function}Offset", 0) != 0:
        problem = f"holds values that are to be rescaled ({function}), which no common reader does"
        raise CaseError(path, problem, "save it with its intensities")
    local, compressed = _data_of(text).upper() == "LOCAL", is_true("CompressedData", "False")
    skip = number("HeaderSize", 0)
    if (skip > 0 and local) or (skip and compressed):
        raise CaseError(path, "states a HeaderSize, which has no meaning here", "save it again")
    if skip == -1 and is_true("BinaryData", "True"):
        _check_counted_from_end(path, "" if local else _data_of(text), _META_END, size)
    if compressed:
        _check_compressed(path, None if local else _data_of(text), number("CompressedDataSize", -1), size)


def _data_of(text: str) -> str:
    return str((_DATA_FILE.findall(text) or [""])[-1])


def _check_compressed(path: Path, beside: str | None, packed: float, size: int) -> None:
    """See that compressed values are whole: ITK hands on whatever memory held where they are not.

    Args:
        beside: the data file's name; None where values follow the header.
        packed: bytes they take compressed, as stated; negative where that is not stated.
        size: bytes they take.
    """
    if beside is None and packed <= 0:
        problem = "holds compressed values without saying how many bytes they take (CompressedDataSize)"
        raise CaseError(path, problem, "save it again")
    unpacked, count = zlib.decompressobj(), 0
    try:
        with open(path if beside is None else path.parent / beside, "rb") as stream:
            if beside is None:
                start = _META_END.search(stream.read(_HEADER_LIMIT))
                stream.seek(0 if start is None else start.end())
            while not unpacked.eof and (chunk := stream.read(_CHUNK)):
                # no more at a time than is asked for, so that a bomb takes no memory
                while chunk and not unpacked.eof and count <= size:
                    count += len(unpacked.decompress(chunk, _CHUNK))
                    chunk = unpacked.unconsumed_tail
    except (zlib.error, ValueError) as error:
        raise CaseError(path, CORRUPT, COPY_AGAIN) from error
    if count != size or not unpacked.eof:
        raise CaseError(path, CORRUPT, COPY_AGAIN)


def _check_skip(path: Path, text: str, size: int) -> None:
    """See that values that are counted from the end of an NRRD file are all there."""
    skipped = re.search(r"^\s*byte skip\s*:\s*-1\s*$", text, re.IGNORECASE | re.MULTILINE)
    if skipped and re.search(r"^\s*encoding\s*:\s*raw\s*$", text, re.IGNORECASE | re.MULTILINE):
        _check_counted_from_end(path, _data_of(text), _NRRD_END, size)


def _check_counted_from_end(path: Path, name: str, end: re.Pattern[bytes], size: int) -> None:
    """See that values do not begin within the header, which ITK would read as some of them.

    Args:
        name: of the data file; '' where values follow the header.
        end: of the header.
        size: bytes of all values.
    """
    data = path.parent / name if name else path
    with open(path, "rb") as stream:
        header = None if name else end.search(stream.read(_HEADER_LIMIT))
    if data.stat().st_size - (header.end() if header else 0) < size:
        raise CaseError(path, CORRUPT, COPY_AGAIN)


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
