"""Whether a picture is a chest film or a stained section at all, by its statistics alone.

Screenshots and documents have flat areas, photographs other shapes and colours. Bounds were set on the training films
and sections of docs/results.md.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.cases.modality import Photometric

# Mean, and the directions in which films differ most, of chest films of 16 x 16 pixels: made by
# scripts/plausibility.py.
_FILMS = Path(__file__).parent / "chest_films.npy"
_EDGE = 16
# Least correlation with the mean film, and most of the picture that no film explains.
LEAST_LIKENESS, MOST_UNLIKE = 0.05, 0.6
# A body within black, as slices of CT show it: the least black share of the corners, a tenth of the sides long, of what
# is left without black edges, and the correlation with the mean film under which it is not just a slim patient's film.
BLACK, LEAST_CORNERS, LEAST_LIKENESS_WITHIN_BLACK = 0.06, 0.6, 0.5
# Share of blocks of one value, black ones left out (of sections white ones too), as drawn pictures have.
MOST_FLAT = 0.2
# Of what is not white: the least share that has colour, and of that in the hues of haematoxylin and eosin, degrees.
LEAST_COLOURED, LEAST_STAINED, HUES = 0.04, 0.45, (230.0, 355.0)
# Sections of which less is not white show nothing.
LEAST_TISSUE = 0.01


def why_no_film(grey: NDArray[np.float32], photometric: Photometric = "MONOCHROME2") -> str | None:
    """Why an image is hardly a frontal chest film; None where it may be one.

    Args:
        grey: (H, W).
        photometric: MONOCHROME1 where bone is dark.
    """
    grey = -grey if photometric == "MONOCHROME1" else grey
    if grey.min() == grey.max():
        return "The picture is empty: every pixel has the same value."
    flat = flat_share(grey[None], leave_white=False)
    if flat > MOST_FLAT:
        return _drawn(flat, "an X-ray")
    likeness, unlike = film_likeness(grey)
    if likeness < LEAST_LIKENESS or unlike > MOST_UNLIKE:
        return (
            "No lungs were found in the picture: it does not look like a frontal chest film (likeness "
            f"{likeness:.2f}, at least {LEAST_LIKENESS:g}; unexplained {unlike:.2f}, at most {MOST_UNLIKE:g})."
        )
    inner = _without_black_edges(grey)
    if _black_corners(inner) >= LEAST_CORNERS:
        likeness, _ = film_likeness(inner)
        if likeness < LEAST_LIKENESS_WITHIN_BLACK:
            return (
                "The picture shows a body with black all around, as a slice of CT does, and is hardly a frontal chest "
                f"film (likeness {likeness:.2f}, at least {LEAST_LIKENESS_WITHIN_BLACK:g} within black)."
            )
    return None


def why_no_stain(colour: NDArray[np.float32], full_scale: float | None, small: bool = False) -> str | None:
    """Why an image is hardly a section stained with haematoxylin and eosin; None where it may be one.

    Args:
        colour: (3, H, W).
        full_scale: the value of white.
        small: the overview of a slide, whose glass is flat.
    """
    image = colour / (full_scale or max(float(colour.max()), 1.0))
    tissue, coloured, stained = stain_shares(image)
    if tissue < LEAST_TISSUE:
        return f"{tissue:.1%} of the picture is not white: it shows no tissue."
    flat = 0.0 if small else flat_share(image, leave_white=True)
    if flat > MOST_FLAT:
        return _drawn(flat, "a section")
    if coloured < LEAST_COLOURED or stained < LEAST_STAINED:
        return (
            f"The picture does not look stained with H&E: {coloured:.0%} of it have colour, at least "
            f"{LEAST_COLOURED:.0%}; of that {stained:.0%} are blue, purple or pink, at least {LEAST_STAINED:.0%}."
        )
    return None


def _is_black(grey: NDArray[np.float32]) -> NDArray[np.bool_]:
    low, high = np.percentile(grey, [1, 99])
    black: NDArray[np.bool_] = grey <= low + BLACK * (high - low)
    return black


def _without_black_edges(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """From the first to the last row and column of which a tenth is not black: films are framed, shrunk and padded."""
    shown = ~_is_black(grey)
    rows, columns = (np.flatnonzero(shown.mean(axis=axis) > 0.1) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return grey
    return grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _black_corners(grey: NDArray[np.float32]) -> float:
    """Black share of that corner which has least."""
    black = _is_black(grey)
    rows, columns = (max(1, length // 10) for length in grey.shape)
    ends = [(slice(rows), slice(-rows, None)), (slice(columns), slice(-columns, None))]
    return min(float(black[across, down].mean()) for across in ends[0] for down in ends[1])


def _drawn(flat: float, kind: str) -> str:
    most = f"{kind} has at most {MOST_FLAT:.0%}"
    return f"{flat:.0%} of the picture are flat areas, as of a drawing or a screenshot; {most}."


def flat_share(image: NDArray[np.float32], leave_white: bool) -> float:
    """Share of square blocks, a 64th of the shorter side, whose pixels all have one value.

    Args:
        image: (C, H, W).
        leave_white: blocks of white, 1, count no more than those of black.
    """
    height, width = image.shape[1:]
    edge = max(4, round(min(height, width) / 64))
    rows, columns = height // edge, width // edge
    blocks = image[:, : rows * edge, : columns * edge].reshape(-1, rows, edge, columns, edge)
    highest, lowest = blocks.max(axis=(2, 4)), blocks.min(axis=(2, 4))
    flat = (highest == lowest).all(axis=0)
    low, high = float(image.min()), float(image.max())
    value = highest.mean(axis=0)
    counted = value > low + 0.05 * (high - low)
    if leave_white:
        counted &= value < 0.99
    return float((flat & counted).mean()) if flat.size else 0.0


def film_likeness(grey: NDArray[np.float32]) -> tuple[float, float]:
    """Of a (H, W) film its correlation with the mean film, and the share of it that chest films do not explain."""
    mean, *directions = _films()
    small = reduced(grey)
    rest = small - mean
    for direction in directions:
        rest = rest - float(rest @ direction) * direction
    likeness = float(np.corrcoef(small, mean)[0, 1]) if small.std() > 0 else 0.0
    return likeness, float((rest**2).mean())


def reduced(grey: NDArray[np.float32]) -> NDArray[np.float64]:
    """(H, W) -> (256,): 16 x 16 means between the 1st and the 99th percentile, of mean 0 and variance 1."""
    low, high = np.percentile(grey, [1, 99])
    scaled = np.clip((grey - low) / max(high - low, 1e-6), 0.0, 1.0).astype(np.float32)
    small = np.asarray(
        Image.fromarray(scaled).resize((_EDGE, _EDGE), Image.Resampling.BOX), np.float64
    ).ravel()
    small -= small.mean()
    return small / max(float(small.std()), 1e-6)


@cache
def _films() -> NDArray[np.float64]:
    return np.load(_FILMS, allow_pickle=False).astype(np.float64)


def stain_shares(image: NDArray[np.float32]) -> tuple[float, float, float]:
    """Of a (3, H, W) image in [0, 1]: the share that is not white, of that with colour, of that in the hues of H&E."""
    highest, lowest = image.max(axis=0), image.min(axis=0)
    spread = highest - lowest
    tissue = -np.log(np.clip(image, 1 / 255, 1.0)).mean(axis=0) > 0.1
    coloured = tissue & (spread > 0.06)
    red, green, blue = image
    safe = np.maximum(spread, 1e-6)
    hue = 60.0 * np.where(
        highest == red,
        ((green - blue) / safe) % 6.0,
        np.where(highest == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    stained = coloured & (hue >= HUES[0]) & (hue <= HUES[1])
    counts = [int(np.count_nonzero(one)) for one in (tissue, coloured, stained)]
    return counts[0] / tissue.size, counts[1] / max(counts[0], 1), counts[2] / max(counts[1], 1)
