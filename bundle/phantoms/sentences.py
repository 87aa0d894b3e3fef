"""Report sentences that follow from a ground truth alone."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bundle.phantoms.shapes import Array

COUNT_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ZONES = ("upper", "middle", "lower")


def infection_sentence(truth: Array, left_span: tuple[float, float], right_span: tuple[float, float]) -> str:
    """The finding in the wording of text-guided chest X-ray data; sides are sides of the image.

    Areas are connected regions. A region names the thirds of its lung's height that hold at least a
    fifth of it; a lung with one region over all three thirds is 'all', several regions together list theirs.

    Args:
        truth: (H, W), above 0 where the lung is infected.
        left_span: first and last row of the lung in the left half of the image.
        right_span: the same of the right half.
    """
    parts, count = ndimage.label(np.asarray(truth) > 0, np.ones((3, 3)))
    if count == 0:
        return "no pulmonary infection."
    middle = truth.shape[1] // 2
    phrases = []
    for side, (top, bottom), half in (
        ("left", left_span, parts[:, :middle]),
        ("right", right_span, parts[:, middle:]),
    ):
        named: set[str] = set()
        whole = False
        for number in np.unique(half[half > 0]):
            rows = np.nonzero(half == number)[0]
            third = np.clip(((rows - top) / max(bottom - top, 1) * 3).astype(int), 0, 2)
            share = np.bincount(third, minlength=3) / len(third)
            zones = {zone for zone, part in zip(ZONES, share, strict=True) if part >= 0.2}
            whole |= len(zones) == 3
            named |= zones
        if named:
            words = "all" if whole else " ".join(zone for zone in ZONES if zone in named)
            phrases.append(f"{words} {side} lung")
    spread = "bilateral" if len(phrases) == 2 else "unilateral"
    number_word = COUNT_WORDS[count] if count < len(COUNT_WORDS) else "many"
    areas = "area" if count == 1 else "areas"
    return f"{spread} pulmonary infection, {number_word} infected {areas}, {' and '.join(phrases)}."


def histology_sentence(truth: Array) -> str:
    """How the nuclei are distributed, in the wording of text-guided H&E data.

    Args:
        truth: (H, W), above 0 in nuclei.
    """
    nuclei = np.asarray(truth) > 0
    share = float(nuclei.mean())
    if share == 0:
        return "No nuclei are visible."
    rows, columns = (np.array_split(np.arange(length), 4) for length in nuclei.shape)
    cells = np.array([[nuclei[np.ix_(row, column)].mean() for column in columns] for row in rows]) / share
    quarters = {
        "upper left": cells[:2, :2].mean(),
        "upper right": cells[:2, 2:].mean(),
        "lower left": cells[2:, :2].mean(),
        "lower right": cells[2:, 2:].mean(),
    }
    halves = {
        "upper": cells[:2].mean(),
        "lower": cells[2:].mean(),
        "left": cells[:, :2].mean(),
        "right": cells[:, 2:].mean(),
    }
    half = max(halves, key=lambda name: halves[name])
    quarter = max(quarters, key=lambda name: quarters[name])
    within = [value for name, value in quarters.items() if half in name]
    if halves[half] > 1.25 and max(within) < 1.3 * min(within):
        return f"The nuclei density in the {half} is high."
    if quarters[quarter] > 1.35:
        return f"The nuclei density in the {quarter} is high."
    if share < 0.12:
        return "The nuclei are sparsely distributed."
    if cells.std() < 0.3:
        return "The nuclei are evenly distributed."
    return "The nuclei are irregularly distributed."
