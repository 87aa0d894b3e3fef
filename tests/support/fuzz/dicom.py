"""CT series and films as DICOM; what they are by GDCM's decoder and geometry, and by the arithmetic of PS3.3."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from tests.support.dicom_files import STEP, Ct, film, save
from tests.support.fuzz.core import NONSENSE, Fields, Format, Truth, rotation

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
}
_COUNT = 6


def _change(dataset: Any, fields: Fields, keywords: tuple[str, ...]) -> None:
    """Set attributes, or drop those that are to be None; '' leaves them as they are."""
    for keyword in keywords:
        value = fields[keyword]
        if value == "as is":
            continue
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)


def _encode(dataset: Any, syntax: str) -> None:
    uid = _SYNTAXES[syntax]
    if uid == RLELossless:
        dataset.compress(RLELossless)
        return
    if uid == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = uid


def _decoded(path: Path) -> tuple[NDArray[Any], tuple[float, float]] | None:
    """Stored values as GDCM decodes them, (rows, columns), and its slope and intercept."""
    import gdcm

    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        return None
    image = reader.GetImage()
    shape = image.GetPixelFormat()
    if shape.GetSamplesPerPixel() != 1:
        return None
    kind = {8: "1", 16: "2", 32: "4"}.get(shape.GetBitsAllocated())
    if kind is None:
        return None
    dtype = np.dtype(f"{'i' if shape.GetPixelRepresentation() else 'u'}{kind}")
    decoded = image.GetBuffer()
    if decoded is None:
        return None
    buffer = decoded.encode("utf-8", errors="surrogateescape")
    columns, rows = image.GetDimension(0), image.GetDimension(1)
    if len(buffer) < rows * columns * dtype.itemsize:
        return None
    values = np.frombuffer(buffer, dtype, rows * columns).reshape(rows, columns)
    return values, (image.GetSlope(), image.GetIntercept())


# --- CT ----------------------------------------------------------------------------------------------------------

_CT_SET = (
    *("PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept"),
    *("RescaleType", "PhotometricInterpretation", "BitsStored", "HighBit", "PixelRepresentation"),
    *("WindowCenter", "WindowWidth", "GantryDetectorTilt", "PatientPosition", "Rows", "Columns"),
    *(
        "PixelPaddingValue",
        "SliceLocation",
        "AcquisitionNumber",
        "ImageOrientationPatient",
        "PixelAspectRatio",
    ),
    *("NumberOfFrames", "ImagerPixelSpacing", "PatientOrientation", "SmallestImagePixelValue"),
)


def _write_ct(folder: Path, fields: Fields) -> None:
    matrix = fields["direction"]
    rows = np.asarray(matrix, dtype=float)
    ct = Ct(
        _COUNT, tuple(float(f"{one:.8f}") for one in rows[:, :2].T.ravel()), fields["step"], fields["lean"]
    )
    rng = random.Random(str(fields["shuffle"]))
    numbers = list(range(1, _COUNT + 1))
    if fields["shuffle"]:
        rng.shuffle(numbers)
    for index, dataset in enumerate(ct.slices):
        dataset.InstanceNumber = (
            numbers[index] if fields["InstanceNumber"] == "as is" else fields["InstanceNumber"]
        )
        if fields["bits"] == 12:
            dataset.BitsStored, dataset.HighBit = 12, 11
        if fields["signed"]:
            values = np.frombuffer(dataset.PixelData, "<u2").astype(np.int32) - 1024
            dataset.PixelData = values.astype("<i2").tobytes()
            if fields["bits"] == 12 and fields["signed"] == "masked":
                dataset.PixelData = (values & 0x0FFF).astype("<u2").tobytes()
            dataset.PixelRepresentation, dataset.RescaleIntercept = 1, 0
        _change(dataset, fields, _CT_SET)
        if index == fields["odd"][0]:
            setattr(dataset, fields["odd"][1], fields["odd"][2])
        if index == fields["moved"][0]:
            where = np.array(dataset.ImagePositionPatient, dtype=float) + fields["moved"][1]
            dataset.ImagePositionPatient = [float(one) for one in where.round(6)]
        if fields["ImagePositionPatient"] is None:
            del dataset.ImagePositionPatient
        _encode(dataset, fields["syntax"])
        if index not in fields["missing"]:
            save(dataset, folder / "ct" / f"{(index * 5) % _COUNT}.dcm")


def _ct_truth(folder: Path, fields: Fields) -> Truth:
    """Slices as GDCM decodes them, in the order of their places along their normal."""
    slices = []
    for path in sorted((folder / "ct").iterdir()):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        decoded = _decoded(path)
        if decoded is None or not _is_orientation(list(header.get("ImageOrientationPatient") or [])):
            return NONSENSE
        stored, (slope, intercept) = decoded
        rows, columns = (float(one) for one in header.get("PixelSpacing") or (0, 0))
        cosines = np.array(header.ImageOrientationPatient, dtype=float)
        plane = np.stack([cosines[:3] * columns, cosines[3:] * rows], axis=1)
        where = np.array(header.get("ImagePositionPatient") or (0, 0, 0), dtype=float)
        slices.append((stored * slope + intercept, where, plane))
        if not _is_same_by_itk(path, where, plane):
            return Truth(stored, np.eye(4), is_clear=False)
    stated = fields["ImagePositionPatient"] == "as is" and _is_orientation(fields["ImageOrientationPatient"])
    if not stated or fields["PixelSpacing"] in (None, [0, 0.9], [-0.7, 0.9]):
        return NONSENSE
    if None in (fields["RescaleSlope"], fields["RescaleIntercept"]) or fields["RescaleSlope"] == 0:
        return NONSENSE
    if fields["RescaleType"] not in ("as is", None, "", "HU", "US"):
        return NONSENSE
    if fields["PhotometricInterpretation"] == "RGB":
        return NONSENSE
    if len({array.shape for array, _, _ in slices}) > 1 or fields["odd"][1] in ("FrameOfReferenceUID",):
        return NONSENSE
    plane = slices[0][2]
    if any(not np.allclose(one, plane, atol=1e-3) for _, _, one in slices):
        return NONSENSE
    normal = np.cross(plane[:, 0], plane[:, 1])
    normal /= np.linalg.norm(normal)
    slices.sort(key=lambda one: float(one[1] @ normal))
    places = np.array([place for _, place, _ in slices])
    steps = np.diff(places, axis=0)
    if len(slices) < 2 or np.abs(steps - steps[0]).max() > 0.05 * np.linalg.norm(steps[0]):
        return NONSENSE
    step = (places[-1] - places[0]) / (len(places) - 1)
    if np.linalg.norm(step) < 0.02:
        return NONSENSE
    affine = np.eye(4)
    affine[:3, :2], affine[:3, 2], affine[:3, 3] = plane, step, places[0]
    array = np.stack([one.T for one, _, _ in slices], axis=-1)
    return Truth(array.astype(np.float64), _LPS @ affine)


def _is_same_by_itk(path: Path, where: NDArray[Any], plane: NDArray[Any]) -> bool:
    """Whether ITK puts a slice at the same place, if it reads it at all."""
    import itk

    io = itk.GDCMImageIO.New()
    io.SetFileName(str(path))
    try:
        io.ReadImageInformation()
    except RuntimeError:
        return True
    origin = np.array([io.GetOrigin(axis) for axis in range(3)])
    sides = np.array([np.array(io.GetDirection(axis)) * io.GetSpacing(axis) for axis in range(2)]).T
    return bool(np.allclose(origin, where, atol=1e-3) and np.allclose(sides, plane, atol=1e-3))


def _is_orientation(value: Any) -> bool:
    if value == "as is":
        return True
    if value is None or len(value) != 6:
        return False
    row, column = np.array(value[:3], dtype=float), np.array(value[3:], dtype=float)
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    return bool(np.abs(lengths - 1).max() < 1e-3 and abs(row @ column) < 1e-3)


def _proper(rng: random.Random) -> NDArray[np.float64]:
    matrix = rotation(rng)
    return matrix * [1, 1, np.sign(np.linalg.det(matrix))]


AS_IS = "as is"
CT = Format(
    "DICOM CT",
    {
        **dict.fromkeys(_CT_SET, AS_IS),
        **{
            "direction": np.eye(3),
            "step": STEP,
            "lean": 0.0,
            "shuffle": 0,
            "InstanceNumber": AS_IS,
            "bits": 16,
        },
        **{"signed": "", "odd": (-1, "", 0), "moved": (-1, 0), "missing": (), "syntax": "explicit"},
        "ImagePositionPatient": AS_IS,
    },
    {
        "direction": [_proper, _proper, _proper],
        "step": [1.0, 5.0, 0.6, -2.5],
        "lean": [0.4, -0.8, 1.2],
        "shuffle": [1, 2, 3],
        "InstanceNumber": [None, 1, AS_IS],
        "bits": [12],
        "signed": ["extended", "masked"],
        "syntax": list(_SYNTAXES),
        "missing": [(2,), (0,), (5,), (1, 3)],
        "moved": [
            (2, 0.3),
            (2, np.array([5.0, 0, 0])),
            (2, np.array([0, 0, 1.2])),
            (5, np.array([0, 0, 9.0])),
        ],
        "odd": [
            *((2, "RescaleSlope", 2), (1, "RescaleIntercept", 0), (2, "PixelSpacing", [0.9, 0.7])),
            *((3, "ImageOrientationPatient", [1, 0, 0, 0, -1, 0]), (2, "PixelRepresentation", 1)),
            *(
                (2, "AcquisitionNumber", 7),
                (2, "SliceThickness", 9),
                (2, "PhotometricInterpretation", "MONOCHROME1"),
            ),
            *((2, "RescaleSlope", -1), (2, "ImageType", ["DERIVED", "SECONDARY"])),
        ],
        "ImagePositionPatient": [None],
        "ImageOrientationPatient": [
            *([1, 0, 0, 0, -1, 0], [-1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, -1], None),
            *(
                [1, 0, 0, 1, 0, 0],
                [2, 0, 0, 0, 1, 0],
                [0, 0, 0, 0, 0, 0],
                [1, 0, 0],
                [0.99, 0.1, 0, -0.1, 0.99, 0],
            ),
        ],
        "PixelSpacing": [[0.9, 0.7], [3, 3], [0, 0.9], [-0.7, 0.9], None, [0.5, 0.5], [0.333333, 0.333333]],
        "SliceThickness": [0, 5, None, -2.5, 1.25],
        "SpacingBetweenSlices": [0, 5, -2.5, 1.25],
        "RescaleSlope": [0, 0.5, 2, -1, None, 0.001],
        "RescaleIntercept": [0, -1000, -8192, None, 100.5],
        "RescaleType": ["HU", "US", "OD", "", None],
        "PhotometricInterpretation": ["MONOCHROME1", "MONOCHROME2 ", "RGB"],
        "BitsStored": [8, 12, 15, 16, 17],
        "HighBit": [7, 11, 15, 0],
        "PixelRepresentation": [0, 1],
        "WindowCenter": [40],
        "WindowWidth": [400],
        "GantryDetectorTilt": [0, 15, -22.5],
        "PatientPosition": ["HFS", "FFS", "HFP", "FFDR"],
        "Rows": [34, 17, 72],
        "Columns": [36, 17],
        "PixelPaddingValue": [0, 1500, 63536],
        "SliceLocation": [0, 7],
        "AcquisitionNumber": [1],
        "PixelAspectRatio": [[1, 1], [2, 1]],
        "NumberOfFrames": [1, 2],
        "ImagerPixelSpacing": [[1, 1]],
        "PatientOrientation": [["L", "P"], ["R", "H"]],
        "SmallestImagePixelValue": [0],
    },
    _write_ct,
    _ct_truth,
)

# --- films -------------------------------------------------------------------------------------------------------

_FILM_SET = (
    *(
        "RescaleSlope",
        "RescaleIntercept",
        "WindowCenter",
        "WindowWidth",
        "VOILUTFunction",
        "PresentationLUTShape",
    ),
    *("PatientOrientation", "PhotometricInterpretation", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio", "PixelIntensityRelationshipSign", "Rows"),
    *("PixelPaddingValue", "SliceThickness", "InstanceNumber", "ImageOrientationPatient", "ViewPosition"),
    *("SamplesPerPixel", "RescaleType", "LossyImageCompression", "WindowCenterWidthExplanation"),
)


def _shown(bits: int, signed: bool) -> NDArray[Any]:
    """Grey values without symmetry, over nearly all of what the bits hold, brighter to one side."""
    rows, columns = np.indices((48, 40))
    part = (0.02 + 0.9 * (rows / 47) * 0.4 + 0.5 * (columns / 39)) + 0.05 * ((rows * 7 + columns * 3) % 5) / 5
    part[5:12, 4:9] = 0.97
    values = np.rint(np.clip(part, 0, 1) * ((1 << bits) - 1)).astype(np.int64)
    return values - (1 << (bits - 1)) if signed else values


def _lut(values: NDArray[Any], first: int, bits: int, order: str, packed: bool) -> list[Any]:
    item = Dataset()
    item.add_new(0x00283002, "US" if first >= 0 else "SS", [len(values), first, bits])
    # 8 bits may be stored in 8, or in 16 as PS3.3 C.11.1.1.1 tells
    layout = "u1" if packed and bits == 8 else f"{order}u2"
    data = values.astype(layout).tobytes()
    item.add_new(0x00283006, "OW", data + bytes(len(data) % 2))
    item.entries = values
    return [item]


def _table(kind: str, bits: int, signed: bool, fields: Fields) -> list[Any]:
    """A look-up table: rising, falling, or bent."""
    size = min(1 << bits, 65535)
    ramp = np.linspace(0, 1, size)
    curve = {"rising": ramp, "falling": 1 - ramp, "bent": ramp**2}[kind]
    out, first = fields["LUT bits"], -(1 << (bits - 1)) if signed else 0
    order = ">" if fields["syntax"] == "big" else "<"
    return _lut(np.rint(curve * ((1 << out) - 1)), first, out, order, fields["packed"])


def _film(fields: Fields) -> Any:
    bits, signed = fields["bits"], fields["signed"]
    values = _shown(bits, signed)
    dataset = film(values.astype(np.uint8 if bits <= 8 else np.int32))
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    dtype = f"<{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    dataset.PixelData = values.astype(dtype).tobytes()
    _change(dataset, fields, _FILM_SET)
    if fields["modality LUT"]:
        dataset.ModalityLUTSequence = _table(*fields["modality LUT"], bits, signed, fields)
        dataset.ModalityLUTSequence[0].ModalityLUTType = "US"
    if fields["VOI LUT"]:
        dataset.VOILUTSequence = _table(*fields["VOI LUT"], bits, signed, fields)
    return dataset


def _write_film(folder: Path, fields: Fields) -> None:
    dataset = _film(fields)
    _encode(dataset, fields["syntax"])
    save(dataset, folder / "film.dcm")


def _film_truth(folder: Path, fields: Fields) -> Truth:
    dataset = _film(fields)
    decoded = _decoded(folder / "film.dcm")
    if decoded is None:
        return NONSENSE
    stored = decoded[0].astype(np.float64)
    bits = int(dataset.BitsStored)
    if (
        dataset.HighBit != bits - 1
        or bits > dataset.BitsAllocated
        or (fields["RescaleSlope"] == 0 and not fields["modality LUT"])
    ):
        return NONSENSE
    signed = bool(dataset.PixelRepresentation)
    low = -(1 << (bits - 1)) if signed else 0
    high = low + (1 << bits) - 1
    if stored.min() < low or stored.max() > high or _film_is_odd(fields):
        return NONSENSE
    shown = _presented(dataset, fields, stored, low, high)
    if shown is None:
        return NONSENSE
    photometric = str(dataset.PhotometricInterpretation).strip().upper()
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return NONSENSE
    if photometric == "MONOCHROME1":
        shown = 1 - shown
    turned = _usual(shown, fields["PatientOrientation"])
    return Truth(shown[None], turned=None if turned is None else turned[None])


def _film_is_odd(fields: Fields) -> bool:
    raw = np.frombuffer(_film(fields).PixelData, "u1")
    if fields["BitsStored"] != AS_IS or fields["PixelRepresentation"] != AS_IS or fields["HighBit"] != AS_IS:
        # The values were made for other bits than these.
        return not raw.size
    return fields["SamplesPerPixel"] == 3


def _presented(
    dataset: Any, fields: Fields, stored: NDArray[Any], low: float, high: float
) -> NDArray[np.float64] | None:
    """From 0 to 1 through modality and VOI transformation, before the photometric interpretation counts."""
    tables = fields["modality LUT"], fields["VOI LUT"]
    slope = float(dataset.get("RescaleSlope") or 1)
    intercept = float(dataset.get("RescaleIntercept") or 0)
    values, bounds = stored, (low, high)
    if tables[0]:
        values = _through(dataset.ModalityLUTSequence[0], stored)
        bounds = (0.0, float((1 << fields["LUT bits"]) - 1))
    else:
        values = stored * slope + intercept
        bounds = tuple(sorted((low * slope + intercept, high * slope + intercept)))  # type: ignore[assignment]
    if tables[1]:
        return _through(dataset.VOILUTSequence[0], np.rint(values)) / ((1 << fields["LUT bits"]) - 1)
    centre, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centre is None or width is None or centre == "" or width == "":
        return (values - bounds[0]) / (bounds[1] - bounds[0])
    # of several windows the first
    centre, width = (float(str(one).strip("[]").split(",")[0]) for one in (centre, width))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip()
    if function == "SIGMOID" and width > 0:
        return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function == "LINEAR_EXACT" and width > 0:
        return np.asarray(np.clip((values - centre) / width + 0.5, 0, 1))
    if function == "LINEAR" and width >= 1:
        if width == 1:
            return np.asarray((values > centre - 0.5).astype(float))
        return np.asarray(np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1))
    return None


def _through(item: Any, values: NDArray[Any]) -> NDArray[np.float64]:
    table = np.asarray(item.entries, dtype=np.float64)
    return np.asarray(table[np.clip(values - int(item.LUTDescriptor[1]), 0, len(table) - 1).astype(int)])


_OPPOSITE = {"L": "R", "R": "L", "H": "F", "F": "H", "A": "P", "P": "A"}


def _usual(shown: NDArray[Any], orientation: Any) -> NDArray[Any] | None:
    """The film as it is usually hung: the patient's right on the left, the head up; of the side, as it lies."""
    if orientation == AS_IS or orientation is None or len(orientation) != 2:
        return None
    across, down = (str(one)[:1].upper() for one in orientation)
    if {across, down} - set(_OPPOSITE) or across in (down, _OPPOSITE[down]):
        return None
    if not {across, down} & set("HF") or not {across, down} & set("LR"):
        return None
    if across in "HF":
        shown, across, down = shown.T, down, across
    shown = shown[:, ::-1] if across == "R" else shown
    return shown[::-1] if down == "H" else shown


FILM = Format(
    "DICOM film",
    {
        **dict.fromkeys(_FILM_SET, AS_IS),
        **{
            "bits": 12,
            "signed": False,
            "modality LUT": (),
            "VOI LUT": (),
            "LUT bits": 12,
            "packed": True,
            "syntax": "explicit",
        },
    },
    {
        "bits": [8, 10, 12, 14, 15, 16],
        "signed": [True],
        "modality LUT": [("rising",), ("falling",), ("bent",)],
        "VOI LUT": [("rising",), ("falling",), ("bent",)],
        "LUT bits": [8, 10, 12, 16],
        "packed": [False],
        "syntax": list(_SYNTAXES),
        "RescaleSlope": [1, -1, 0.5, 2, -2, 0, "", 0.001],
        "RescaleIntercept": [0, 4095, -1024, 65535, ""],
        "RescaleType": ["US", "HU", ""],
        "WindowCenter": [2048, 128, 1000, 40, [2048, 1000], "", 32768, -500, 0],
        "WindowWidth": [4096, 256, 3000, 400, [4096, 3000], "", 65536, 1, 0, -100],
        "VOILUTFunction": ["LINEAR", "LINEAR_EXACT", "SIGMOID", "", "OTHER"],
        "PresentationLUTShape": ["IDENTITY", "INVERSE", ""],
        "PatientOrientation": [
            *(["L", "F"], ["R", "F"], ["L", "H"], ["R", "H"], ["F", "L"], ["F", "R"], ["H", "L"], ["H", "R"]),
            *(
                ["A", "F"],
                ["P", "F"],
                ["P", "H"],
                ["LA", "FP"],
                ["RH", "FR"],
                ["l", "f"],
                ["L"],
                ["", ""],
                ["X", "F"],
            ),
            *(["L", "L"], ["L", "R"], ["H", "F"], ["L", "P"], ["F", "A"], ["LEFT", "FOOT"]),
        ],
        "PhotometricInterpretation": [
            "MONOCHROME1",
            "MONOCHROME1 ",
            "monochrome1",
            "MONOCHROME2",
            "RGB",
            "",
            "GREY",
        ],
        "BitsStored": [8, 10, 12, 16, 13],
        "HighBit": [7, 11, 15],
        "PixelRepresentation": [0, 1],
        "PixelSpacing": [[1, 1], [1, 2], [0, 0]],
        "ImagerPixelSpacing": [[1, 1], [0.1, 0.2]],
        "PixelAspectRatio": [[1, 1], [1, 2]],
        "PixelIntensityRelationshipSign": [1, -1],
        "Rows": [40, 24],
        "PixelPaddingValue": [0, 4095, 65535],
        "SliceThickness": [0, 5],
        "InstanceNumber": [None, 3],
        "ImageOrientationPatient": [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]],
        "ViewPosition": ["PA", "AP", "LL"],
        "SamplesPerPixel": [3],
        "LossyImageCompression": ["01"],
        "WindowCenterWidthExplanation": ["A"],
    },
    _write_film,
    _film_truth,
)
