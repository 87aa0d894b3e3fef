"""What two splits of a data set share: patients, file names, and images that are the same to the eye."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.datasets.examining import Examined

#: Two images whose hashes differ in at most so many of the 255 bits count as near-identical. On chest X-rays a
#: copy that was recompressed, resized or brightened differs in up to 18 bits and one that lost a margin of 1 % in
#: up to 36, while no two films of different patients come closer than 50.
NEAR_BITS = 32

_BLOCK = 2048  # images whose hashes are compared at once with all others


@dataclass(frozen=True)
class Leaks:
    """What two splits share. Groups and pairs hold images of at least two splits.

    Attributes:
        patients, file_names: patient or file name -> its images.
        identical: groups of images with the same pixels.
        near_identical: (image, image, bits in which the hashes differ), closest first.
    """

    patients: Mapping[str, list[Examined]]
    file_names: Mapping[str, list[Examined]]
    identical: list[list[Examined]]
    near_identical: list[tuple[Examined, Examined, int]]


def find_leaks(examined: Sequence[Examined]) -> Leaks:
    """What the splits share; images that cannot be read have patients and names, but no pixels.

    A file name that shows no patient says nothing of patients: sets that number their images in every folder would
    be all leaks.
    """
    readable = [one for one in examined if one.digest is not None]
    pairs = [
        (first, second, bits)
        for first, second, bits in near_pairs(examined)
        if first.split != second.split and first.digest != second.digest
    ]
    return Leaks(
        patients=_shared([one for one in examined if one.has_patient], lambda one: one.patient),
        file_names=_shared(examined, lambda one: one.entry.image.name),
        identical=list(_shared(readable, lambda one: one.digest or "").values()),
        near_identical=sorted(pairs, key=lambda pair: pair[2]),
    )


def near_pairs(examined: Sequence[Examined]) -> Iterator[tuple[Examined, Examined, int]]:
    """Every two images, of one split or of two, whose hashes differ in at most `NEAR_BITS` bits."""
    hashed = [one for one in examined if one.bits is not None]
    if not hashed:
        return
    bits = np.stack([one.bits for one in hashed if one.bits is not None])
    for start in range(0, len(hashed), _BLOCK):
        # Of two hashes in -1 and 1, the product is their length less twice the bits that differ.
        distances = (bits.shape[1] - bits[start : start + _BLOCK] @ bits[start:].T) / 2
        for row, column in np.argwhere(distances <= NEAR_BITS):
            if row < column:
                yield hashed[start + row], hashed[start + column], round(float(distances[row, column]))


def _shared(examined: Sequence[Examined], key: Callable[[Examined], str]) -> dict[str, list[Examined]]:
    groups: defaultdict[str, list[Examined]] = defaultdict(list)
    for one in examined:
        groups[key(one)].append(one)
    return {name: group for name, group in sorted(groups.items()) if len(splits_of(group)) > 1}


def splits_of(examined: Iterable[Examined]) -> list[str]:
    """The splits of some images, in their order."""
    return list(dict.fromkeys(one.split for one in examined))
