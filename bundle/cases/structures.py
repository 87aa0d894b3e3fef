"""The structures a network knows, read from one file: names, mask values, colours, codes, words and mask cleaning."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bundle.cases.case import CaseReference
from bundle.cases.errors import CaseError
from bundle.cases.modality import Modality
from bundle.cases.structures_file import CLEANING, WORDS, checked_entries, hint, read_entries
from bundle.root import CONFIGS

#: What the shipped network segments.
SHIPPED = CONFIGS / "structures.yaml"
RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Structure:
    """One thing that can be segmented.

    Attributes:
        name: unique among the structures of a network.
        modality: of the images that show it.
        value: in the mask, and channel of the network; 1-255.
        colour: red, green, blue, 0-255.
        code: of SNOMED CT, as configs/structures.yaml explains it; None where it has none.
        words: what configs/structures.yaml says of its wording, for `bundle.wording`.
        one_piece: a healthy body has it once and connected, as the liver, not as lungs or nuclei.
        least_piece: pieces under this share of the largest are no part of it; in [0, 1].
        least_end: axial slices at its ends that show less of it than this share of the slice with most are no part of
            it; in [0, 1].
        plausible: bounds of what a mask of it can be, as configs/structures.yaml explains them.
    """

    name: str
    modality: Modality
    value: int
    colour: RGB
    code: Mapping[str, Any] | None = None
    words: Mapping[str, Any] = field(default_factory=dict)
    one_piece: bool = False
    least_piece: float = 0.0
    least_end: float = 0.0
    plausible: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_cell(self) -> bool:
        """Whether it is seen many times, each for itself, so that it is counted: of kind 'cell'."""
        return self.words.get("kind") == "cell"


class Structures(Sequence[Structure]):
    """What the channels of a network mean, by mask value: channel 0 is background, each structure's channel its value.

    Args:
        source: a YAML file as configs/structures.yaml, which explains its entries; or the entries themselves. What an
            entry leaves out of colour, code, plausible and words comes from the shipped structure of its name and
            modality.

    Raises:
        CaseError: the file cannot be read, or an entry that cannot be meant.
    """

    def __init__(self, source: str | Path | Iterable[Mapping[str, Any]]) -> None:
        path = Path(source) if isinstance(source, str | Path) else None
        self.source = "structures" if path is None else str(path)
        entries = checked_entries(source if path is None else read_entries(path), self.source)
        known = {} if path is not None and path.resolve() == SHIPPED else _shipped_entries()
        for entry in entries:
            inherited = known.get((_key(entry["name"]), entry["modality"]), {})
            own_words = any(key in entry for key in WORDS)
            for key in ("colour", "code", "plausible", *(() if own_words else WORDS)):
                if key in inherited:
                    entry.setdefault(key, inherited[key])
        colours: list[Sequence[int]] = [entry["colour"] for entry in entries if "colour" in entry]
        for entry in entries:
            if "colour" not in entry:
                entry["colour"] = _distinct_colour(colours)
                colours.append(entry["colour"])
        self.entries: tuple[Mapping[str, Any], ...] = tuple(entries)
        self._structures = tuple(map(_structure, entries))
        self._by_name = {one.name: one for one in self._structures}
        self._by_key = {_key(one.name): one for one in self._structures}

    def __getitem__(self, index: Any) -> Any:
        return self._structures[index]

    def __len__(self) -> int:
        return len(self._structures)

    @property
    def channels(self) -> int:
        """Channels of the network, background included."""
        return len(self._structures) + 1

    @property
    def deciding(self) -> list[dict[str, Any]]:
        """What of them decides on a mask, as JSON has it: not colours, codes and words."""
        keys = ("name", "value", "modality", *CLEANING)
        return [{key: getattr(one, key) for key in keys} for one in self._structures]

    def value(self, name: str) -> int:
        """Channel and mask value of a structure; KeyError names those that are known."""
        if name not in self._by_name:
            raise KeyError(f"no structure {name!r}; known are {', '.join(self._by_name)}")
        return self._by_name[name].value

    def knows(self, name: str) -> bool:
        """Whether a structure of that name has a channel."""
        return name in self._by_name

    def get(self, name: str) -> Structure | None:
        """The structure of a name, whatever its case and underscores."""
        return self._by_key.get(_key(name))

    def colour(self, name: str) -> RGB:
        """The colour of a name; a name that is no structure's gets a fixed one."""
        structure = self.get(name)
        if structure is not None:
            return structure.colour
        digest = hashlib.sha256(_key(name).encode("utf-8", "replace")).digest()
        return _as_bytes(colorsys.hsv_to_rgb(digest[0] / 256, 0.55 + digest[1] / 1024, 0.95))

    def rgb(self, name: str) -> tuple[float, float, float]:
        """`colour` with channels in [0, 1]."""
        red, green, blue = self.colour(name)
        return red / 255, green / 255, blue / 255

    def of_modality(self, modality: Modality) -> dict[int, str]:
        """Mask value -> name of the structures that an image of this modality can show."""
        return {one.value: one.name for one in self._structures if one.modality == modality}

    def in_one_piece(self) -> list[int]:
        """Mask values of the structures that are one connected piece."""
        return [one.value for one in self._structures if one.one_piece]

    def cells(self, labels: Mapping[int, str]) -> list[int]:
        """Of labels (mask value -> name) the values of those that are counted one by one."""
        known = {value: self.get(name) for value, name in labels.items()}
        return [value for value, one in known.items() if one is not None and one.is_cell]

    def least_pieces(self) -> dict[int, float]:
        """Mask value -> the share of the largest piece under which pieces are dropped, where there is one."""
        return {one.value: one.least_piece for one in self._structures if one.least_piece}

    def least_ends(self) -> dict[int, float]:
        """Mask value -> the share of its largest slice under which its end slices are dropped, where there is one."""
        return {one.value: one.least_end for one in self._structures if one.least_end}

    def check_labels(self, references: Iterable[CaseReference]) -> None:
        """Refuse ground truth whose values have no names or names of no structure, before any of it is read.

        Raises:
            CaseError: names the file, the name and what to do.
        """
        for reference in references:
            if reference.label is None:
                continue
            if not reference.labels:
                raise CaseError(
                    reference.label,
                    "holds values that no name is given for",
                    "add 'labels': {'1': name, ...} to the datalist",
                )
            unknown = next((name for name in reference.labels.values() if not self.knows(name)), None)
            if unknown is not None:
                known = ", ".join(self._by_name) or "none"
                raise CaseError(
                    reference.label,
                    f"labels {unknown!r}, which the network does not know{hint(unknown, self._by_name)}",
                    f"name it as in {self.source} ({known}), add it there, or leave it out of 'labels'",
                )


@cache
def shipped_structures() -> Structures:
    """What the shipped network segments."""
    return Structures(SHIPPED)


@cache
def _shipped_entries() -> Mapping[tuple[str, str], Mapping[str, Any]]:
    return {(_key(entry["name"]), entry["modality"]): entry for entry in shipped_structures().entries}


def _key(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _as_bytes(colour: Iterable[float]) -> RGB:
    red, green, blue = (round(255 * channel) for channel in colour)
    return red, green, blue


def _distinct_colour(taken: Sequence[Sequence[int]]) -> list[int]:
    """Of bright colours of many hues, the one that looks least like those that are taken."""
    from skimage.color import rgb2lab  # slow to import, and most files state their colours

    hues, shades = np.linspace(0, 1, 48, endpoint=False), ((0.55, 0.95), (0.8, 0.75), (0.3, 1.0))
    candidates = np.array([_as_bytes(colorsys.hsv_to_rgb(hue, *shade)) for shade in shades for hue in hues])
    if not taken:
        return [int(channel) for channel in candidates[0]]
    seen, others = (rgb2lab(np.asarray(colours) / 255) for colours in (candidates, taken))
    distances = np.linalg.norm(seen[:, None] - others[None], axis=-1).min(axis=1)
    return [int(channel) for channel in candidates[distances.argmax()]]


def _structure(entry: Mapping[str, Any]) -> Structure:
    one_piece = bool(entry.get("one_piece", False))
    red, green, blue = entry["colour"]
    return Structure(
        name=entry["name"],
        modality=entry["modality"],
        value=entry["value"],
        colour=(red, green, blue),
        code=entry.get("code"),
        words={key: entry[key] for key in WORDS if key in entry},
        one_piece=one_piece,
        least_piece=float(entry.get("least_piece", 0.5 if one_piece else 0.0)),
        least_end=float(entry.get("least_end", 0.0)),
        plausible=entry.get("plausible", {}),
    )
