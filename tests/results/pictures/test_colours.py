"""Structures that are shown together can be told apart, also with a colour vision deficiency."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from bundle.cases.structures import shipped_structures

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


@pytest.mark.parametrize("vision", VISION)
def test_the_shipped_structures_of_a_ct_have_distinct_colours(vision: str) -> None:
    names = list(shipped_structures().of_modality("CT").values())
    colours = np.array([shipped_structures().rgb(name) for name in names])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VISION[vision].T, 0, 1)
    seen = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(seen[None])[0]
    close = {
        (names[one], names[other]): float(deltaE_ciede2000(lab[one], lab[other]))
        for one, other in combinations(range(len(names)), 2)
    }
    assert min(close.values()) > 12, min(close, key=lambda pair: close[pair])
    assert lab[:, 0].min() > (48 if vision == "full" else 30)
