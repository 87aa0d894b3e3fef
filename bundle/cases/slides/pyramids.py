"""The two readers of slides: OpenSlide for scanners' formats and tiled TIFF, tifffile for OME-TIFF and the rest.

MONAI's WSIReader decodes a whole level of a TIFF to cut a region of it, and lays no transparency on white.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.cases.errors import CaseError
from bundle.cases.slides.recognise import main_series, stated_mpp
from bundle.cases.slides.slide import Pyramid

_MOST_TILE = 16_384  # pixels along the side of a tile: tiles are decoded as a whole
# As OME-TIFF names what is no scan; and how near the resolution of another scan lies.
_NO_SCANS = ("macro", "label", "overview", "thumb", "localizer", "barcode")
_SAME_RESOLUTION = 1.5
_MICROMETRES = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3}


def open_pyramid(path: Path) -> Pyramid:
    """Open the file with the reader that knows it.

    Raises:
        CaseError: it is a TIFF without tiles, or not of colour in 8 bits.
        Exception: both libraries raise every kind for files that are broken.
    """
    import openslide

    try:
        vendor = openslide.OpenSlide.detect_format(str(path))
    except openslide.OpenSlideError:
        vendor = None
    if vendor is not None and vendor != "generic-tiff":
        return OpenSlidePyramid(path, vendor)
    return TiffPyramid(path)


class OpenSlidePyramid:
    """Levels by OpenSlide; see `Pyramid`."""

    notes: list[str] = []

    def __init__(self, path: Path, vendor: str) -> None:
        import openslide

        self._slide = openslide.OpenSlide(str(path))
        self.format = vendor
        self.sizes = [(int(wide), int(high)) for wide, high in self._slide.level_dimensions]
        stated = [
            self._slide.properties.get(name)
            for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
        ]
        self.mpp = None if None in stated else (float(stated[0]), float(stated[1]))

    def region(self, level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        scale = self._slide.level_downsamples[level]
        # OpenSlide wants the corner in level 0; half a pixel of that, so that no rounding goes one pixel back
        corner = (int(left * scale + 0.5), int(top * scale + 0.5))
        rgba = np.asarray(self._slide.read_region(corner, level, (width, height)), dtype=np.uint16)
        opacity = rgba[..., 3:]
        if (opacity == 255).all():
            return rgba[..., :3].astype(np.uint8)
        return ((rgba[..., :3] * opacity + 255 * (255 - opacity)) // 255).astype(np.uint8)

    def close(self) -> None:
        self._slide.close()


class TiffPyramid:
    """Levels of a tiled TIFF by tifffile, in SubIFDs or in the pages that follow; see `Pyramid`.

    Of several images the largest is taken. Several scans and several focal planes are refused.
    """

    def __init__(self, path: Path) -> None:
        import tifffile

        self._path = path
        self._tiff = tifffile.TiffFile(path)
        try:
            self.notes: list[str] = []
            self._series = main_series(self._tiff)
            self._pages = self._levels()
            self.sizes = [(int(page.imagewidth), int(page.imagelength)) for page in self._pages]
            self.mpp = self._ome_mpp(self._series) if self._tiff.is_ome else stated_mpp(self._pages[0])
            if self._tiff.is_ome:
                self._check_others()
            self.format = "OME-TIFF" if self._tiff.is_ome else "tiled TIFF"
        except BaseException:
            self._tiff.close()
            raise

    def _levels(self) -> list[Any]:
        first: Any = self._series.pages[0]
        remedy = "save it as tiled pyramid TIFF, with `vips tiffsave --tile --pyramid` say"
        if not first.is_tiled:
            raise CaseError(self._path, "is a slide in strips, not in tiles", remedy)
        if max(first.tilewidth, first.tilelength) > _MOST_TILE:
            raise CaseError(self._path, "is a slide in tiles too large to be read one by one", remedy)
        if first.samplesperpixel not in (3, 4) or first.dtype != np.uint8 or first.planarconfig != 1:
            raise CaseError(self._path, "is not a slide in colour of 8 bits a channel", "export it as RGB")
        planes = [
            n for axis, n in zip(self._series.axes, self._series.shape, strict=True) if axis not in "YXS"
        ]
        if np.prod(planes) > 1:
            what = "focal planes" if "Z" in self._series.axes else "images of one size"
            raise CaseError(self._path, f"is a slide of {int(np.prod(planes))} {what}", "export one of them")
        levels = [level.pages[0] for level in self._series.levels]
        if len(levels) == 1:
            levels += [page for page in self._tiff.pages if page.index > first.index]
        shape = first.imagewidth / first.imagelength
        kept = [first]
        for page in levels[1:]:
            smaller = page.imagewidth < kept[-1].imagewidth and page.imagelength < kept[-1].imagelength
            # what is not of the slide's own shape is its label or a photograph of it
            alike = abs(page.imagewidth / page.imagelength / shape - 1.0) < 2.0 / min(
                page.imagewidth, page.imagelength
            )
            if page.is_tiled and smaller and alike and page.samplesperpixel == first.samplesperpixel:
                kept.append(page)
        return kept

    def _check_others(self) -> None:
        """See that no other image of the file is a scan too, which would be left out."""
        others = [one for one in self._tiff.series if one is not self._series]
        for one in others:
            mpp = None if any(word in one.name.lower() for word in _NO_SCANS) else self._ome_mpp(one)
            if mpp is not None and self.mpp is not None and max(mpp) < _SAME_RESOLUTION * max(self.mpp):
                raise CaseError(self._path, "holds several scans", "save one scan a file")
        if others:
            count = len(others) + 1
            self.notes.append(f"Of the {count} images in the file the largest was taken, which is the scan.")

    def _ome_mpp(self, series: Any) -> tuple[float, float] | None:
        import tifffile

        images = tifffile.xml2dict(self._tiff.ome_metadata or "<OME/>")["OME"].get("Image", {})
        images = images if isinstance(images, list | tuple) else [images]
        page = series.pages[0]
        size = (page.imagewidth, page.imagelength)
        fits = [one for one in images if _size_of(one) == size] or images
        pixels = next((one for one in fits if one.get("Name") == series.name), fits[0]).get("Pixels", {})
        found = []
        for axis in "XY":
            unit = _MICROMETRES.get(str(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
            length = pixels.get(f"PhysicalSize{axis}")
            if length is None or unit is None:
                return stated_mpp(page)
            found.append(float(length) * unit)
        return found[0], found[1]

    def region(self, level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        page = self._pages[level]
        high, wide = page.tilelength, page.tilewidth
        columns = -(-page.imagewidth // wide)
        result = np.full((height, width, 3), 255, dtype=np.uint8)
        stream = self._tiff.filehandle
        for row in range(top // high, -(-(top + height) // high)):
            for column in range(left // wide, -(-(left + width) // wide)):
                index = row * columns + column
                count = page.databytecounts[index]
                if not count:  # a tile that was not scanned
                    continue
                stream.seek(page.dataoffsets[index])
                data = stream.read(count)
                if len(data) < count:
                    raise CaseError(self._path, "is corrupt or truncated", "copy or export it again")
                tile, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
                if tile is None:
                    continue
                tile = tile[0, : shape[1], : shape[2], :3]
                y, x = row * high - top, column * wide - left
                inside = tile[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
                y, x = max(y, 0), max(x, 0)
                result[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        return result

    def close(self) -> None:
        self._tiff.close()


def _size_of(image: Any) -> tuple[Any, Any]:
    """Width and height of an image of OME-XML."""
    pixels = image.get("Pixels", {})
    return pixels.get("SizeX"), pixels.get("SizeY")
