"""Films and pictures of DICOM as they are meant to be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.cases.dicom.headers import numbers, quiet, text
from bundle.cases.errors import CaseError

try:  # pydicom 3
    from pydicom.pixels import apply_color_lut, apply_voi_lut
except ImportError:  # pydicom 2
    from pydicom.pixel_data_handlers.util import apply_color_lut, apply_voi_lut

# Of a film's pixels that a window may show as black or white, and how near to them counts.
_MOST_CLIPPED, _MOST_CLIPPED_OF_BITS = 0.6, 0.1
_CLIPPED = 1e-5


def as_film(
    path: Path, dataset: Any, values: NDArray[Any], warnings: list[str]
) -> tuple[NDArray[np.float32], float]:
    """A grey picture as it is meant to be seen: modality LUT, VOI (PS3.3 C.11.2), and low values black.

    All that can turn the grey scale round is settled here: a falling rescale or modality LUT, a falling VOI LUT, and
    MONOCHROME1, each with and without a window.

    Args:
        values: (rows, columns) as stored.
        warnings: what a reader of the report should know is added here.

    Returns:
        (rows, columns) from 0, black, to the second value, white.

    Raises:
        CaseError: the rescale makes no sense.
    """
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    white = float((1 << bits) - 1)
    film = _windowed(dataset, values, white, warnings)
    if film is None:
        film = _unwindowed(path, dataset, values, white)
    inverse = text(dataset, "PhotometricInterpretation").upper() == "MONOCHROME1"
    shape = text(dataset, "PresentationLUTShape").upper()
    if shape and (shape == "INVERSE") != inverse:
        warnings.append(
            f"PresentationLUTShape {shape} contradicts the photometric interpretation, which was believed."
        )
    return (np.float32(white) - film if inverse else film), white


def _unwindowed(path: Path, dataset: Any, values: NDArray[Any], white: float) -> NDArray[np.float32]:
    """Values through the modality LUT alone, from 0 to `white`; a rising rescale changes nothing then."""
    if dataset.get("ModalityLUTSequence"):
        try:
            with quiet():
                shown = _rescaled(dataset, values)
                most = float((1 << int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])) - 1)
                return np.clip(shown.astype(np.float32) * np.float32(white / most), 0, white)
        except Exception as error:  # of every kind, for tables that make no sense
            raise CaseError(path, "has a modality LUT that makes no sense", "export it again") from error
    lowest = -(white + 1) / 2 if int(dataset.get("PixelRepresentation") or 0) else 0.0
    film = values.astype(np.float32) - np.float32(lowest)
    slope = numbers(dataset, "RescaleSlope", 1) or [1.0]
    if slope[0] == 0 or not np.isfinite(slope[0]):
        raise CaseError(path, "has a RescaleSlope that makes no sense", "export it again")
    return np.float32(white) - film if slope[0] < 0 else film


def _rescaled(dataset: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Values through the modality LUT, or the rescale, of which pydicom wants both numbers."""
    if not dataset.get("ModalityLUTSequence"):
        slope, intercept = (
            (numbers(dataset, f"Rescale{name}", 1) or [otherwise])[0]
            for name, otherwise in (("Slope", 1.0), ("Intercept", 0.0))
        )
        return np.asarray(values.astype(np.float64) * slope + intercept)
    return _looked_up(dataset, dataset.ModalityLUTSequence[0], values)


def _looked_up(dataset: Any, item: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers through a look-up table, PS3.3 C.11.1.1.1, of whatever depth (pydicom takes 8 and 16 bits only)."""
    count, first, _ = (int(value) for value in item.LUTDescriptor)
    count = count % (1 << 16) or 1 << 16
    if isinstance(item.LUTData, bytes):
        # Entries of 8 bits are stored in 8, and by some in 16: their number tells.
        is_packed = len(item.LUTData) < 2 * count
        order = ">" if str(dataset.file_meta.TransferSyntaxUID) == "1.2.840.10008.1.2.2" else "<"
        table = np.frombuffer(item.LUTData, "u1" if is_packed else f"{order}u2")[:count]
    else:
        table = np.asarray(item.LUTData)[:count]
    if len(table) < count:
        raise ValueError("the table is shorter than it says")
    if int(dataset.get("PixelRepresentation") or 0) and first >= 1 << 15:
        first -= 1 << 16
    return np.asarray(table[np.clip(values.astype(np.int64) - first, 0, count - 1)])


def _windowed(
    dataset: Any, values: NDArray[Any], white: float, warnings: list[str]
) -> NDArray[np.float32] | None:
    """Values through the VOI LUT or window that the file brings, from 0 to `white`; None where it has none."""
    tables = dataset.get("VOILUTSequence")
    stated = [numbers_or_first(dataset, f"Window{what}") is not None for what in ("Center", "Width")]
    if not tables and not any(stated):
        return None
    try:
        if not tables and not all(stated):
            raise ValueError("half a window")
        with quiet(), np.errstate(over="ignore"):
            modality = _rescaled(dataset, values)
            if tables:
                low, high = 0.0, float((1 << int(tables[0].LUTDescriptor[2])) - 1)
                shown = _looked_up(dataset, tables[0], np.rint(modality)).astype(np.float32)
            else:
                # What the window makes of the darkest and brightest value there could be.
                low, high = map(float, apply_voi_lut(np.array([-1e9, 1e9]), dataset))
                shown = np.asarray(apply_voi_lut(modality, dataset), dtype=np.float32)
    except Exception:  # pydicom raises several kinds for windows and tables that make no sense
        warnings.append("The window or VOI LUT of the file makes no sense; it was not applied.")
        return None
    # pydicom turns what it shows round with a falling rescale: `high` is the lower value then.
    if high == low or (shown.min() == shown.max() and values.min() != values.max()):
        warnings.append("The window of the file shows nothing of the image; it was not applied.")
        return None
    if _is_of_another_depth(dataset, values, shown):
        warnings.append(
            "The window of the file shows most of the image as black or white, as one of another bit depth does; "
            "it was not applied."
        )
        return None
    return np.clip((shown - np.float32(low)) * np.float32(white / (high - low)), 0, white)


def _is_of_another_depth(dataset: Any, values: NDArray[Any], shown: NDArray[np.float32]) -> bool:
    """Whether a window clips so much of what is neither the darkest nor the brightest value that it cannot be meant.

    A window over the whole of fewer bits than the image has (128 and 256, say) may clip less.
    """
    inside = shown[(values > values.min()) & (values < values.max())]
    if not inside.size:
        return False
    near = _CLIPPED * float(shown.max() - shown.min())
    clipped = float(((inside <= shown.min() + near) | (inside >= shown.max() - near)).mean())
    width, centre = (numbers_or_first(dataset, f"Window{what}") or 0.0 for what in ("Width", "Center"))
    of_bits = any(
        abs(width - (1 << bits)) <= 1 and abs(centre - (1 << bits) / 2) <= 1 for bits in range(8, 16)
    )
    return clipped > (_MOST_CLIPPED_OF_BITS if of_bits else _MOST_CLIPPED)


def numbers_or_first(dataset: Any, keyword: str) -> float | None:
    """The first of the numbers of an attribute; None where it has none."""
    try:
        return float(text(dataset, keyword).split("\\")[0])
    except ValueError:
        return None


def as_colour(path: Path, dataset: Any, values: NDArray[Any]) -> NDArray[Any]:
    """(rows, columns, 3) RGB of a picture in colour or with a palette.

    Raises:
        CaseError: the palette makes no sense.
    """
    if text(dataset, "PhotometricInterpretation").upper() != "PALETTE COLOR":
        return values
    try:
        return np.asarray(apply_color_lut(values, dataset))[..., :3]
    except Exception as error:
        raise CaseError(path, "has a palette that makes no sense", "export it as RGB") from error
