"""Whether the slices of a series were taken in one go: several acquisitions that share a SeriesInstanceUID, and whose
slices lie between one another, look like one even stack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.cases.dicom.headers import text
from bundle.cases.errors import CaseError

#: What differs between acquisitions; between the parts of one too, which lie beside one another then.
_OF_ACQUISITION = (
    *(
        "AcquisitionNumber",
        "FrameAcquisitionNumber",
        "IrradiationEventUID",
        "StackID",
        "TemporalPositionIndex",
    ),
    *("TemporalPositionIdentifier", "ContrastBolusAgent", "KVP", "ScanOptions", "ProtocolName", "ImageType"),
    *(
        "NominalPercentageOfCardiacPhase",
        "SeriesDescription",
        "SeriesNumber",
        "SeriesTime",
        "AcquisitionDate",
    ),
)
#: What rises within an acquisition as it goes through the patient.
_IN_ORDER = (
    "AcquisitionTime",
    "AcquisitionDateTime",
    "FrameAcquisitionDateTime",
    "ContentTime",
    "InstanceNumber",
)
_LEAST_PASS = 3  # slices of one way through the patient


def acquisition_of(*datasets: Any) -> dict[str, str]:
    """What says to which acquisition a slice belongs, from the data sets that hold its attributes."""
    found = {}
    for keyword in (*_OF_ACQUISITION, *_IN_ORDER):
        found[keyword] = next((value for value in (text(one, keyword) for one in datasets) if value), "")
    return found


def check_not_interleaved(
    heights: NDArray[np.float64], acquisitions: Sequence[Mapping[str, str]], place: Path
) -> None:
    """Refuse slices of several acquisitions that lie between one another.

    Args:
        heights: of the slices along their normal, mm.
        acquisitions: see `acquisition_of`.

    Raises:
        CaseError: they do.
    """
    for keyword in _OF_ACQUISITION:
        groups: defaultdict[str, list[float]] = defaultdict(list)
        for height, one in zip(heights, acquisitions, strict=True):
            groups[one[keyword]].append(float(height))
        if len(groups) > 1 and _overlap(list(groups.values()), 2):
            raise _interleaved(place, keyword)
    for keyword in _IN_ORDER:
        values = [one[keyword] for one in acquisitions]
        if all(values) and _overlap(_passes(heights, values), _LEAST_PASS):
            raise _interleaved(place, keyword)


def _interleaved(place: Path, keyword: str) -> CaseError:
    problem = f"holds several acquisitions whose slices lie between one another ({keyword} tells them apart)"
    return CaseError(place, problem, "export each acquisition as a series of its own")


def _overlap(groups: Sequence[Sequence[float]], least: int) -> bool:
    """Whether two groups of at least so many heights share more than half of the way that the shorter one takes."""
    ways = [(min(group), max(group)) for group in groups if len(group) >= least]
    return any(
        min(high, other_high) - max(low, other_low) > 0.5 * min(high - low, other_high - other_low)
        for index, (low, high) in enumerate(ways)
        for other_low, other_high in ways[:index]
    )


def _passes(heights: NDArray[np.float64], values: Sequence[str]) -> list[list[float]]:
    """Heights in the order of their values, cut where they turn round; none where they have no order at all."""
    keys = [_number(value) for value in values]
    order = sorted(range(len(keys)), key=lambda index: (keys[index], heights[index]))
    passes: list[list[float]] = [[float(heights[order[0]])]]
    for index in order[1:]:
        height, last = float(heights[index]), passes[-1]
        if len(last) > 1 and (height - last[-1]) * (last[1] - last[0]) <= 0:
            passes.append([height])
        else:
            last.append(height)
    return passes if min(map(len, passes)) >= _LEAST_PASS else []


def _number(value: str) -> float:
    try:
        return float(value.split("\\")[0].split("+")[0])
    except ValueError:
        return 0.0
