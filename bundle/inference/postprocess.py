"""From the network's grid back to the patient's: probabilities resampled, then one label a voxel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from monai.transforms import Compose, Invertd, MapTransform

from bundle.cases.case import Case
from bundle.cases.structures import Structures
from bundle.diffusion.sampling import Sampling
from bundle.results.prediction import Prediction


class ToPredictiond(MapTransform):
    """Turn the inverted output of `SegmentationInferer` into a `Prediction` under 'prediction'.

    The probabilities, not a mask, were brought to the input's grid, so the borders between labels lie where
    the interpolated probabilities are equal.

    Args:
        structures: of the network.
        sampling: for the report.
        settings: more that the report should say of how the result was made.
    """

    def __init__(
        self, structures: Structures, sampling: Sampling, settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(keys="pred")
        self.structures = structures
        self.settings = {**asdict(sampling), **(settings or {})}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        case: Case = item["case"]
        labels = self.structures.of_modality(case.modality)
        result = np.asarray(item.pop("pred"), dtype=np.float32).clip(0.0, 1.0)
        probability, uncertainty = result[:-1], result[-1]
        values = np.array([0, *labels], dtype=np.uint8)
        mask = values[probability.argmax(axis=0)]
        warnings = []
        if case.reference.prompt:
            warnings.append(
                "This network reads no text: the prompt is kept with the result but did not guide it."
            )
        item["prediction"] = Prediction(
            case=case,
            mask=mask,
            probability=probability[1:],
            uncertainty=uncertainty,
            labels=labels,
            warnings=warnings,
            settings=dict(self.settings),
        )
        return item


def postprocessing(
    preprocessing: Compose,
    structures: Structures,
    sampling: Sampling,
    settings: Mapping[str, Any] | None = None,
) -> Compose:
    """Undo the preprocessing and make a `Prediction`.

    Args:
        preprocessing: whose spatial transforms are undone, see `bundle.transforms.preprocessing`.
    """
    return Compose(
        [
            Invertd("pred", transform=preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True),
            ToPredictiond(structures, sampling, settings),
        ]
    )
