"""The machine-readable account of one prediction: what was asked, what was found, how sure, how large."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.results.prediction import Prediction

RESEARCH_USE_ONLY = (
    "Research use only. Not a medical device: not for diagnosis, treatment or any other clinical decision."
)
_CUBIC_MM_PER_ML = 1000.0
_DECIMALS = 6


def voxel_volume_ml(affine: NDArray[np.float64]) -> float:
    """Volume of one voxel in ml; right for sheared grids (gantry tilt) too, unlike the edges' product."""
    return abs(float(np.linalg.det(affine[:3, :3]))) / _CUBIC_MM_PER_ML


def count_values(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each of the values 0-255 occurs; slice by slice, to keep memory small."""
    counts = np.zeros(256, dtype=np.int64)
    for block in np.moveaxis(mask, -1, 0):
        counts += np.bincount(block.ravel(), minlength=256)
    return counts


def build_report(prediction: Prediction, elapsed_seconds: float | None = None) -> dict[str, Any]:
    """The report as a dictionary that JSON can hold: no NaN, no array, no path object.

    Volumes are in ml (`volume_ml`, `voxels`), two-dimensional images in pixels (`area_px`, `pixels`); probabilities and
    uncertainties are in [0, 1]; a mean over nothing is None.

    Raises:
        ValueError: when the mask holds a value that is not among the labels.
    """
    case, reference = prediction.case, prediction.case.reference
    counts = count_values(prediction.mask)
    unknown = [
        int(value) for value in np.flatnonzero(counts) if value and int(value) not in prediction.labels
    ]
    if unknown:
        raise ValueError(f"{reference.id}: the mask holds values without a label: {unknown}")
    report = {
        "case": reference.id,
        "input": reference.shown,
        "modality": case.modality,
        "modality_source": case.modality_source,
        "prompt": reference.prompt,
        "prompt_source": reference.prompt_source if reference.prompt else None,
        "not_understood": list(prediction.reading.not_understood) if prediction.reading is not None else [],
        "found": bool(counts[1:].any()),
        "labels": {
            name: {
                **label_entry(prediction, channel, value, int(counts[value])),
                "colour": prediction.structures.colour(name),
            }
            for channel, (value, name) in enumerate(prediction.labels.items())
        },
        "probability_channels": list(prediction.labels.values()),
        "probability_file": _probability_note(prediction),
        "mean_uncertainty": _mean(prediction.uncertainty),
        "mean_uncertainty_foreground": _mean(prediction.uncertainty[prediction.mask > 0]),
        "warnings": [reference.deidentify(warning) for warning in prediction.all_warnings],
        "flags": [asdict(flag) for flag in prediction.flags],
        "notices": prediction.notices,
        "spacing_mm": case.spacing,
        "shape": prediction.mask.shape,
        "settings": prediction.settings,
        "seconds": elapsed_seconds,
        "source_series": prediction.source_series,
        "research_use_only": RESEARCH_USE_ONLY,
    }
    plain: dict[str, Any] = to_plain(report)
    return plain


def label_entry(prediction: Prediction, channel: int, value: int, count: int) -> dict[str, Any]:
    """What is known of one structure.

    Args:
        channel: in the probability.
        value: in the mask.
        count: how often the mask has it.

    Returns:
        volume in ml or area in pixels, of CT volumes the mean HU, mean probability and mean uncertainty in [0, 1]; a
        mean over nothing is None.
    """
    inside = prediction.mask == value
    affine = prediction.case.affine
    measured: dict[str, Any]
    if affine is None:
        measured = {"pixels": count, "area_px": count}
    else:
        measured = {"voxels": count, "volume_ml": count * voxel_volume_ml(affine)}
        if prediction.case.modality == "CT":
            measured["mean_hu"] = _mean(prediction.case.array[0][inside])
    return {
        "value": value,
        "found": count > 0,
        **measured,
        **_cells(prediction, value),
        "mean_probability": _mean_probability(prediction, channel, inside, count),
        "mean_uncertainty": _mean(prediction.uncertainty[inside]),
    }


def _cells(prediction: Prediction, value: int) -> dict[str, Any]:
    """How many cells there are, how large and, where the resolution is known, how close together."""
    instances = prediction.instances
    if instances is None or value not in prediction.structures.cells(prediction.labels):
        return {}
    found = instances.measured(value)
    if instances.mpp is not None:
        pixel_mm2 = instances.mpp[0] * instances.mpp[1] * 1e-6
        found["per_mm2"] = found["count"] / (prediction.mask.size * pixel_mm2)
    return found


def _mean_probability(
    prediction: Prediction, channel: int, inside: NDArray[np.bool_], count: int
) -> float | None:
    if not count:
        return None
    blocks = prediction.probability_blocks(channel)
    return sum(float(block[inside[..., part]].sum(dtype=np.float64)) for part, block in blocks) / count


def _probability_note(prediction: Prediction) -> str:
    if len(prediction.labels) <= 1:
        return "probability of the structure"
    if prediction.case.is_volume:
        return "probability of each structure along the last axis, in the order of probability_channels"
    return "probability of any of the structures (clipped sum)"


def _mean(values: NDArray[np.float32]) -> float | None:
    return float(values.mean(dtype=np.float64)) if values.size else None


def to_plain(value: Any) -> Any:
    """`value` with everything in it as JSON knows it: numbers that are not finite become None."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, float):
        return round(value, _DECIMALS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_text(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((to_plain(item) for item in value), key=str)
    return _text(value)


def _text(value: Any) -> str:
    """As text that UTF-8 can hold: undecodable bytes of a file name become question marks."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable UTF-8 JSON."""
    text = json.dumps(to_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
