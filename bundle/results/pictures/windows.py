"""Values of an image as grey levels for the eye."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.results.prediction import Prediction


class Window(NamedTuple):
    """The range of values that is shown from black to white, and how it is called ('' for no name)."""

    low: float
    high: float
    note: str


_SOFT_TISSUE = Window(-135.0, 215.0, "window 350 / level 40 HU")
_LUNG = Window(-1350.0, 150.0, "window 1500 / level -600 HU")
_LUNG_WORDS = ("lung", "covid", "infection", "pneumo")


def display_window(prediction: Prediction) -> Window:
    """For a CT the usual one of what was asked for; for other grey images percentiles; for colour its range."""
    array = prediction.case.array
    if prediction.case.is_volume and prediction.case.modality == "CT":
        names = [name.lower() for name in prediction.labels.values()]
        chest = bool(names) and all(any(word in name for word in _LUNG_WORDS) for name in names)
        return _LUNG if chest else _SOFT_TISSUE
    if array.shape[0] == 1:
        return _percentile_window(array[0])
    return Window(0.0, 255.0 if array.max() <= 255 else 65535.0, "")


def to_grey(values: NDArray[np.float32], window: Window) -> NDArray[np.uint8]:
    """Values of any shape as 0-255; those that are no numbers are black."""
    scaled = (values - window.low) / max(window.high - window.low, 1e-6)
    grey: NDArray[np.uint8] = (np.nan_to_num(np.clip(scaled, 0, 1)) * 255).astype(np.uint8)
    return grey


def block_mean(array: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """(C, H, W) -> (C, ceil(H / step), ceil(W / step)): the mean of each block."""
    if step == 1:
        return array
    return np.stack([np.asarray(Image.fromarray(channel).reduce(step)) for channel in array])


def _percentile_window(values: NDArray[np.float32]) -> Window:
    step = max(1, int((values.size / 1_000_000) ** (1 / values.ndim)))
    sample = values[(slice(None, None, step),) * values.ndim]
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, (0.5, 99.5)) if sample.size else (0.0, 1.0)
    return Window(float(low), float(high), "")
