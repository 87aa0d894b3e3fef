"""The structures a network knows: their names, where they occur and which value they have in a mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.cases.modality import MODALITIES, Modality


@dataclass(frozen=True)
class Structure:
    """One thing that can be segmented.

    Attributes:
        one_piece: a healthy body has it once and connected, as the liver, not as lungs or nuclei.
        least_piece: pieces under this share of the largest are no part of it; in [0, 1].
        least_end: axial slices at its ends that show less of it than this share of the slice with most are no part of
            it; in [0, 1].
    """

    name: str
    modality: Modality
    one_piece: bool = False
    least_piece: float = 0.0
    least_end: float = 0.0

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Structure:
        """As a configuration states it; unstated, `least_piece` is a half for what is one piece, and all else 0."""
        one_piece = bool(entry.get("one_piece", False))
        least = float(entry.get("least_piece", 0.5 if one_piece else 0.0))
        end = float(entry.get("least_end", 0.0))
        return cls(str(entry["name"]), entry["modality"], one_piece, least, end)


class Structures(Sequence[Structure]):
    """What the channels of a network mean: channel 0 is background, structure i has channel and value i + 1.

    Args:
        entries: mappings with `name`, `modality` and, where wanted, `one_piece`, `least_piece` and `least_end`, in the
            order of the channels.

    Raises:
        ValueError: a name twice, an unknown modality, a share outside [0, 1], or more than 255 structures.
    """

    def __init__(self, entries: Iterable[Mapping[str, Any]]) -> None:
        self._entries = tuple(Structure.of(entry) for entry in entries)
        names = [entry.name for entry in self._entries]
        if len(set(names)) != len(names):
            raise ValueError(f"structures: a name stands twice in {', '.join(names)}")
        if len(names) > 255:
            raise ValueError(f"structures: {len(names)} do not fit the 255 values of a uint8 mask")
        for entry in self._entries:
            if entry.modality not in MODALITIES:
                raise ValueError(
                    f"structures: {entry.name} has modality {entry.modality!r}, not one of {MODALITIES}"
                )
            for field, share in (("least_piece", entry.least_piece), ("least_end", entry.least_end)):
                if not 0.0 <= share <= 1.0:
                    raise ValueError(f"structures: {entry.name} has {field} {share}, not in [0, 1]")
        self._values = {entry.name: index + 1 for index, entry in enumerate(self._entries)}

    def __getitem__(self, index: Any) -> Any:
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def channels(self) -> int:
        """Channels of the network, background included."""
        return len(self._entries) + 1

    def value(self, name: str) -> int:
        """Channel and mask value of a structure; KeyError names those that are known."""
        if name not in self._values:
            raise KeyError(f"no structure {name!r}; known are {', '.join(self._values)}")
        return self._values[name]

    def knows(self, name: str) -> bool:
        """Whether a structure of that name has a channel."""
        return name in self._values

    def of_modality(self, modality: Modality) -> dict[int, str]:
        """Mask value -> name of the structures that an image of this modality can show."""
        return {self._values[entry.name]: entry.name for entry in self._entries if entry.modality == modality}

    def in_one_piece(self) -> list[int]:
        """Mask values of the structures that are one connected piece."""
        return [self._values[entry.name] for entry in self._entries if entry.one_piece]

    def least_pieces(self) -> dict[int, float]:
        """Mask value -> the share of the largest piece under which pieces are dropped, where there is one."""
        return {self._values[entry.name]: entry.least_piece for entry in self._entries if entry.least_piece}

    def least_ends(self) -> dict[int, float]:
        """Mask value -> the share of its largest slice under which its end slices are dropped, where there is one."""
        return {self._values[entry.name]: entry.least_end for entry in self._entries if entry.least_end}
