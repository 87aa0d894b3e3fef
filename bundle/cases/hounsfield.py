"""Whether the intensities of a CT are Hounsfield units: air, fat, soft tissue and bone must lie where they do in HU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What a case's warning says whose intensities are none.
NO_HU = "do not look like Hounsfield units"

_BIN = 8  # HU
_LOWEST, _HIGHEST = -16_384, 49_152  # what stored values of 16 bits reach, however they are shifted
#: Share, lowest and highest HU of what every body holds, bordering values with it.
_TISSUES = (
    (0.30, -1040.0, -940.0),  # air
    (0.10, -940.0, -400.0),  # lung
    (0.20, -150.0, -40.0),  # fat
    (0.35, -20.0, 110.0),  # soft tissue and blood
    (0.04, 110.0, 1600.0),  # contrast agent and bone
)
_ANYTHING = 1e-3  # share of what is none of them
# Shifts by less are no mistake of a rescale; a shift counts where it explains the values so much better.
_LEAST_SHIFT = 600.0
_LEAST_GAIN = 0.35
# Every body has more between fat and muscle; where there is less, a shift by a known intercept counts at once, and
# others do not: part of a volume may show air alone.
_SOFT, _LEAST_SOFT, _LEAST_GAIN_WITHOUT = (-200, 200), 0.01, 0.05
_APART, _SPIKE = 200, 5  # HU, and times
_MOST_VOXELS = 2_000_000
_NEAR = 64  # HU between a shift found and the intercept that made it
#: Intercepts that scanners and converters use: a shift found near one is called by it.
_INTERCEPTS = (1000, 1024, 8192, 32768)


def shift_from_hounsfield(array: NDArray[Any]) -> int | None:
    """By how much all intensities lie above (or, negative, below) the HU that they seem to stand for.

    The histogram is compared with what tissues have in HU, shifted by every amount. Values below -1100 HU are
    compared too, but padding and clipped values are not.

    Args:
        array: of intensities, any shape.

    Returns:
        None where they look most like HU as they are, or like no CT at all.
    """
    values = array.reshape(-1)
    values = values[:: max(1, values.size // _MOST_VOXELS)]
    edges = np.arange(_LOWEST, _HIGHEST + _BIN, _BIN)
    counts, _ = np.histogram(values, edges)
    counts = _without_padding(counts)
    if not counts.sum():
        return None
    share = counts / counts.sum()
    middles = np.arange(-2048, 4096, _BIN) + _BIN / 2
    density = np.full(len(middles), _ANYTHING / (len(edges) * _BIN))
    for part, low, high in _TISSUES:
        density += part / (high - low) * ((middles >= low) & (middles < high))
    floor = float(np.log(density.min()))
    gain = np.correlate(share, np.log(density) - floor, mode="full")
    # gain[k] is that of the template whose first bin lies on bin k - (len - 1)
    shifts = (np.arange(len(gain)) - (len(middles) - 1)) * _BIN + _LOWEST + 2048
    unshifted = gain[np.abs(shifts) < _LEAST_SHIFT].max()
    best = int(gain.argmax())
    soft = share[(edges[:-1] >= _SOFT[0]) & (edges[:-1] < _SOFT[1])].sum()
    found = int(shifts[best])
    nearest = min(_INTERCEPTS, key=lambda one: abs(abs(found) - one))
    known = nearest if abs(abs(found) - nearest) <= _NEAR else None
    least = _LEAST_GAIN_WITHOUT if soft < _LEAST_SOFT and known else _LEAST_GAIN
    if abs(found) < _LEAST_SHIFT or gain[best] - unshifted < least or (soft < _LEAST_SOFT and not known):
        return None
    size = known or abs(found)
    return size if found > 0 else -size


def _without_padding(counts: NDArray[Any]) -> NDArray[Any]:
    """Without what fills up or is clipped: values at either end that are far more, or far apart from all others."""
    counts = counts.copy()
    for _ in range(2):
        filled = np.flatnonzero(counts)
        for end, inner in ((filled[:1], filled[1:2]), (filled[-1:], filled[-2:-1])):
            if len(filled) < 3:
                break
            apart = abs(end[0] - inner[0]) > _APART / _BIN
            if apart or counts[end[0]] > _SPIKE * counts[inner[0]]:
                counts[end[0]] = 0
    return counts
