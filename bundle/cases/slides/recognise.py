"""Which files are whole-slide images: told by content where the suffix is that of ordinary pictures too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bundle.cases.files import SLIDE_SUFFIXES, image_suffix
from bundle.cases.modality_settings import LEAST_MPP, MOST_MPP
from bundle.cases.pictures import MAX_PIXELS

_TIFF_SUFFIXES = (".tif", ".tiff")
_PER_UNIT = {2: 25_400.0, 3: 10_000.0}  # micrometres in the inch and the centimetre of ResolutionUnit


def is_slide(path: Path) -> bool:
    """Whether a file is read as a slide.

    Files with a suffix of slide scanners are; TIFF files are where they are tiled and have a pyramid or state a
    resolution of microscopes, or have more pixels than a picture may. A file that cannot be read is none: the reader
    of pictures says what is wrong with it.
    """
    suffix = image_suffix(path).lower()
    if suffix in SLIDE_SUFFIXES:
        return True
    if suffix not in _TIFF_SUFFIXES:
        return False
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            series = main_series(tiff)
            page: Any = series.pages[0]
            if page.imagewidth * page.imagelength > MAX_PIXELS:
                return True
            if not page.is_tiled:
                return False
            return len(series.levels) > 1 or _has_reduced(tiff) or stated_mpp(page) is not None
    except Exception:  # tifffile raises every kind for broken files
        return False


def main_series(tiff: Any) -> Any:
    """The largest image of a `tifffile.TiffFile`, which is the scan: some scanners write the photograph before it."""
    return max(tiff.series, key=lambda one: one.pages[0].imagewidth * one.pages[0].imagelength)


def _has_reduced(tiff: Any) -> bool:
    """Whether a smaller, tiled page follows, as a pyramid without SubIFDs has it."""
    sizes = [(page.imagewidth, page.imagelength) for page in tiff.pages[:16] if page.is_tiled]
    return len(sizes) > 1 and sizes[1][0] < sizes[0][0] and sizes[1][1] < sizes[0][1]


def stated_mpp(page: Any) -> tuple[float, float] | None:
    """Micrometres per pixel, across and down, by the tags XResolution and YResolution.

    Args:
        page: of a `tifffile.TiffFile`.

    Returns:
        None where the tags are missing or say what no microscope does.
    """
    tags = page.tags
    unit = _PER_UNIT.get(int(tags["ResolutionUnit"].value)) if "ResolutionUnit" in tags else None
    if unit is None:
        return None
    found = []
    for name in ("XResolution", "YResolution"):
        numerator, denominator = tags[name].value if name in tags else (0, 0)
        if not numerator or not denominator:
            return None
        found.append(unit * denominator / numerator)
    mpp = (found[0], found[1])
    return mpp if all(LEAST_MPP <= one <= MOST_MPP for one in mpp) else None
