"""What a structure is called in DICOM: its codes of SNOMED CT, and a colour."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from highdicom.color import CIELabColor
from highdicom.sr import CodedConcept

from bundle.cases.structures import Structures, shipped_structures

#: For names that no public scheme is known to have; private designators begin with 99, DICOM PS3.16 section 8.2.
PRIVATE_SCHEME = "99TPDS"
#: By the names that configs/structures.yaml gives them.
_CATEGORIES = {
    "anatomical structure": ("91723000", "Anatomical Structure"),
    "abnormal structure": ("49755003", "Morphologically Abnormal Structure"),
    "tissue": ("85756007", "Tissue"),
}
_LATERALITIES = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}
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


def structure_codes(name: str, structures: Structures | None = None) -> StructureCodes:
    """The codes of a structure; one that has none gets a private one that says the name.

    Args:
        name: case and underscores make no difference.
        structures: of the network; None for the shipped one's.
    """
    structure = (shipped_structures() if structures is None else structures).get(name)
    if structure is None or structure.code is None:
        # The first characters of a digest, since a code value holds 16 and a name may be longer.
        key = " ".join(name.lower().replace("_", " ").split())
        value = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:12].upper()
        private = CodedConcept(value, PRIVATE_SCHEME, short_text(name))
        return StructureCodes(_concept(_CATEGORIES["tissue"]), private)
    code = structure.code
    return StructureCodes(
        category=_concept(_CATEGORIES[code.get("category", "anatomical structure")]),
        type=_concept(code["type"]),
        laterality=_concept(_LATERALITIES[code["laterality"]]) if "laterality" in code else None,
        region=_concept(code["region"]) if "region" in code else None,
    )


def short_text(text: str) -> str:
    """`text` as an LO element takes it: one line of 64 characters without a backslash, never empty."""
    line = " ".join("".join(c if c.isprintable() and c != "\\" else " " for c in text).split())
    return line[:_LONGEST_MEANING].rstrip() or "structure"


def display_colour(name: str, structures: Structures | None = None) -> CIELabColor:
    """The colour of the previews as CIELab under D50, as Recommended Display CIELab Value wants it."""
    return CIELabColor.from_rgb(*(shipped_structures() if structures is None else structures).colour(name))


def _concept(entry: Sequence[str]) -> CodedConcept:
    return CodedConcept(entry[0], "SCT", entry[1])
