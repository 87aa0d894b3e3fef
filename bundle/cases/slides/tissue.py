"""A slide made small, and where on it there is tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from bundle.cases.slides.slide import Slide, SlideGrid

OVERVIEW_MPP = 8.0
#: Pixels of the longer side of an overview that is looked at, where a slide is small.
SHOWN_SIDE = 1024
_LONGEST_SIDE = 3000  # of the overview in pixels
_BLOCK = 128  # rows of the overview read at a time
# Saturation, of 0 to 1: glass lies below the first, stained tissue above the second; Otsu decides between them. On
# its own it would split glass alone, or tissue alone, in two.
_LEAST_SATURATION, _MOST_SATURATION = 0.05, 0.15
_LEAST_PIECE_UM2 = 5_000.0


@dataclass(frozen=True)
class Overview:
    """A slide made small.

    Attributes:
        image: (H, W, 3) uint8.
        grid: of its pixels.
    """

    image: NDArray[np.uint8]
    grid: SlideGrid


def overview_of(slide: Slide, finest_mpp: float, least_side: int = 1) -> Overview:
    """The slide at 8 micrometres per pixel, or less fine where it would be more than 3,000 pixels long.

    Read band by band, so that a slide without small levels takes no more memory than others.

    Args:
        finest_mpp: never finer than this.
        least_side: pixels of its longer side, for which it becomes finer than 8 micrometres per pixel.

    Raises:
        CaseError: the slide cannot be read.
    """
    longest = max(slide.width * slide.mpp[0], slide.height * slide.mpp[1])
    mpp = min(OVERVIEW_MPP, longest / least_side)
    grid = slide.grid(max(mpp, longest / _LONGEST_SIDE, finest_mpp))
    image = np.empty((grid.height, grid.width, 3), dtype=np.uint8)
    for top in range(0, grid.height, _BLOCK):
        for left in range(0, grid.width, _BLOCK):
            high, wide = min(_BLOCK, grid.height - top), min(_BLOCK, grid.width - left)
            image[top : top + high, left : left + wide] = slide.read(grid, left, top, wide, high)
    return Overview(image, grid)


def tissue_mask(overview: Overview) -> NDArray[np.bool_]:
    """(H, W): where the overview shows tissue.

    The rule: the saturation of HSV, smoothed by a Gaussian of one pixel, lies above Otsu's threshold, which is held
    between 0.05 and 0.15; holes are filled, and pieces under 5,000 square micrometres dropped.
    """
    image = overview.image.astype(np.float32)
    high = image.max(axis=2)
    saturation = (high - image.min(axis=2)) / np.maximum(high, 1.0)
    saturation[high < 16] = 0.0  # black is what scanners fill up with, not tissue
    saturation = ndimage.gaussian_filter(saturation, 1.0)
    otsu = float(threshold_otsu(saturation)) if saturation.min() < saturation.max() else 0.0
    tissue = saturation > min(max(otsu, _LEAST_SATURATION), _MOST_SATURATION)
    tissue = ndimage.binary_fill_holes(tissue)
    pieces, _ = ndimage.label(tissue)
    large = np.bincount(pieces.ravel()) * (overview.grid.mpp[0] * overview.grid.mpp[1]) >= _LEAST_PIECE_UM2
    large[0] = False
    kept: NDArray[np.bool_] = large[pieces]
    return kept
