"""What a workflow hands to the results room: one case, segmented."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.cases.case import Case
from bundle.cases.structures import Structures, shipped_structures
from bundle.networks.prompt_reading import PromptReading
from bundle.results.instances import Instances
from bundle.results.plausibility import Flag
from bundle.transforms.source_grid import SourceMaps


@dataclass
class Prediction:
    """One case with its mask, probabilities and uncertainty, all on the input's own grid.

    Attributes:
        case: the case as it was read; gives geometry, header, modality, prompt and warnings.
        mask: uint8, (X, Y, Z) for volumes in the voxel order of the file, (H, W) for two-dimensional images; each value
            is 0 (background) or a key of `labels`.
        probability: float32 in [0, 1], (K, *spatial): one channel an entry of `labels`, in its order,
            background left out. Of volumes it may be worked out when it is asked for: see `probability_blocks`.
        uncertainty: float32 in [0, 1], (*spatial): predictive entropy over log(number of classes).
        labels: label value (1-255) -> name of the structure, those that were asked for.
        structures: of the network: colours and codes of the names.
        warnings: what the reader of the report should know, beyond the case's own warnings.
        notices: what was assumed, for the report of each case and once a run for its user.
        flags: what is hardly possible about the result, see `bundle.results.plausibility`.
        settings: steps, members, seed, sampler and the like; they go into the report as they are.
        source_series: for DICOM input what identifies the series (UIDs); None for other formats.
        is_overview: whether case and mask are the overview of a whole-slide image, not its own pixels.
        instances: the cells of an H&E image; None where none are looked for.
        reading: what the network made of the prompt; None where several prompts were joined.

    Raises:
        ValueError: on shapes, types or labels that do not fit together.
    """

    case: Case
    mask: NDArray[np.uint8]
    probability: NDArray[np.float32] | SourceMaps
    uncertainty: NDArray[np.float32]
    labels: dict[int, str]
    warnings: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    source_series: dict[str, Any] | None = None
    is_overview: bool = False
    reading: PromptReading | None = None
    structures: Structures = field(default_factory=shipped_structures)
    notices: list[str] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    instances: Instances | None = None

    def __post_init__(self) -> None:
        spatial = self.case.array.shape[1:]
        expected = {"mask": spatial, "probability": (len(self.labels), *spatial), "uncertainty": spatial}
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{self.case.reference.id}: {name} has shape {found}, expected {shape}")
        if self.mask.dtype != np.uint8:
            raise ValueError(f"{self.case.reference.id}: mask is {self.mask.dtype}, expected uint8")
        if not all(1 <= value <= 255 for value in self.labels):
            raise ValueError(
                f"{self.case.reference.id}: label values must lie in 1-255, got {list(self.labels)}"
            )
        if len(set(self.labels.values())) < len(self.labels):
            raise ValueError(f"{self.case.reference.id}: a structure has two label values: {self.labels}")

    def probability_blocks(self, channel: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """One structure's probability piece by piece along the last axis, so that no whole map need be held."""
        if isinstance(self.probability, SourceMaps):
            for slices, slab in self.probability.chosen([channel]).slabs():
                yield slices, slab[0]
        else:
            yield slice(None), self.probability[channel]

    @property
    def all_warnings(self) -> list[str]:
        """The case's warnings, then the prediction's; each once."""
        return list(dict.fromkeys([*self.case.warnings, *self.warnings]))
