"""MetaImage and NRRD by the line, and what their definitions say that the lines mean."""

from __future__ import annotations

import bz2
import gzip
import math
import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.fuzz.core import ANYTHING, NONSENSE, Fields, Format, Truth, origin, rotation, spacing
from tests.support.fuzz.nifti import HU

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
_LENGTHS = {"mm": 1.0, "um": 0.001, "cm": 10.0, "m": 1000.0}


def _words(values: Any) -> str:
    return " ".join(f"{value:.10g}" if isinstance(value, float) else str(value) for value in values)


def _stored(dtype: str, order: str) -> NDArray[Any]:
    values = HU.astype(np.int64)
    if dtype[0] == "u":
        values = values + 1024
    return values.astype(order + dtype)


def _damaged(data: bytes, how: str | None) -> bytes:
    """Cut, or with a bit turned where compression shows it."""
    if how == "cut":
        return data[: len(data) // 2]
    if how == "flip":
        return data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 16]) + data[len(data) // 3 + 1 :]
    return data[:-1] if how == "end" else data


def _placed(array: NDArray[Any], affine: NDArray[np.float64], is_clear: bool = True) -> Truth:
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or edges.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / edges)) < 1e-4:
        return NONSENSE
    return Truth(array.astype(np.float64), affine, is_clear)


# --- MetaImage ---------------------------------------------------------------------------------------------------

_META_TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4"},
    **{
        "MET_UINT": "u4",
        "MET_FLOAT": "f4",
        "MET_DOUBLE": "f8",
        "MET_LONG_LONG": "i8",
        "MET_UCHAR_ARRAY": "u1",
    },
}


def _meta_lines(fields: Fields) -> list[tuple[str, str]]:
    rank = fields["rank"]
    matrix = np.eye(rank)
    part = min(rank, 3)
    matrix[:part, :part] = np.asarray(fields["matrix"])[:part, :part]
    lines = [("ObjectType", "Image"), ("NDims", str(rank))]
    if fields["binary"]:
        lines.append(("BinaryData", fields["binary"]))
    if fields["msb_key"]:
        lines.append((fields["msb_key"], fields["msb"]))
    if fields["compressed"]:
        lines.append(("CompressedData", "True"))
    if fields["matrix_key"]:
        # one direction after the other
        lines.append((fields["matrix_key"], _words(matrix.T.ravel().tolist())))
    if fields["origin_key"]:
        lines.append((fields["origin_key"], _words([*fields["origin"], 0.0][:rank])))
    for key in ("ElementSpacing", "ElementSize"):
        if fields[key] is not None:
            lines.append((key, _words([*fields[key], 1.0][:rank])))
    lines.append(("DimSize", _words([*fields["sizes"], 1][:rank])))
    for key in (
        *(
            "AnatomicalOrientation",
            "DistanceUnits",
            "ElementNumberOfChannels",
            "HeaderSize",
            "CenterOfRotation",
        ),
        *("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset", "Modality", "Comment"),
    ):
        if fields[key] is not None:
            lines.append((key, str(fields[key])))
    lines.append(("ElementType", fields["type"]))
    if fields["twice"] is not None:
        lines.append(fields["twice"])
    return lines


def _write_meta(folder: Path, fields: Fields) -> None:
    order = ">" if fields["msb_key"] and fields["msb"] in ("True", "true", "T", "1") else "<"
    values = _stored(_META_TYPES.get(fields["type"], "i2"), order)
    if fields["rank"] == 2:
        values = values[:, :, 0]
    data = values.tobytes(order="F")
    if fields["binary"] == "False":
        data = _words(values.ravel(order="F").tolist()).encode()
    if fields["compressed"]:
        data = zlib.compress(data)
    before = fields["HeaderSize"] if isinstance(fields["HeaderSize"], int) and fields["HeaderSize"] > 0 else 0
    eol, equals = fields["eol"], fields["equals"]
    local = fields["data"] == "LOCAL"
    text = "".join(f"{key}{equals}{value}{eol}" for key, value in _meta_lines(fields))
    text += f"ElementDataFile{equals}{fields['data']}\n"
    if local:
        if fields["compressed"] == "sized":
            text = text.replace(
                "CompressedData", f"CompressedDataSize{equals}{len(data)}{eol}CompressedData", 1
            )
        (folder / "a.mha").write_bytes(text.encode() + _damaged(data, fields["damage"]))
    else:
        data = _damaged(data, fields["damage"])
        (folder / "a.mhd").write_text(text, newline="")
        (folder / str(fields["data"])).write_bytes(b"\7" * before + data)


def _meta_truth(folder: Path, fields: Fields) -> Truth:
    rank, sizes = fields["rank"], tuple(fields["sizes"])
    if fields["type"] not in _META_TYPES or fields["ElementNumberOfChannels"] not in (None, 1):
        return NONSENSE
    if fields["HeaderSize"] not in (None, 0, -1) and (fields["data"] == "LOCAL" or fields["compressed"]):
        return NONSENSE
    if fields["twice"] is not None:
        name = fields["twice"][0]
        keys = {"TransformMatrix": fields["matrix_key"], "Offset": fields["origin_key"]}
        # of what is stated nowhere else it is the first time
        return NONSENSE if keys.get(name, fields.get(name, True)) else ANYTHING
    if fields["damage"] in ("cut", "end"):
        # of more values than the header counts the last may go
        is_spare = fields["damage"] == "end" and not fields["compressed"] and sizes == (7, 9, 10)
        return ANYTHING if is_spare else NONSENSE
    if fields["compressed"] is True and fields["data"] == "LOCAL":
        return NONSENSE
    if fields["damage"] == "flip":
        return NONSENSE if fields["compressed"] else ANYTHING
    array = _meta_array(fields, (*sizes, 1, 1)[:3] if rank != 2 else (*sizes[:2], 1))
    edges = fields["ElementSpacing"] or fields["ElementSize"] or (1.0, 1.0, 1.0)
    if rank == 2:
        edges = (*edges[:2], 1.0)
    if array is None or not all(math.isfinite(one) and one > 0 for one in edges):
        return NONSENSE
    affine, matrix = np.eye(4), np.eye(3)
    part = min(rank, 3)
    if fields["matrix_key"]:
        matrix[:part, :part] = np.asarray(fields["matrix"])[:part, :part]
    affine[:3, :3] = matrix * edges
    if fields["origin_key"]:
        affine[:part, 3] = fields["origin"][:part]
    unit = _LENGTHS.get(fields["DistanceUnits"] or "mm", 1.0 if fields["DistanceUnits"] == "?" else 0.0)
    is_unit = bool(np.allclose(np.linalg.norm(matrix, axis=0), 1, atol=1e-2))
    clear = bool(fields["matrix_key"] and fields["origin_key"]) and is_unit
    clear &= (fields["ElementSpacing"] or fields["ElementSize"]) is not None
    return _placed(array, np.diag([unit, unit, unit, 1]) @ _FLIP @ affine, clear)


def _meta_array(fields: Fields, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    values = _stored(_META_TYPES[fields["type"]], "<")
    if fields["rank"] == 2:
        values = values[:, :, :1]
    flat = values.ravel(order="F")
    if min(shape) < 1 or math.prod(shape) > flat.size or min(fields["sizes"]) < 1:
        return None
    count = math.prod(shape)
    # values that are counted from the end of the file
    flat = flat[-count:] if fields["HeaderSize"] == -1 and fields["binary"] != "False" else flat[:count]
    array = flat.reshape(shape, order="F").astype(np.float64)
    slope, offset = (fields[f"ElementToIntensityFunction{name}"] for name in ("Slope", "Offset"))
    return array * (1 if slope is None else slope) + (offset or 0)


_EYE = [[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]]
META = Format(
    "MetaImage",
    {
        **{"rank": 3, "sizes": (7, 9, 11), "binary": "True", "msb_key": "BinaryDataByteOrderMSB"},
        **{
            "msb": "False",
            "compressed": False,
            "damage": None,
            "matrix_key": "TransformMatrix",
            "matrix": _EYE,
        },
        **{"origin_key": "Offset", "origin": (-90.0, 80.0, 20.0), "ElementSpacing": (2.0, 1.5, 3.0)},
        **dict.fromkeys(("ElementSize", "AnatomicalOrientation", "DistanceUnits", "ElementNumberOfChannels")),
        **dict.fromkeys(("HeaderSize", "CenterOfRotation", "Modality", "Comment", "twice")),
        **dict.fromkeys(("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset")),
        **{"type": "MET_SHORT", "eol": "\n", "equals": " = ", "data": "LOCAL"},
    },
    {
        "rank": [2, 4, 5],
        "sizes": [(9, 7, 11), (7, 9, 10), (7, 9, 12), (7, 0, 11), (7, -9, 11), (77, 9, 1), (70000, 9, 11)],
        "binary": ["False", ""],
        "msb_key": ["ElementByteOrderMSB", "BinaryDataByteOrderMSB", ""],
        "msb": ["True", "true", "T", "1", "false", "0", "F"],
        "compressed": [True, "sized", "sized"],
        "damage": ["cut", "flip", "end"],
        "matrix_key": ["Rotation", "Orientation", "", "TransformMatrix"],
        "matrix": [
            *[lambda rng: rotation(rng).tolist()] * 3,
            [[-2.0, 0, 0], [0, -1, 0], [0, 0, 1]],
            [[1.0, 0, 0], [0, 1, 0], [0, 0, 0]],
            [[1.0, 1, 0], [0, 0, 0], [0, 0, 1]],
            [[1.0, 0, 0.3], [0, 1, 0], [0, 0, 0.954]],
        ],
        "origin_key": ["Origin", "Position", ""],
        "origin": [origin],
        "ElementSpacing": [spacing, None, (0.0, 1.5, 3.0), (-2.0, 1.5, 3.0), (math.nan, 1.5, 3.0)],
        "ElementSize": [spacing, (2.0, 1.5, 3.0), (2.0, 1.5, 1.0)],
        "type": [*_META_TYPES, "MET_OTHER", "MET_NONE", "short"],
        "AnatomicalOrientation": ["RAI", "LPS", "LAS", "???", "RAS"],
        "DistanceUnits": ["mm", "cm", "um", "m", "?", "inch"],
        "ElementNumberOfChannels": [1, 2, 3],
        "HeaderSize": [0, -1, 16, 100],
        "CenterOfRotation": ["0 0 0", "10 20 30"],
        "ElementToIntensityFunctionSlope": [1, 2, -1, 0.5],
        "ElementToIntensityFunctionOffset": [0, -1024, 1024],
        "Modality": ["MET_MOD_CT", "MET_MOD_MR"],
        "Comment": ["TransformMatrix = 1 0 0 0 1 0 0 0 1", "nothing"],
        "twice": [("ElementSpacing", "1 1 1"), ("TransformMatrix", "1 0 0 0 1 0 0 0 1"), ("Offset", "0 0 0")],
        "eol": ["\r\n"],
        "equals": ["=", " : ", ": "],
        "data": ["a.raw", "a.zraw", "dim.raw"],
    },
    _write_meta,
    _meta_truth,
)

# --- NRRD --------------------------------------------------------------------------------------------------------

_NRRD_TYPES = {
    **{
        "short": "i2",
        "signed short": "i2",
        "int16": "i2",
        "int16_t": "i2",
        "uchar": "u1",
        "unsigned char": "u1",
    },
    **{
        "uint8": "u1",
        "int8": "i1",
        "signed char": "i1",
        "ushort": "u2",
        "unsigned short": "u2",
        "uint16": "u2",
    },
    **{"int": "i4", "signed int": "i4", "int32": "i4", "uint": "u4", "float": "f4", "double": "f8"},
    **{"longlong": "i8", "uint64": "u8"},
}
_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "LPS", "left-posterior-superior-time"), (-1, -1, 1)),
    **dict.fromkeys(("right-anterior-superior", "RAS"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "LAS"), (-1, 1, 1)),
}
_UNCLEAR = ("scanner-xyz", "3D-right-handed", "3D-left-handed", None)
_PACK = {
    **dict.fromkeys(("raw",), lambda data: data),
    **dict.fromkeys(("gzip", "gz"), gzip.compress),
    **dict.fromkeys(("bzip2", "bz2"), bz2.compress),
    "hex": lambda data: data.hex().encode(),
}
_TEXT = ("ascii", "text", "txt")


def _vector(values: Sequence[float]) -> str:
    return "(" + ",".join(f"{one:.10g}" for one in values) + ")"


def _write_nrrd(folder: Path, fields: Fields) -> None:
    dtype = _NRRD_TYPES.get(fields["type"], "i2")
    order = ">" if fields["endian"] == "big" else "<"
    values = _stored(dtype, order)
    data = values.tobytes(order="F")
    if fields["encoding"] in _TEXT:
        data = _words(values.ravel(order="F").tolist()).encode()
    else:
        data = _PACK.get(fields["encoding"], lambda one: one)(data)
    if fields["byte skip"] and fields["byte skip"] > 0 and fields["encoding"] == "raw":
        data = b"\7" * fields["byte skip"] + data
    data = _damaged(data, fields["damage"])
    if fields["line skip"]:
        data = b"a line\n" * fields["line skip"] + data
    extra = fields["extra"]
    sizes, kinds = list(fields["sizes"]), ["domain"] * 3
    directions = [_vector(column) for column in np.asarray(fields["directions"]).T]
    names = fields["kinds"]
    if extra == "last":
        sizes, kinds, directions = [*sizes, 1], [*kinds, "list"], [*directions, "none"]
    if extra == "first":
        sizes, kinds, directions = [1, *sizes], ["list", *kinds], ["none", *directions]
    lines = [f"type: {fields['type']}", f"dimension: {len(sizes)}"]
    if fields["space"] is None:
        lines.append("space dimension: 3")
    else:
        lines.append(f"space: {fields['space'].upper() if fields['upper'] else fields['space']}")
    lines.append(f"sizes: {_words(sizes)}")
    if fields["spacings"] is not None:
        lines.append(
            f"spacings: {_words([*([1.0] if extra == 'first' else []), *fields['spacings'], 1.0][: len(sizes)])}"
        )
    else:
        lines.append(f"space directions: {' '.join(directions)}")
    if names is not None:
        lines.append(f"kinds: {' '.join([names, *kinds[1:]] if names != 'domain' else kinds)}")
    if fields["centerings"]:
        lines.append("centerings: " + " ".join([fields["centerings"]] * len(sizes)))
    if fields["endian"]:
        lines.append(f"endian: {fields['endian']}")
    lines.append(f"encoding: {fields['encoding']}")
    if fields["origin"] is not None:
        lines.append(f"space origin: {_vector(fields['origin'])}")
    if fields["units"] is not None:
        lines.append("space units: " + " ".join(f'"{one}"' for one in fields["units"]))
    for key in ("byte skip", "line skip", "measurement frame", "old min", "old max"):
        if fields[key] is not None:
            lines.append(f"{key}: {fields[key]}")
    lines += fields["more"]
    eol = fields["eol"]
    if fields["detached"]:
        lines.append("data file: a.raw")
    text = f"NRRD000{fields['version']}{eol}" + eol.join(lines) + eol
    if fields["detached"]:
        (folder / "a.nhdr").write_text(text, newline="")
        (folder / "a.raw").write_bytes(data)
    else:
        (folder / "a.nrrd").write_bytes(text.encode() + eol.encode() + data)


def _nrrd_truth(folder: Path, fields: Fields) -> Truth:
    sizes, dtype = fields["sizes"], _NRRD_TYPES.get(fields["type"])
    encoding = fields["encoding"]
    if dtype is None or (encoding not in _PACK and encoding not in _TEXT):
        return NONSENSE
    if fields["endian"] not in ("little", "big") and int(dtype[1]) > 1 and encoding not in _TEXT:
        return NONSENSE
    if fields["space"] == "left-posterior-superior-time" or (
        fields["kinds"] not in (None, "domain", "space", "???", "time") and fields["extra"] != "first"
    ):
        return NONSENSE
    if fields["byte skip"] not in (None, 0, -1) and encoding != "raw":
        return ANYTHING  # of what is unpacked, and there may be enough of it
    if fields["damage"] == "flip":
        return NONSENSE if encoding in ("gzip", "gz", "bzip2", "bz2") else ANYTHING
    if fields["damage"]:
        # the line that ends text, and the end of a checksum, hold no value
        whole = encoding == "raw" and sizes == (7, 9, 11)
        return NONSENSE if fields["damage"] == "cut" or whole else ANYTHING
    flat = _stored(dtype, "<").ravel(order="F")
    if min(sizes) < 1 or math.prod(sizes) > flat.size:
        return NONSENSE
    array = flat[-math.prod(sizes) :] if fields["byte skip"] == -1 else flat[: math.prod(sizes)]
    affine = np.eye(4)
    directions = np.asarray(fields["directions"], dtype=float)
    if fields["spacings"] is not None:
        if not min(fields["spacings"]) > 0:
            return NONSENSE
        directions = np.diag(fields["spacings"])
    affine[:3, :3] = directions
    affine[:3, 3] = fields["origin"] or (0, 0, 0)
    units = [_LENGTHS.get(one, 0.0) for one in fields["units"] or ("mm",) * 3]
    if len(set(units)) > 1 or 0.0 in units:
        return NONSENSE
    clear = fields["space"] not in _UNCLEAR and fields["spacings"] is None and fields["origin"] is not None
    turn = np.diag([*_SPACES.get(fields["space"], (-1, -1, 1)), 1.0])
    scale = np.diag([units[0]] * 3 + [1])
    return _placed(array.reshape(sizes, order="F"), scale @ turn @ affine, clear)


def _directions(rng: random.Random) -> Any:
    return (rotation(rng) * spacing(rng)).tolist()


def _leaning(rng: random.Random) -> Any:
    matrix = np.asarray(_directions(rng))
    matrix[:, 2] += 0.3 * matrix[:, 1]
    return matrix.tolist()


NRRD = Format(
    "NRRD",
    {
        **{"type": "short", "sizes": (7, 9, 11), "space": "left-posterior-superior", "upper": False},
        **{"directions": [[-2.0, 0, 0], [0, -1.5, 0], [0, 0, 3.0]], "spacings": None, "kinds": "domain"},
        **{"centerings": None, "endian": "little", "encoding": "raw", "origin": (-90.0, 80.0, 20.0)},
        **{
            "units": None,
            "extra": None,
            "more": [],
            "eol": "\n",
            "detached": False,
            "version": 4,
            "damage": None,
        },
        **dict.fromkeys(("byte skip", "line skip", "measurement frame", "old min", "old max")),
    },
    {
        "type": [*_NRRD_TYPES, "block", "half"],
        "sizes": [(9, 7, 11), (7, 9, 10), (7, 9, 12), (7, 0, 11), (7, -9, 11), (693, 1, 1), (70000, 9, 11)],
        "space": [*_SPACES, *_UNCLEAR, "right-up", "RPS", ""],
        "upper": [True],
        "directions": [
            *[_directions] * 3,
            _leaning,
            [[-2.0, 0, 0], [0, -1.5, 0], [0, 0, 0]],
            [[math.nan, 0, 0], [0, -1.5, 0], [0, 0, 3]],
        ],
        "spacings": [spacing, (2.0, 1.5, math.nan), (-2.0, 1.5, 3.0), (0.0, 1.5, 3.0)],
        "kinds": [None, "space", "time", "list", "vector", "3-color", "???"],
        "centerings": ["cell", "node", "???", "none"],
        "endian": ["big", "", "little", "middle"],
        "encoding": [*_PACK, *_TEXT, "zrl", "nothing"],
        "origin": [origin, origin, None],
        "units": [("mm",) * 3, ("cm",) * 3, ("m",) * 3, ("um",) * 3, ("mm", "mm", "cm"), ("parsec",) * 3],
        "extra": ["last", "first"],
        "byte skip": [0, 16, -1, 7],
        "line skip": [0, 1, 3],
        "measurement frame": ["(1,0,0) (0,1,0) (0,0,1)", "(0,1,0) (1,0,0) (0,0,1)"],
        "old min": [-1000, 0],
        "old max": [3000, 1],
        "more": [
            *(
                ["# space: RAS"],
                ["key:=space: RAS"],
                ["content: a"],
                ["# data file: b.raw"],
                ["sample units: HU"],
            ),
            *(["space directions: (1,0,0) (0,1,0) (0,0,1)"], ['labels: "x" "y" "z"'], ["axis mins: 0 0 0"]),
        ],
        "eol": ["\r\n"],
        "detached": [True],
        "damage": ["cut", "flip", "end"],
        "version": [1, 2, 3, 5, 6],
    },
    _write_nrrd,
    _nrrd_truth,
)
