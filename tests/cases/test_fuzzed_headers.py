"""Headers changed at random, read by the bundle and by another reader: the same image in the same place, or a sentence.

Beside it, each kind of disagreement that was found so, by itself.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.fuzz.core import Format, Tally, changed, fuzz, outcome
from tests.support.fuzz.dicom import CT, FILM
from tests.support.fuzz.itk_text import META, NRRD
from tests.support.fuzz.nifti import NIFTI
from tests.support.fuzz.tiff import TIFF

#: Of each format, how many inputs the quick and the slow test try.
INPUTS = (
    (NIFTI, 150, 5000),
    (META, 150, 5000),
    (NRRD, 150, 5000),
    (CT, 40, 600),
    (FILM, 100, 3000),
    (TIFF, 150, 5000),
)


def agrees(tally: Tally) -> bool:
    """Whether there was enough to disagree about, and nothing was."""
    assert not tally.disagreements, "\n".join(map(str, tally.disagreements[:10]))
    return min(tally.outcomes["same"], tally.outcomes["sentence"]) > 0.1 * tally.inputs


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [(kind, few) for kind, few, _ in INPUTS],
    ids=[kind.name for kind, *_ in INPUTS],
)
def test_changed_headers(kind: Format, inputs: int) -> None:
    assert agrees(fuzz(kind, iter(range(inputs))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "inputs"),
    [(kind, many) for kind, _, many in INPUTS],
    ids=[kind.name for kind, *_ in INPUTS],
)
def test_many_changed_headers(kind: Format, inputs: int) -> None:
    assert agrees(fuzz(kind, iter(range(1_000_000, 1_000_000 + inputs))))


def test_a_seed_changes_the_same_fields_again() -> None:
    assert [repr(changed(CT, seed)) for seed in range(20)] == [repr(changed(CT, seed)) for seed in range(20)]
    assert any(changed(CT, seed) for seed in range(20))


FOUND: tuple[tuple[str, Format, dict[str, Any], str, str], ...] = (
    (
        "sform and qform are two places",
        NIFTI,
        {"qoffset": (116.0, -220.7, 93.6)},
        "said",
        "sform and qform place the image differently",
    ),
    (
        "voxel size of 0, no sform",
        NIFTI,
        {"edges": (0.0, 1.5, 3.0), "sform_code": 0},
        "sentence",
        "make no sense",
    ),
    (
        "negative voxel size, no sform",
        NIFTI,
        {"edges": (-2.0, 1.5, 3.0), "sform_code": 0},
        "sentence",
        "make no sense",
    ),
    ("code that NIfTI has not", NIFTI, {"sform_code": 99}, "sentence", "sform_code that NIfTI does not have"),
    (
        "unit that NIfTI has not",
        NIFTI,
        {"xyzt_units": 7},
        "sentence",
        "unit of length that NIfTI does not have",
    ),
    ("values before the header ends", NIFTI, {"vox_offset": 0.0}, "same", ""),
    (
        "text in two dimensions, which ends ITK's process",
        META,
        {"binary": "False", "rank": 2},
        "sentence",
        "as text in 2 dimensions",
    ),
    (
        "geometry twice",
        META,
        {"twice": ("Offset", "0 0 0")},
        "sentence",
        "states Offset more than once",
    ),
    (
        "cut compressed values",
        META,
        {"compressed": "sized", "damage": "cut"},
        "sentence",
        "corrupt",
    ),
    ("compressed values of unknown length", META, {"compressed": True}, "sentence", "CompressedDataSize"),
    (
        "rescaling that no reader does",
        META,
        {"ElementToIntensityFunctionSlope": 2},
        "sentence",
        "ElementToIntensityFunction",
    ),
    (
        "directions that are not of length 1",
        META,
        {"matrix": [[-2.0, 0, 0], [0, -1, 0], [0, 0, 1]]},
        "sentence",
        "length 1",
    ),
    ("cut, counted from the end", META, {"HeaderSize": -1, "damage": "end"}, "sentence", "corrupt"),
    ("no origin", NRRD, {"origin": None}, "said", "nominal"),
    ("cut, counted from the end, NRRD", NRRD, {"byte skip": -1, "damage": "end"}, "sentence", "corrupt"),
    (
        "colours of one value",
        FILM,
        {"PhotometricInterpretation": "RGB"},
        "sentence",
        "PhotometricInterpretation",
    ),
    ("half a window", FILM, {"WindowWidth": 4096}, "same", ""),
    (
        "slope without intercept before a table",
        FILM,
        {"VOI LUT": ("falling",), "RescaleSlope": 2},
        "same",
        "",
    ),
    ("table of 8 bits in 8", FILM, {"VOI LUT": ("bent",), "LUT bits": 8, "packed": True}, "same", ""),
    ("black or white not told", TIFF, {"missing": (262,)}, "sentence", "whether 0 is black or white"),
    (
        "separate planes of one channel",
        TIFF,
        {"planar": 2, "photometric": 0},
        "sentence",
        "PlanarConfiguration",
    ),
    ("more rows than strips", TIFF, {"wrong": {257: [1200]}}, "sentence", "corrupt"),
)


@pytest.mark.parametrize(
    ("kind", "changes", "result", "words"), [one[1:] for one in FOUND], ids=[one[0] for one in FOUND]
)
def test_what_was_found(kind: Format, changes: dict[str, Any], result: str, words: str) -> None:
    found, told = outcome(kind, changes)
    assert found == result, told
    assert words in told
