"""From a case on disk to tensors: the first transform of every pipeline."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import SpaceKeys

from bundle.cases import Case, CaseError, CaseReference, read_case, read_label
from bundle.cases.modality import MODALITIES, Modality, Photometric
from bundle.cases.structures import Structures

#: Endings of masks that a server may be asked for, the usual one first.
VOLUME_RESULTS = (".nii.gz", ".nii", ".nrrd")
PICTURE_RESULTS = (".png", ".tif", ".tiff", *VOLUME_RESULTS)
#: Under which MONAI Label looks for that ending.
RESULT_EXTENSION = "result_extension"
#: What a request may not bring: entries that the pipeline makes, or does without.
_OWN = frozenset(("case", "label", "modality", "named", "pred", "prediction", "result"))


def reference_item(reference: CaseReference, with_label: bool = False) -> dict[str, Any]:
    """A case as an item of a MONAI dataset: what `LoadCased` expects.

    Args:
        with_label: let the label go through the pipeline too, as training needs it.
    """
    item: dict[str, Any] = {"image": str(reference.image), "reference": reference}
    return {**item, "label": str(reference.label)} if with_label else item


class LoadCased(MapTransform):
    """Read a case and check it.

    An item of a dataset has a 'reference'. One that a server such as MONAI Label made of a request has a path under
    'image' and may have 'prompt', 'modality' and 'result_extension'; nothing else of it is believed.

    Adds to the item
        image: MetaTensor (C, *spatial) float32 with the affine in mm (identity for 2-D images); its meta holds
            case_id, modality and prompt, so that an inferer that sees the tensor alone knows them.
        case: the `Case` as read, for whoever writes results in its geometry.
        label: where the item names one, MetaTensor (1, *spatial) uint8, values as in the structures.
        result_extension: of what a server made, the ending of the mask.

    Args:
        structures: of the network.
        modality: for cases that do not state theirs; None to tell it from the file.
        photometric: of X-rays; None for what the file says.

    Raises:
        CaseError: the case cannot be used; see `bundle.cases`.
    """

    def __init__(
        self,
        structures: Structures,
        modality: Modality | None = None,
        photometric: Photometric | None = None,
    ) -> None:
        super().__init__(keys="image")
        if photometric not in (None, *get_args(Photometric)):
            raise ValueError(f"photometric must be MONOCHROME1 or MONOCHROME2, not {photometric!r}")
        self.structures = structures
        self.modality = modality
        self.photometric = photometric

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        reference = item.pop("reference", None)
        asked = not isinstance(reference, CaseReference)
        if asked:
            reference = self._requested(item)
        if reference.modality is None and self.modality is not None:
            reference = replace(reference, modality=self.modality)
        case = read_case(reference)
        if case.source_series is None:
            # A DICOM film has been brought to MONOCHROME2 by what its own header says.
            case.photometric = self.photometric or case.photometric
        if asked:
            item[RESULT_EXTENSION] = _result_extension(item.get(RESULT_EXTENSION), case)
        affine = (
            torch.from_numpy(case.affine) if case.affine is not None else torch.eye(4, dtype=torch.float64)
        )
        meta = {
            "space": SpaceKeys.RAS,
            "case_id": reference.id,
            "modality": case.modality,
            "prompt": reference.prompt,
            "photometric": case.photometric,
            "full_scale": case.full_scale or 0.0,
            "means_patient": case.means_patient,
            "film_turn": case.film_turn if case.modality == "X-ray" else None,
            "filename_or_obj": str(reference.image),
        }
        item["case"] = case
        item["image"] = MetaTensor(torch.from_numpy(case.array), affine=affine, meta=dict(meta))
        if "label" in item:
            label = self._mapped(read_label(reference, case), reference)
            item["label"] = MetaTensor(torch.from_numpy(label)[None], affine=affine.clone(), meta=dict(meta))
        return item

    def _requested(self, item: dict[Hashable, Any]) -> CaseReference:
        """Of an item that a server made. What it brought under the names of this pipeline's own entries is dropped."""
        image = Path(str(item["image"]))
        prompt, modality = item.get("prompt"), item.get("modality")
        # MONAI's Spacingd takes everything called image_... for meta data and fails on MONAI Label's image_path
        for key in [key for key in item if key in _OWN or str(key).startswith("image_")]:
            del item[key]
        if modality not in (None, "", *MODALITIES):
            raise CaseError(
                image, "came with an unknown modality", f"send one of {', '.join(MODALITIES)}, or none"
            )
        return CaseReference(
            id=image.name.split(".")[0],
            image=image,
            prompt=prompt if isinstance(prompt, str) else "",
            modality=modality or None,
        )

    def _mapped(self, label: np.ndarray, reference: CaseReference) -> np.ndarray:
        if not reference.labels:
            problem = "has a label, but nothing says what its values mean"
            raise CaseError(reference.image, problem, "add 'labels': {'1': name, ...} to the datalist")
        table = np.zeros(256, dtype=np.uint8)
        for value, name in reference.labels.items():
            table[value] = self.structures.value(name)
        return table[label]


def _result_extension(wanted: Any, case: Case) -> str:
    known = VOLUME_RESULTS if case.is_volume else PICTURE_RESULTS
    if not wanted:
        return known[0]
    if wanted not in known:
        problem = "came with a result_extension that masks of it cannot have"
        raise CaseError(case.reference.image, problem, f"send one of {', '.join(known)}, or none")
    return str(wanted)
