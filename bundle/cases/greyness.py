"""Whether a picture in colour shows a grey one: a film with a tint, a coloured marker or the noise of compression.

Of a film the colour follows from the brightness, whatever its tint; of H&E it does not, or green is what it lacks
most. Measured: of 201 H&E images none was taken for a film, and of 60 films spoiled in twelve ways (720) 15 were not
known again, most of them with a magenta marker or of hardly any contrast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_SIDE = 256  # pixels of the longer side that is looked at
_STEP = 8.0  # levels of brightness, of 0 to 255, that share a tint
_OFF_TINT = 16.0
_MOST_OFF = 0.06  # a side marker's share of the picture
_LEAST_CONTRAST, _MOST_DARK = 60.0, 120.0
_MOST_MAGENTA = 0.01


def is_grey_in_colour(rgb: NDArray[Any], white: float) -> bool:
    """Whether (H, W, 3) values from 0 to `white` are those of a grey picture."""
    small = Image.fromarray((np.clip(rgb / white, 0, 1) * 255).astype(np.uint8))
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    colours = ndimage.uniform_filter(np.asarray(small, dtype=np.float32), (3, 3, 1))
    brightness = colours @ LUMINANCE
    chroma = colours - brightness[..., None]
    level = (brightness / _STEP).astype(int)
    off = np.zeros(brightness.shape, dtype=bool)
    for one in np.unique(level):
        here = level == one
        off[here] = np.abs(chroma[here] - np.median(chroma[here], axis=0)).max(axis=1) > _OFF_TINT
    if off.mean() > _MOST_OFF:
        return False
    kept, brightness = colours[~off], brightness[~off]
    dark, bright = np.percentile(brightness, [2, 98])
    # Glass with little tissue on it has one tint too, but hardly any contrast and nothing dark.
    if bright - dark < _LEAST_CONTRAST or dark > _MOST_DARK:
        return False
    magenta = np.minimum(kept[:, 0], kept[:, 2]) - kept[:, 1]
    return bool((magenta > 0.09 * brightness + 4.0).mean() <= _MOST_MAGENTA)
