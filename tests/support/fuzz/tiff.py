"""TIFF pictures by the byte, and what TIFF 6.0 says that they show."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.fuzz.core import ANYTHING, NONSENSE, Fields, Format, Truth

_ROWS, _COLUMNS = 24, 40
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_GREY, _WHITE_ZERO, _RGB, _PALETTE = 1, 0, 2, 3
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_COPIED, _DEFLATED, _PACKED = 1, 8, 32773
_TRANSPARENT, _UNSPECIFIED = 2, 0


def _shown() -> NDArray[np.float64]:
    """(rows, columns, 3) from 0 to 1, without symmetry, black and white in it."""
    rows, columns = np.indices((_ROWS, _COLUMNS))
    red = 0.1 + 0.5 * columns / _COLUMNS + 0.3 * rows / _ROWS
    red[2:6, 3:9], red[10:14, 20:30] = 1.0, 0.0
    return np.stack([red, red[::-1] * 0.8, red[:, ::-1] * 0.6], axis=-1)


def _samples(fields: Fields) -> NDArray[np.float64]:
    """(rows, columns, samples), whole numbers but for floating point."""
    bits, count = fields["bits"], fields["samples"]
    part = _shown()[..., : min(count, 3)]
    if count > 3:
        part = np.concatenate([part, np.full((_ROWS, _COLUMNS, count - 3), fields["opacity"])], axis=-1)
    if fields["sample format"] == _FLOAT:
        return part
    return np.asarray(np.rint(part * ((1 << bits) - 1)))


def _strip(values: NDArray[np.float64], fields: Fields, order: str) -> bytes:
    """(rows, columns, samples) as bytes, each row padded to whole ones."""
    bits = fields["bits"]
    if fields["sample format"] == _FLOAT:
        data = values.astype(f"{order}f4").tobytes()
    elif bits in (8, 16, 32):
        data = values.astype(f"{order}u{bits // 8}").tobytes()
    else:
        flat = values.astype(np.uint8).reshape(len(values), -1)
        single = np.unpackbits(flat[..., None], axis=-1)[..., -bits:]
        data = np.packbits(single.reshape(len(values), -1), axis=-1).tobytes()
    if fields["fill order"] == 2:
        data = np.packbits(np.unpackbits(np.frombuffer(data, "u1"), bitorder="little")).tobytes()
    if fields["compression"] == _DEFLATED:
        return zlib.compress(data)
    if fields["compression"] == _PACKED:  # literal runs
        runs = [data[at : at + 128] for at in range(0, len(data), 128)]
        return b"".join(bytes([len(run) - 1]) + run for run in runs)
    return data


def write(folder: Path, fields: Fields) -> None:
    order = "<" if fields["order"] == "II" else ">"
    values, rows = _samples(fields), fields["rows per strip"]
    planes = [values] if fields["planar"] == 1 else np.split(values, values.shape[-1], axis=-1)
    strips = [
        _strip(plane[at : at + rows], fields, order) for plane in planes for at in range(0, _ROWS, rows)
    ]
    offsets, content = [], bytearray(struct.pack(f"{order}2sHI", fields["order"].encode(), 42, 0))
    for strip in strips:
        offsets.append(len(content))
        content += strip
    count = fields["samples"]
    tags: dict[int, tuple[int, list[int]]] = {
        256: (_LONG, [_COLUMNS]),
        257: (_LONG, [_ROWS]),
        258: (_SHORT, [fields["bits"]] * count),
        259: (_SHORT, [fields["compression"]]),
        262: (_SHORT, [fields["photometric"]]),
        273: (_LONG, offsets),
        277: (_SHORT, [count]),
        278: (_LONG, [rows]),
        279: (_LONG, [len(strip) for strip in strips]),
        284: (_SHORT, [fields["planar"]]),
        339: (_SHORT, [fields["sample format"]] * count),
    }
    if fields["photometric"] == _PALETTE:
        size = 1 << min(fields["bits"], 8)
        table = [round(65535 * (1 - at / (size - 1))) for at in range(size)]
        tags[320] = (_SHORT, table + [value // 2 for value in table] + [value // 3 for value in table])
    if count in (2, 4):
        tags[338] = (_SHORT, [fields["extra"]])
    for tag, name in ((274, "orientation"), (266, "fill order"), (296, "unit"), (254, "subfile")):
        if fields[name] is not None:
            tags[tag] = (_SHORT, [fields[name]])
    if fields["unit"] is not None:
        tags[282] = tags[283] = (_RATIONAL, [72, 1])
    for tag, value in fields["wrong"].items():
        tags[tag] = (tags.get(tag, (_LONG, []))[0], value)
    for tag in fields["missing"]:
        tags.pop(tag, None)
    content += _directory(content, tags, order)
    if fields["damage"] == "cut":
        content = content[: len(content) // 2]
    (folder / "a.tif").write_bytes(content)


def _directory(content: bytearray, tags: dict[int, tuple[int, list[int]]], order: str) -> bytes:
    """The directory, to follow `content`, whose header is made to lead there."""
    start = len(content) + len(content) % 2
    entries, further = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        layout = {_SHORT: "H", _LONG: "I", _RATIONAL: "I"}[kind]
        data = struct.pack(f"{order}{len(values)}{layout}", *values)
        number = len(values) // 2 if kind == _RATIONAL else len(values)
        if len(data) > 4:
            place = start + 2 + 12 * len(tags) + 4 + len(further)
            further += data + bytes(len(data) % 2)
            data = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, kind, number) + data.ljust(4, b"\0")
    struct.pack_into(f"{order}I", content, 4, start)
    padding = bytes(start - len(content))
    return padding + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + further


def truth(folder: Path, fields: Fields) -> Truth:
    bits, count, photometric = fields["bits"], fields["samples"], fields["photometric"]
    kind = fields["sample format"]
    colours = {_RGB: 3}.get(photometric, 1)
    if kind == _FLOAT and bits != 32:
        return ANYTHING  # more bytes than the header counts
    if fields["wrong"].keys() == {279} or set(fields["missing"]) & {258, 279}:
        return ANYTHING  # what other tags say is enough, and the default of BitsPerSample is 1
    if fields["damage"] or fields["wrong"] or not set(fields["missing"]) <= {266, 274, 284, 339}:
        return NONSENSE
    if count < colours:
        return NONSENSE
    is_usual = (kind == _UNSIGNED and bits in (1, 2, 4, 8, 16)) or (kind == _FLOAT and bits == 32)
    if not is_usual or (photometric == _PALETTE and (bits > 8 or kind == _FLOAT or count > 1)):
        return ANYTHING
    if count not in (1, 3) or (kind == _FLOAT and photometric != _GREY) or (count == 3 and colours == 1):
        return ANYTHING
    if fields["fill order"] == 2 and (bits > 8 or fields["compression"] != _COPIED):
        return ANYTHING  # whether before or after compression, writers do not agree
    most = 1.0 if kind == _FLOAT else float((1 << bits) - 1)
    shown = _samples(fields) / most
    if photometric == _WHITE_ZERO:
        shown = 1 - shown
    if photometric == _PALETTE:
        shown = (1 - shown) * [1, 1 / 2, 1 / 3]
    shown = _upright(shown, fields["orientation"] if 274 not in fields["missing"] else None)
    return Truth(shown.transpose(2, 0, 1))


def _upright(shown: NDArray[Any], orientation: int | None) -> NDArray[Any]:
    """By where row 0 and column 0 lie: TIFF 6.0, section 8."""
    if orientation in (5, 6, 7, 8):
        shown = shown.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        shown = shown[:, ::-1]
    if orientation in (3, 4, 7, 8):
        shown = shown[::-1]
    return shown


TIFF = Format(
    "TIFF",
    {
        **{"order": "II", "bits": 8, "samples": 1, "photometric": _GREY, "planar": 1, "compression": _COPIED},
        **{"sample format": _UNSIGNED, "rows per strip": _ROWS, "opacity": 1.0, "extra": _TRANSPARENT},
        **{"orientation": None, "fill order": None, "unit": None, "subfile": None, "damage": None},
        **{"wrong": {}, "missing": ()},
    },
    {
        "order": ["MM"],
        "bits": [1, 2, 4, 8, 16, 16, 32, 12],
        "samples": [1, 2, 3, 3, 4],
        "photometric": [_WHITE_ZERO, _WHITE_ZERO, _RGB, _RGB, _PALETTE, 5, 6, 99],
        "planar": [2],
        "compression": [_DEFLATED, _PACKED, 5, 7, 99],
        "sample format": [_SIGNED, _FLOAT, 4],
        "rows per strip": [1, 7, 1000],
        "opacity": [0.0, 0.5],
        "extra": [_UNSPECIFIED, 1],
        "orientation": [*range(1, 9), 0, 9],
        "fill order": [1, 2],
        "unit": [1, 2, 3],
        "subfile": [0, 1, 4],
        "damage": ["cut"],
        "wrong": [
            *({256: [_COLUMNS + 9]}, {257: [_ROWS * 50]}, {256: [0]}, {273: [10**6]}, {279: [3]}),
            *({258: [9]}, {277: [7]}, {256: [2**31 - 1]}, {262: [_PALETTE]}),
        ],
        "missing": [(262,), (273,), (279,), (258,), (339,), (274,), (256,), (284,)],
    },
    write,
    truth,
)
