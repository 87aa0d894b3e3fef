"""From the network's grid back to the patient's: probabilities resampled, then one label a voxel."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, MapTransform
from numpy.typing import NDArray
from scipy import ndimage

from bundle.cases.case import Case
from bundle.cases.modality_settings import HistologySettings
from bundle.cases.structures import Structures
from bundle.inference.inferer import READING, SegmentationInferer
from bundle.inference.prompts import prompt_warnings, side_notices
from bundle.networks.prompt_reading import PromptReading
from bundle.results.instances import Instances, find_instances
from bundle.results.plausibility import flags_of
from bundle.results.prediction import Prediction
from bundle.transforms.source_grid import SourceGrid, SourceMaps


class ToPredictiond(MapTransform):
    """Turn the output of `SegmentationInferer` into a `Prediction` under 'prediction', and 'pred' into its mask.

    That mask is as MONAI and servers such as MONAI Label write them: a MetaTensor, (1, X, Y, Z) uint8 with the
    input's affine, or for pictures (W, H). 'result' holds what a server says beside it.

    The probabilities, not a mask, are brought to the input's grid, so the borders between labels lie where
    the interpolated probabilities are equal. Where the prompt names structures, only they are kept; what it does
    not name had its say in where the borders lie.

    Args:
        preprocessing: whose spatial transforms are undone, see `bundle.transforms.preprocessing`: of pictures by
            MONAI's Invertd, of volumes slab by slab.
        structures: of the network.
        inferer: that the output is of, for its settings.
    """

    def __init__(
        self,
        preprocessing: Compose,
        structures: Structures,
        inferer: SegmentationInferer,
    ) -> None:
        super().__init__(keys="pred")
        self.invert = Invertd(
            "pred", transform=preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True
        )
        self.structures = structures
        self.inferer = inferer

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        case: Case = item["case"]
        known = self.structures.of_modality(case.modality)
        reading: PromptReading = item["pred"].meta[READING]
        labels = reading.named(known)
        values = np.array([0, *(value if value in labels else 0 for value in known)], dtype=np.uint8)
        kept = [channel for channel, value in enumerate(known, start=1) if value in labels]
        probability: NDArray[np.float32] | SourceMaps
        if case.is_volume:
            maps = _on_source_grid(item.pop("pred"), item["image"], case)
            mask, uncertainty = _labelled(maps, values)
            probability = maps.chosen(kept)
        else:
            result = np.asarray(self.invert(item).pop("pred"), dtype=np.float32).clip(0.0, 1.0)
            mask, uncertainty, probability = values[result[:-1].argmax(axis=0)], result[-1], result[kept]
        axis = case.head_foot_axis
        if self.inferer.modalities.ct.remove_fragments and axis is not None:
            pieces, ends = self.structures.least_pieces(), self.structures.least_ends()
            remove_fragments_of(mask, {value: pieces[value] for value in labels if value in pieces})
            trim_ends_of(mask, {value: ends[value] for value in labels if value in ends}, axis)
        prediction = Prediction(
            case=case,
            mask=mask,
            probability=probability,
            uncertainty=uncertainty,
            labels=labels,
            source_series=case.source_series,
            warnings=prompt_warnings(reading, self.structures, case.modality),
            reading=reading,
            settings=self.inferer.settings(case.modality) | _sides(reading, case),
            notices=side_notices(case, reading) if self.inferer.modalities.xray.sides != "image" else [],
            structures=self.structures,
            flags=flags_of(case, mask, labels, self.structures),
            instances=None
            if case.modality != "H&E" or isinstance(probability, SourceMaps)
            else picture_instances(
                mask, labels, self.structures, self.inferer.modalities.histology, probability
            ),
        )
        return {
            **item,
            "prediction": prediction,
            "pred": _mask_to_write(prediction),
            "result": _told(prediction),
        }


def picture_instances(
    mask: NDArray[np.uint8],
    labels: Mapping[int, str],
    structures: Structures,
    settings: HistologySettings,
    probability: NDArray[np.float32] | None = None,
) -> Instances | None:
    """The cells of an H&E image that is no slide; None where there are none among the labels, or none are wanted.

    Args:
        mask, labels: as of `bundle.results.Prediction`.
        structures: of the network.
        settings: of the run.
        probability: (K, H, W), a channel a label; None where it is not known, and 1 everywhere.
    """
    cells = structures.cells(labels)
    if not (settings.instances and cells):
        return None
    mpp = None if settings.image_mpp is None else (settings.image_mpp, settings.image_mpp)
    own = None if probability is None else _own_probability(mask, labels, probability)
    return find_instances(mask, own, cells, settings.image_pixel, mpp)


def _own_probability(
    mask: NDArray[np.uint8], labels: Iterable[int], probability: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Of each pixel, that of the label that the mask gives it."""
    own = np.zeros(mask.shape, dtype=np.float32)
    for value, channel in zip(labels, probability, strict=True):
        np.copyto(own, channel, where=mask == value)
    return own


def _mask_to_write(prediction: Prediction) -> MetaTensor:
    case, mask = prediction.case, torch.from_numpy(prediction.mask)
    if case.affine is None:
        return MetaTensor(mask.T)
    return MetaTensor(mask[None], affine=torch.from_numpy(case.affine))


def _sides(reading: PromptReading, case: Case) -> dict[str, str]:
    """Whose sides the prompt was taken to mean, of what has any."""
    return {"sides": "patient" if reading.means_patient else "image"} if case.modality == "X-ray" else {}


def _told(prediction: Prediction) -> dict[str, Any]:
    reference = prediction.case.reference
    return {
        "modality": prediction.case.modality,
        "found": bool(prediction.mask.any()),
        "structures": {name: value for value, name in prediction.labels.items()},
        "warnings": [
            *(reference.deidentify(warning) for warning in prediction.all_warnings),
            *prediction.notices,
            *(flag.text for flag in prediction.flags),
        ],
    }


def _on_source_grid(pred: Any, image: Any, case: Case) -> SourceMaps:
    assert case.affine is not None
    affine = np.asarray(image.affine, dtype=np.float64)
    grid = SourceGrid(affine, image.shape[1:], case.affine, case.array.shape[1:])
    return SourceMaps(torch.as_tensor(np.asarray(pred)), grid)


def _labelled(maps: SourceMaps, values: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Mask and uncertainty.

    Args:
        maps: probability of background and structures, and last the uncertainty.
        values: in the mask, of background and structures.
    """
    mask = np.empty(maps.shape[1:], dtype=np.uint8)
    uncertainty = np.empty(maps.shape[1:], dtype=np.float32)
    for slices, slab in maps.slabs():
        mask[..., slices] = values[slab[:-1].argmax(axis=0)]
        uncertainty[..., slices] = slab[-1]
    return mask, uncertainty


def joined(found: Mapping[int, Prediction], names: Mapping[int, str]) -> Prediction:
    """The findings of several prompts of one case as one prediction.

    Args:
        found: mask value -> what its prompt found, whatever structure that was; at least one.
        names: mask value -> name.

    Returns:
        Where several prompts found something, the most probable one has the voxel, and probabilities that add up to
        more than 1 are scaled to 1; the uncertainty is their mean, and the prompt all of them.
    """
    first = next(iter(found.values()))
    mask = np.zeros_like(first.mask)
    best = np.zeros(mask.shape, dtype=np.float32)
    probability = np.zeros((len(found), *mask.shape), dtype=np.float32)
    for channel, (value, prediction) in zip(probability, found.items(), strict=True):
        if len(prediction.probability):
            np.asarray(prediction.probability).sum(axis=0, out=channel)
        has = (prediction.mask > 0) & (channel > best)
        mask[has], best[has] = value, channel[has]
    probability /= np.maximum(probability.sum(axis=0), 1.0)
    asked = dict.fromkeys(prediction.case.reference.prompt for prediction in found.values())
    reference = replace(first.case.reference, prompt="; ".join(asked))
    labels = {value: names[value] for value in found}
    instances = first.instances
    if instances is not None:
        own = _own_probability(mask, labels, probability)
        cells = first.structures.cells(labels)
        instances = find_instances(mask, own, cells, instances.pixel, instances.mpp)
    return replace(
        first,
        case=replace(first.case, reference=reference),
        mask=mask,
        probability=probability,
        uncertainty=np.mean([prediction.uncertainty for prediction in found.values()], axis=0),
        labels=labels,
        flags=flags_of(first.case, mask, labels, first.structures),
        instances=instances,
        reading=None,
        warnings=list(dict.fromkeys(text for prediction in found.values() for text in prediction.warnings)),
    )


def remove_fragments_of(mask: NDArray[np.uint8], least: Mapping[int, float]) -> None:
    """Set to 0, in place, the face-connected pieces of each value that are less than a share of its largest.

    A second piece of like size stays: which of the two is the organ, size does not tell.

    Args:
        mask: (X, Y, Z) of labels.
        least: value -> the share, in [0, 1]; each value is looked at on its own.
    """
    boxes = ndimage.find_objects(mask)
    for value, share in least.items():
        box = boxes[value - 1] if value <= len(boxes) else None
        if box is None:
            continue
        part = mask[box]
        pieces, count = ndimage.label(part == value)
        if count > 1:
            # slice by slice: bincount makes 64-bit numbers of what it counts
            sizes = np.zeros(count + 1, dtype=np.int64)
            for one in pieces:
                sizes += np.bincount(one.ravel(), minlength=count + 1)
            sizes[0] = sizes[1:].max()  # what is not of the value stays as it is
            part[(sizes < share * sizes[0])[pieces]] = 0


def trim_ends_of(mask: NDArray[np.uint8], least: Mapping[int, float], axis: int) -> None:
    """Set to 0, in place, the slices at both ends of each value that show less of it than a share of its largest slice.

    Between the first and the last slice with that much everything stays.

    Args:
        mask: (X, Y, Z) of labels.
        least: value -> the share, in [0, 1]; each value is looked at on its own.
        axis: of the array, across the slices.
    """
    boxes = ndimage.find_objects(mask)
    for value, share in least.items():
        box = boxes[value - 1] if value <= len(boxes) else None
        if box is None:
            continue
        part = np.moveaxis(mask[box], axis, 0)
        areas = np.array([np.count_nonzero(one == value) for one in part])
        enough = np.flatnonzero(areas >= share * areas.max())
        for end in (part[: enough[0]], part[enough[-1] + 1 :]):
            end[end == value] = 0
