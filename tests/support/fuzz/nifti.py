"""NIfTI-1 and -2 by the byte, and what nifti1.h says that they mean."""

from __future__ import annotations

import gzip
import math
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.fuzz.core import NONSENSE, Fields, Format, Truth, origin, rotation, spacing

HU = np.random.default_rng(5).integers(-1000, 400, (7, 9, 11)).astype(np.int16)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 1.5, 0, -80], [0, 0, 3.0, 20], [0, 0, 0, 1]])
_TYPES = {
    **{
        2: "u1",
        4: "i2",
        8: "i4",
        16: "f4",
        64: "f8",
        256: "i1",
        512: "u2",
        768: "u4",
        1024: "i8",
        1280: "u8",
    },
}
_COMPOUND = {1: 1, 32: 64, 128: 24, 1792: 128, 2304: 32}  # bits: binary, complex, colours
_UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
# Name -> place and format in a header of version 1 and of version 2.
_PLACES = {
    "sizeof_hdr": ((0, "i"), (0, "i")),
    "magic": ((344, "4s"), (4, "8s")),
    "datatype": ((70, "h"), (12, "h")),
    "bitpix": ((72, "h"), (14, "h")),
    "dim": ((40, "8h"), (16, "8q")),
    "intent_code": ((68, "h"), (504, "i")),
    "pixdim": ((76, "8f"), (104, "8d")),
    "vox_offset": ((108, "f"), (168, "q")),
    "scl_slope": ((112, "f"), (176, "d")),
    "scl_inter": ((116, "f"), (184, "d")),
    "qform_code": ((252, "h"), (344, "i")),
    "sform_code": ((254, "h"), (348, "i")),
    "quatern": ((256, "3f"), (352, "3d")),
    "qoffset": ((268, "3f"), (376, "3d")),
    "srow": ((280, "12f"), (400, "12d")),
    "xyzt_units": ((123, "b"), (500, "i")),
}


def _quaternion(matrix: NDArray[np.float64]) -> tuple[tuple[float, ...], float]:
    """(b, c, d) with a >= 0 of a rotation, and qfac."""
    from scipy.spatial.transform import Rotation

    qfac = 1.0 if np.linalg.det(matrix) > 0 else -1.0
    b, c, d, a = Rotation.from_matrix(matrix * [1, 1, qfac]).as_quat()
    return tuple(float(one) * (1 if a >= 0 else -1) for one in (b, c, d)), qfac


def _placed(rng: random.Random) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = rotation(rng) * spacing(rng)
    affine[:3, 3] = origin(rng)
    return affine


def _sheared(rng: random.Random) -> NDArray[np.float64]:
    affine = _placed(rng)
    affine[:3, 2] += 0.3 * affine[:3, 1]
    return affine


def _header(fields: Fields) -> dict[str, Any]:
    """The values of the header, those that follow from 'affine' too."""
    affine = fields["affine"]
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    # The nearest rotation, as a qform can hold no shear.
    u, _, v = np.linalg.svd(affine[:3, :3] / edges)
    quatern, qfac = _quaternion(u @ v)
    values = {
        "quatern": quatern,
        "qoffset": affine[:3, 3],
        "srow": affine[:3].ravel(),
        "pixdim": (qfac, *edges, 0, 0, 0, 0),
        "sizeof_hdr": 348 if fields["version"] == 1 else 540,
        "magic": b"n+1\0" if fields["version"] == 1 else b"n+2\0\r\n\x1a\n",
        "vox_offset": _start(fields),
        "bitpix": _COMPOUND.get(fields["datatype"]) or 8 * int(_TYPES.get(fields["datatype"], "i2")[1]),
    }
    for name, value in fields.items():
        if name in _PLACES and value is not None:
            values[name] = value
    if fields["qfac"] is not None:
        values["pixdim"] = (fields["qfac"], *values["pixdim"][1:])
    if fields["edges"] is not None:
        values["pixdim"] = (values["pixdim"][0], *fields["edges"], 0, 0, 0, 0)
    if fields["version"] == 2 and not math.isfinite(values["vox_offset"]):
        values["vox_offset"] = -1
    return values


def _start(fields: Fields) -> int:
    """Where voxels lie."""
    return (352 if fields["version"] == 1 else 544) + (16 if fields["extended"] else 0)


def _stored(fields: Fields) -> NDArray[Any]:
    dtype = _TYPES.get(fields["datatype"], "i2")
    values = HU.astype(np.int64)
    if dtype[0] == "u":
        values = values + 1024
    return values.astype(fields["order"] + dtype)


def write(folder: Path, fields: Fields) -> None:
    header = bytearray(_start(fields))
    for name, value in _header(fields).items():
        place, layout = _PLACES[name][fields["version"] - 1]
        values = value if isinstance(value, (tuple, np.ndarray)) else (value,)
        if layout[-1] in "hibq":
            values = tuple(int(one) for one in values)
        struct.pack_into(fields["order"] + layout, header, place, *values)
    if fields["extended"]:
        header[-20:] = struct.pack(f"{fields['order']}4bii8s", 1, 0, 0, 0, 16, 6, b"comment\0")
    content = bytes(header) + _stored(fields).tobytes(order="F")
    if fields["packed"]:
        (folder / "a.nii.gz").write_bytes(gzip.compress(content, 1))
    else:
        (folder / "a.nii").write_bytes(content)


def truth(folder: Path, fields: Fields) -> Truth:
    header = _header(fields)
    version = {b"n+1\0": 1, b"ni1\0": 1, b"n+2\0\r\n\x1a\n": 2, b"n+2\0": 2}.get(header["magic"])
    if version != fields["version"]:
        return NONSENSE
    if fields["datatype"] not in _TYPES:
        return NONSENSE
    array = _array(_content(folder), fields, header)
    affine, is_clear = _affine(header)
    unit = _UNITS.get(int(header["xyzt_units"]) & 7)
    if array is None or affine is None or unit is None:
        return NONSENSE
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or edges.min() == 0 or abs(np.linalg.det(affine[:3, :3] / edges)) < 1e-4:
        return NONSENSE
    return Truth(array, np.diag([unit, unit, unit, 1]) @ affine, is_clear)


def _content(folder: Path) -> bytes:
    path = next(folder.iterdir())
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _array(content: bytes, fields: Fields, header: dict[str, Any]) -> NDArray[np.float64] | None:
    rank, *lengths = header["dim"]
    if not 2 <= rank <= 7:
        return None
    lengths = lengths[:rank]
    if min(lengths) < 1 or any(one != 1 for one in lengths[3:]):
        return None
    shape = (*lengths, 1)[:3]
    begin = header["vox_offset"]
    least = 352 if fields["version"] == 1 else 544
    if not math.isfinite(begin):
        return None
    dtype = np.dtype(fields["order"] + _TYPES[fields["datatype"]])
    content = content[max(int(begin), least) :]
    if len(content) < math.prod(shape) * dtype.itemsize:
        return None
    values = np.frombuffer(content, dtype, math.prod(shape)).reshape(shape, order="F").astype(np.float64)
    slope, inter = (float(np.float32(header[name])) for name in ("scl_slope", "scl_inter"))
    if math.isfinite(slope) and slope != 0:
        if not math.isfinite(inter):
            return None
        values = values * slope + inter
    with np.errstate(over="ignore"):
        return values if np.isfinite(values.astype(np.float32)).all() else None


def _affine(header: dict[str, Any]) -> tuple[NDArray[np.float64] | None, bool]:
    """By method 3, else 2, else 1 of nifti1.h; and whether nothing contradicts it."""
    by_s = by_q = None
    if max(header["sform_code"], header["qform_code"]) > 5:
        return None, False
    if header["sform_code"] > 0:
        by_s = np.vstack([np.reshape(header["srow"], (3, 4)), [0, 0, 0, 1]]).astype(np.float64)
    if header["qform_code"] > 0:
        by_q = _by_quaternion(header)
        if by_q is None and by_s is None:
            return None, False
    if by_s is not None:
        if by_q is None or not np.isfinite(by_s).all():
            # A qform that makes no sense beside a sform is no second opinion.
            return by_s, True
        corners = np.array([(x, y, z, 1) for x in (0, 7) for y in (0, 9) for z in (0, 11)])
        apart = np.linalg.norm(corners @ (by_s - by_q)[:3].T, axis=1).max()
        edge = min(np.linalg.norm(by_s[:3, :3], axis=0).min(), np.linalg.norm(by_q[:3, :3], axis=0).min())
        # A shear is beyond a qform; what differs by more than 35 degrees or so is no shear.
        return by_s, bool(apart < 0.5 * edge) or (edge > 0 and _is_sheared(by_s))
    if by_q is not None:
        return by_q, True
    return np.diag([-1.0, 1, 1, 1]), False


def _is_sheared(affine: NDArray[np.float64]) -> bool:
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(columns.T @ columns - np.eye(3)).max() > 1e-3)


def _by_quaternion(header: dict[str, Any]) -> NDArray[np.float64] | None:
    qfac, x, y, z = (float(one) for one in header["pixdim"][:4])
    if not (min(x, y, z) > 0 and math.isfinite(x + y + z)) or qfac not in (-1, 0, 1):
        return None
    b, c, d = (float(one) for one in header["quatern"])
    rest = 1 - (b * b + c * c + d * d)
    if not rest >= -1e-5:
        return None
    a = math.sqrt(max(rest, 0))
    length = math.sqrt(a * a + b * b + c * c + d * d)
    a, b, c, d = (one / length for one in (a, b, c, d))
    affine = np.eye(4)
    affine[:3, :3] = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ]
    affine[:3, :3] *= [x, y, z * (-1 if qfac < 0 else 1)]
    affine[:3, 3] = header["qoffset"]
    return affine


NAN, INF = math.nan, math.inf
NIFTI = Format(
    "NIfTI",
    {
        **dict.fromkeys(
            ("quatern", "qoffset", "srow", "pixdim", "sizeof_hdr", "magic", "vox_offset", "bitpix")
        ),
        **{"order": "<", "version": 1, "packed": False, "extended": False, "affine": AFFINE, "qfac": None},
        **{"edges": None, "dim": (3, 7, 9, 11, 1, 1, 1, 1), "datatype": 4, "intent_code": 0},
        **{"scl_slope": 1.0, "scl_inter": 0.0, "qform_code": 1, "sform_code": 1, "xyzt_units": 2},
    },
    {
        "order": ["<", ">"],
        "version": [2],
        "packed": [True],
        "extended": [True],
        "affine": [_placed, _placed, _sheared],
        "srow": [
            lambda rng: _placed(rng)[:3].ravel(),
            np.zeros(12),
            (2.0, 0, 0, 90, 0, 1.5, 0, -80, 0, 0, 3, 20),
            (-2.0, 0, 0, 90, 0, 1.5, 0, -80, 0, 0, 0, 20),
            (-2.0, 0, 0, NAN, 0, 1.5, 0, -80, 0, 0, 3, 20),
        ],
        "quatern": [
            lambda rng: tuple(rng.uniform(-0.57, 0.57) for _ in range(3)),
            (0.0, 0.0, 0.0),
            (0.0, 1.0, 0.0),
            (0.9, 0.9, 0.0),
            (NAN, 0.0, 0.0),
        ],
        "qoffset": [origin, (0.0, 0.0, 0.0)],
        "qfac": [-1.0, 0.0, 1.0, 2.0, -2.0, NAN],
        "edges": [
            spacing,
            (0.0, 1.5, 3.0),
            (-2.0, 1.5, 3.0),
            (2.0, 1.5, NAN),
            (2.0, 1.5, INF),
            (2.0, 1.5, 0.0),
        ],
        "dim": [
            *((rank, 7, 9, 11, 1, 1, 1, 1) for rank in (-1, 0, 1, 2, 4, 5, 7, 8)),
            (3, 9, 7, 11, 1, 1, 1, 1),
            (3, 7, 9, 10, 1, 1, 1, 1),
            (3, 7, 9, 12, 1, 1, 1, 1),
            (3, 7, 0, 11, 1, 1, 1, 1),
            (3, 7, -9, 11, 1, 1, 1, 1),
            (4, 7, 9, 1, 11, 1, 1, 1),
            (4, 7, 9, 11, 0, 1, 1, 1),
            (5, 7, 9, 1, 1, 11, 1, 1),
            (3, 32767, 9, 11, 1, 1, 1, 1),
        ],
        "datatype": [*_TYPES, 0, 1, 32, 128, 2304, 1792, 77],
        "bitpix": [0, 8, 32],
        "vox_offset": [0.0, 348.0, 351.0, 352.0, 352.5, 353.0, 368.0, 4000.0, -1.0, NAN, 1e9],
        "scl_slope": [0.0, 2.0, -1.0, 0.5, NAN, INF, 1e-3, 1e38, lambda rng: round(rng.uniform(-3, 3), 4)],
        "scl_inter": [-1024.0, 1024.0, NAN, INF, lambda rng: round(rng.uniform(-2000, 2000), 2)],
        "qform_code": [0, 0, 2, 3, 4, 5, -1, 99],
        "sform_code": [0, 0, 2, 3, 4, 5, -1, 99],
        "xyzt_units": [0, 1, 3, 4, 7, 10, 2 | 8, 1 | 16, 3 | 32, 127],
        "magic": [b"ni1\0", b"n+1 ", b"\0\0\0\0", b"n+2\0"],
        "sizeof_hdr": [0, 349],  # which all readers mend
        "intent_code": [1007, 1002, 1005],
    },
    write,
    truth,
)
