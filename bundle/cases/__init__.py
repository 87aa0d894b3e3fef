"""Patient data in, whatever it came as: one `Case` with its array, geometry, modality and prompt."""

from bundle.cases.case import Case, CaseFailure, CaseReference
from bundle.cases.collect import Collection, collect, collect_cases
from bundle.cases.errors import CaseError
from bundle.cases.modality import MODALITIES, Modality
from bundle.cases.prompts import read_prompts
from bundle.cases.reader import read_case, read_label

__all__ = [
    "MODALITIES",
    "Case",
    "CaseError",
    "CaseFailure",
    "CaseReference",
    "Collection",
    "Modality",
    "collect",
    "collect_cases",
    "read_case",
    "read_label",
    "read_prompts",
]
