"""Pictures (PNG, JPEG, TIFF, WebP, BMP): upright arrays of grey or RGB values, and masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from bundle.cases.errors import COPY_AGAIN, CORRUPT, CaseError, broken_file
from bundle.cases.greyness import is_grey_in_colour
from bundle.cases.image import SourceImage
from bundle.cases.modality import Modality

MIN_EDGE = 16
MAX_PIXELS = 13_000 * 13_000

# The formats that are documented, and no others: some that Pillow knows start external programs.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _MOST_SAMPLE = 258, 262, 281
_WIDTH, _HEIGHT, _COMPRESSION, _FILL_ORDER = 256, 257, 259, 266
_STRIPS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES, _PLANAR = 273, 277, 278, 279, 284
_SAVE_AGAIN = "save it again as PNG or TIFF"
# Of cameras, which fill 16 bits from below.
_CAMERA_BITS = (8, 10, 12, 14, 16)
_WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def read_picture(path: Path) -> SourceImage:
    """Read a picture of 8, 16 or 32 bits a channel.

    One in grey is taken for an X-ray, also where a tint, a marker or compression gives it colour, which stays in the
    array; one in colour is taken for H&E.

    Raises:
        CaseError: the file is broken, holds several pages or planes, is too small or too large, or holds values
            that are not finite.
    """
    with _opened(path) as image:
        warnings = _orientation_warning(image)
        array = _samples(path, image, warnings)
        stated = image.tag_v2.get(_MOST_SAMPLE) if image.format == "TIFF" else None  # type: ignore[attr-defined]
    return picture_of(path, array, warnings, stated)


def picture_of(path: Path, array: NDArray[Any], warnings: list[str], stated: Any = None) -> SourceImage:
    """An array (H, W) or (H, W, 3), upright, as that of a file; it is copied.

    Args:
        path: that messages name.
        stated: what the file gives as the value of white, see `_full_scale`; None where it gives none.

    Raises:
        CaseError: see `read_picture`.
    """
    if array.ndim == 3 and (array == array[..., :1]).all():
        array = array[..., 0]
    channels = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    values = np.array(channels, dtype=np.float32, order="C")
    if not np.isfinite(values).all():
        wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
        raise CaseError(path, f"holds {wrong} values that are not finite (NaN or infinite)", "replace them")
    white = _full_scale(array, stated, warnings)
    is_grey = len(values) == 1 or is_grey_in_colour(array, white)
    modality: Modality = "X-ray" if is_grey else "H&E"
    return SourceImage(values, None, modality, warnings, full_scale=white)


def _full_scale(array: NDArray[Any], stated: Any, warnings: list[str]) -> float:
    """The value of white.

    Args:
        stated: MaxSampleValue of a TIFF: one value, or one a channel.
    """
    if array.dtype == np.uint8:
        return 255.0
    highest = float(array.max())
    if array.dtype != np.uint16:
        return next((white for white in (1.0, 255.0, 65535.0) if highest <= white), highest)
    most = np.max(stated) if stated is not None else 0
    bits = next(bits for bits in _CAMERA_BITS if max(highest, most) < 1 << bits)
    if array.ndim == 3 and bits < 16:
        told = "as its header says" if most else "as its values suggest"
        warnings.append(
            f"Of the 16 bits a channel {bits} are filled, {told}: {(1 << bits) - 1} was taken for white."
        )
    return float((1 << bits) - 1)


def read_mask(path: Path) -> NDArray[np.float64]:
    """Read a picture whose grey values or palette indices are labels.

    Returns:
        (H, W), upright; 1-bit pictures give 0 and 1.

    Raises:
        CaseError: see `read_picture`; also for colour without a palette and for lossy grey values.
    """
    with _opened(path) as image:
        if image.mode == "1":
            return np.asarray(_load(image), dtype=np.float64)
        if image.mode == "P" and not _is_black_and_white(image):
            return np.asarray(_load(image), dtype=np.float64)
        lossy = image.format in ("JPEG", "MPO")
        array = _samples(path, image, [])
    if array.ndim == 3:
        if not (array == array[..., :1]).all():
            raise CaseError(path, "is a mask in colour", "save labels as grey values or palette indices")
        array = array[..., 0]
    if lossy and not np.isin(array, (0, 255)).all():
        raise CaseError(path, "is a mask that lossy compression has blurred", "save it as PNG")
    return np.asarray(array, dtype=np.float64)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with broken_file(path), _identified(path) as image:
        yield image


@contextmanager
def _identified(path: Path) -> Iterator[Image.Image]:
    """An image that Pillow has identified and whose size is within bounds; errors become `CaseError`."""
    try:
        # From a stream, not by name: Pillow maps uncompressed TIFF files into memory by name, and then takes
        # the rows of one that is turned by 90 degrees for its columns.
        with open(path, "rb") as stream, Image.open(stream, formats=_FORMATS) as image:
            check_size(path, image.width, image.height)
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                problem = f"holds {image.n_frames} pages"  # type: ignore[attr-defined]
                remedy = "save one page a file, or a slide as a tiled pyramid for the command segment"
                raise CaseError(path, problem, remedy)
            if image.format == "TIFF":
                _check_tiff(path, image)
            yield image
    except UnidentifiedImageError as error:
        held = _held_by_tiff(path)
        problem = f"holds {held}, which are not read" if held else "is not a picture that can be read"
        remedy = "save it with 8 or 16 bits a channel" if held else "save it as PNG or TIFF"
        raise CaseError(path, problem, remedy) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path) from error


def _held_by_tiff(path: Path) -> str:
    """What a TIFF holds that Pillow does not know, such as colours of 32 bits; empty for other files."""
    import tifffile

    kinds = {"f": "floating-point", "c": "complex", "i": "signed", "u": "unsigned"}
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            kind, channels = kinds[page.dtype.kind], int(page.samplesperpixel)
            bits = 8 * page.dtype.itemsize
            return f"{kind} values of {bits} bits in {channels} channel{'s' if channels > 1 else ''}"
    except Exception:  # tifffile raises every kind for what is no TIFF
        return ""


def _check_tiff(path: Path, image: Any) -> None:
    """What Pillow reads without a word, and not as it is meant."""
    held = _planes(path)
    if held > 1:
        raise CaseError(path, f"holds {held} planes", "save one plane a file")
    tags = image.tag_v2
    if _PHOTOMETRIC not in tags:
        problem = "does not say whether 0 is black or white (PhotometricInterpretation)"
        raise CaseError(path, problem, _SAVE_AGAIN)
    samples, is_apart = int(tags.get(_SAMPLES, 1)), tags.get(_PLANAR, 1) == 2
    width, height = (
        int(tags[_WIDTH]),
        int(tags[_HEIGHT]),
    )  # as stored; the image's may be those of one turned upright
    bits = int(np.max(tags.get(_BITS, 1)))
    is_usual = tags[_PHOTOMETRIC] != 0 and tags.get(_FILL_ORDER, 1) == 1 and bits >= 8
    if is_apart and samples == 1 and not is_usual:
        # Of these Pillow knows neither the inverse grey scale nor the order and the number of the bits.
        raise CaseError(path, "states separate planes of one channel (PlanarConfiguration)", _SAVE_AGAIN)
    planes = samples if is_apart else 1
    rows = max(1, min(int(tags.get(_ROWS_PER_STRIP, height)), height))
    if _STRIPS in tags and np.size(tags[_STRIPS]) < math.ceil(height / rows) * planes:
        raise CaseError(path, CORRUPT, COPY_AGAIN)
    if tags.get(_COMPRESSION, 1) == 1 and _STRIP_SIZES in tags:
        size = planes * height * math.ceil(width * bits * samples / planes / 8)
        if int(np.sum(tags[_STRIP_SIZES])) < size:
            raise CaseError(path, CORRUPT, COPY_AGAIN)


def _planes(path: Path) -> int:
    """How many images a TIFF of one directory holds: ImageJ, MetaMorph and others write stacks so."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            first = tiff.series[0]
            planes = [
                length for axis, length in zip(first.axes, first.shape, strict=True) if axis not in "YXS"
            ]
            stated = (tiff.imagej_metadata or {}).get("images", 1)
    except Exception:  # tifffile raises every kind; what can be read is for the reader of pictures to say
        return 1
    return max(int(np.prod(planes)), int(stated))


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse pictures that are too large to be read as a whole, or too small to show anything.

    Raises:
        CaseError: with the remedy.
    """
    if width * height > MAX_PIXELS:
        raise _too_large(path)
    if min(width, height) < MIN_EDGE:
        raise CaseError(
            path, f"is too small ({width} x {height} pixels)", f"use at least {MIN_EDGE} x {MIN_EDGE} pixels"
        )


def _too_large(path: Path) -> CaseError:
    return CaseError(path, f"has more than {MAX_PIXELS:,} pixels", "crop it into tiles")


def _orientation_warning(image: Image.Image) -> list[str]:
    # Asked for before the pixels are loaded: Pillow turns some TIFF files on its own then.
    if image.getexif().get(_ORIENTATION, 1) in _UPRIGHT:
        return ["The picture was turned upright as its orientation tag says; results are upright too."]
    return []


def _load(image: Image.Image) -> Image.Image:
    image.load()
    return ImageOps.exif_transpose(image)


def _samples(path: Path, image: Image.Image, warnings: list[str]) -> NDArray[Any]:
    """(H, W) or (H, W, 3), upright, in the value range of the file."""
    if _is_wide_colour(path, image):
        return _wide_colour(path, image, warnings)
    if image.mode in _WIDE_MODES:
        inverted = _is_white_zero(image)
        grey = np.asarray(_load(image))
        if not inverted:
            return grey
        return (
            np.iinfo(np.uint16).max - grey if image.mode.startswith("I;") else grey.max() + grey.min() - grey
        )
    if image.mode == "CMYK":
        warnings.append("CMYK was converted to RGB without a colour profile.")
    grey_only = image.mode in ("1", "L") and not image.has_transparency_data
    if grey_only:
        return np.asarray(_load(image).convert("L"))
    if image.has_transparency_data:
        return _on_white(np.asarray(_load(image).convert("RGBA")), 255, warnings)
    return np.asarray(_load(image).convert("RGB"))


def _on_white(rgba: NDArray[Any], top: int, warnings: list[str]) -> NDArray[Any]:
    """(H, W, 4) -> (H, W, 3) on a white ground; `top` is white, and full opacity."""
    if (rgba[..., 3] == top).all():
        return rgba[..., :3]
    warnings.append("Transparent parts were laid on white.")
    opacity = rgba[..., 3:].astype(np.float64) / top
    return np.rint(rgba[..., :3] * opacity + top * (1 - opacity)).astype(rgba.dtype)


def _is_black_and_white(image: Image.Image) -> bool:
    """Whether a palette picture shows black and white only: then the colours count, not their order."""
    rgb = np.asarray(image.convert("RGB"))
    return bool(((rgb == 0) | (rgb == 255)).all() and (rgb == rgb[..., :1]).all())


# --- more than 8 bits a channel, where Pillow falls short ------------------------------------------------


def _is_white_zero(image: Image.Image) -> bool:
    """Whether 0 means white in a TIFF of more than 8 bits: Pillow inverts those of 1 to 8 bits only."""
    if image.format != "TIFF":
        return False
    return bool(image.tag_v2.get(_PHOTOMETRIC) == 0)  # type: ignore[attr-defined]


def _is_wide_colour(path: Path, image: Image.Image) -> bool:
    """Whether Pillow would cut 16-bit channels to 8 bits."""
    if image.mode in _WIDE_MODES:
        return False
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS, (1,))  # type: ignore[attr-defined]
        return any(depth > 8 for depth in (bits if isinstance(bits, tuple) else (bits,)))
    if image.format == "PNG":
        with open(path, "rb") as stream:
            return stream.read(25)[24:] == b"\x10"
    return False


def _wide_colour(path: Path, image: Image.Image, warnings: list[str]) -> NDArray[Any]:
    """(H, W, 3) of a picture of 16 bits a channel, upright."""
    array = _wide_colour_tiff(path) if image.format == "TIFF" else None
    array = _wide_colour_itk(path) if array is None else array
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    array = array if turn is None else turn(array)
    return _on_white(array[..., :4], np.iinfo(np.uint16).max, warnings) if array.shape[-1] > 3 else array


def _wide_colour_tiff(path: Path) -> NDArray[Any] | None:
    """(H, W, C) of a 16-bit RGB TIFF as stored; None where its kind or compression is beyond tifffile alone."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            if page.photometric != tifffile.PHOTOMETRIC.RGB or page.dtype != np.uint16:
                return None
            array = page.asarray()
            return np.asarray(array.transpose(1, 2, 0) if page.axes == "SYX" else array)
    except (ValueError, ImportError):
        # tifffile raises ValueError for a compression that needs a codec which is not installed.
        return None


def _wide_colour_itk(path: Path) -> NDArray[Any]:
    """(H, W, C) of a PNG, or a TIFF of another compression, as stored."""
    import itk  # takes seconds to load

    reader = itk.ImageFileReader[itk.VectorImage[itk.F, 2]].New(FileName=str(path))
    reader.Update()
    array = itk.array_from_image(reader.GetOutput())
    return np.asarray(array).astype(np.uint16)
