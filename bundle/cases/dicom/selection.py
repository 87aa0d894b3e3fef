"""Which of the series that are found are segmented."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from bundle.cases.errors import CaseError

Orientation = Literal["axial", "coronal", "sagittal"]
_UID_LIST = re.compile(r"[\s,]+")


@dataclass(frozen=True)
class SeriesSelection:
    """Which series of what is found are segmented; the defaults take all that show a patient.

    Attributes:
        series: SeriesInstanceUIDs, or a text with commas between them; None for any. What is named is taken even where
            it is derived.
        series_description: pattern of the SeriesDescription with * and ?, upper and lower case alike.
        series_modality: DICOM modality, such as CT.
        min_slices: fewest slices of a volume; does not concern films.
        orientation: of the slices, to the nearest plane of the body.
        resample_slices: interpolate slices that are missing or unevenly spaced, instead of refusing their series.

    Raises:
        CaseError: a value that no series could have.
    """

    series: str | Sequence[str] | None = None
    series_description: str | None = None
    series_modality: str | None = None
    min_slices: int = 1
    orientation: Orientation | None = None
    resample_slices: bool = False

    def __post_init__(self) -> None:
        for one in sorted(self.uids):
            if not re.fullmatch(r"[0-9.]{1,64}", one):
                raise CaseError("series", f"{one!r} is no UID", "give a SeriesInstanceUID")
        if self.orientation not in (None, *get_args(Orientation)):
            named = ", ".join(get_args(Orientation))
            raise CaseError("orientation", f"{self.orientation!r} is not known", f"give one of {named}")
        if isinstance(self.min_slices, bool) or not isinstance(self.min_slices, int) or self.min_slices < 1:
            raise CaseError("min_slices", f"{self.min_slices!r} is no number of slices", "give 1 or more")

    @cached_property
    def uids(self) -> frozenset[str]:
        """Of the series that are named."""
        named = _UID_LIST.split(self.series) if isinstance(self.series, str) else map(str, self.series or ())
        return frozenset(filter(None, named))


def nearest_plane(orientation: tuple[float, ...]) -> Orientation | None:
    """The plane of the body that slices lie nearest to; None where they do not say."""
    if len(orientation) != 6:
        return None
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    normal = [abs(b * f - c * e), abs(c * d - a * f), abs(a * e - b * d)]
    planes: tuple[Orientation, ...] = ("sagittal", "coronal", "axial")
    return planes[normal.index(max(normal))]
