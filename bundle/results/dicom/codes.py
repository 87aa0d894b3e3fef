"""What a structure is called in DICOM: codes of SNOMED CT from codes.yaml, and a colour."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from highdicom.color import CIELabColor
from highdicom.sr import CodedConcept

from bundle.results.pictures.colours import structure_colour, structure_key

#: For names that no public scheme is known to have; private designators begin with 99, DICOM PS3.16 section 8.2.
PRIVATE_SCHEME = "99TPDS"
_SCT = "SCT"
_LONGEST_MEANING = 64  # characters of the VR LO


@dataclass(frozen=True)
class StructureCodes:
    """The codes of one structure.

    Attributes:
        category: Segmented Property Category, CID 7150.
        type: Segmented Property Type, CID 7151, without the side.
        laterality: CID 244; None where the name says no side.
        region: where a finding lies; None for a structure that is its own place.
    """

    category: CodedConcept
    type: CodedConcept
    laterality: CodedConcept | None = None
    region: CodedConcept | None = None


def structure_codes(name: str) -> StructureCodes:
    """The codes of a structure; a name that the table does not have gets a private one that says the name.

    Case, underscores and the plurals of the bundle's own structures make no difference.
    """
    table = _table()
    entry = table["structures"].get(structure_key(name))
    if entry is None:
        # The first characters of a digest, since a code value holds 16 and a name may be longer.
        value = hashlib.sha256(structure_key(name).encode("utf-8", "replace")).hexdigest()[:12].upper()
        private = CodedConcept(value, PRIVATE_SCHEME, short_text(name))
        return StructureCodes(_concept(table["categories"]["tissue"]), private)
    region = entry.get("region")
    side = entry.get("laterality")
    return StructureCodes(
        category=_concept(table["categories"][entry["category"]]),
        type=_concept(entry["type"]),
        laterality=None if side is None else _concept(table["lateralities"][side]),
        region=None if region is None else _concept(table["structures"][region]["type"]),
    )


def short_text(text: str) -> str:
    """`text` as an LO element takes it: one line of 64 characters without a backslash, never empty."""
    line = " ".join("".join(c if c.isprintable() and c != "\\" else " " for c in text).split())
    return line[:_LONGEST_MEANING].rstrip() or "structure"


def display_colour(name: str) -> CIELabColor:
    """The colour of the previews as CIELab under D50, as Recommended Display CIELab Value wants it."""
    return CIELabColor.from_rgb(*(round(255 * channel) for channel in structure_colour(name)))


def _concept(entry: tuple[str, str]) -> CodedConcept:
    return CodedConcept(entry[0], _SCT, entry[1])


@cache
def _table() -> Mapping[str, Any]:
    content: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parent / "codes.yaml").read_text(encoding="utf-8")
    )
    return content
