"""Synthetic studies as a data set on disk."""

from __future__ import annotations

import gzip
import io
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.atomic import write_atomically
from bundle.cases.modality import MODALITIES, Modality
from bundle.phantoms.ct import ct_phantom
from bundle.phantoms.histology import histology_phantom
from bundle.phantoms.phantom import Phantom
from bundle.phantoms.shapes import Array
from bundle.phantoms.xray import xray_phantom

_LOG = logging.getLogger(__name__)


_MAKERS: dict[Modality, tuple[Callable[..., Phantom], str]] = {
    "CT": (ct_phantom, "Synthetic CT torsos"),
    "X-ray": (xray_phantom, "Synthetic chest X-rays"),
    "H&E": (histology_phantom, "Synthetic H&E tiles"),
}


def write_phantoms(
    folder: Path,
    modality: Modality,
    seeds: Iterable[int],
    split: str = "training",
    progress: bool = False,
    **size: Any,
) -> Path:
    """Writes phantoms as a data set in the MONAI datalist form.

    Volumes become NIfTI (image int16, label uint8, one affine), 2-D images PNG, in `images/` and `labels/`.
    A datalist that is already there keeps its other splits; the named split is added or replaced.

    Args:
        folder: the data set's folder, created where needed.
        modality: 'CT', 'X-ray' or 'H&E'; one data set holds one modality.
        seeds: one study each.
        split: the list that names the studies, such as 'training', 'validation' or 'test'.
        progress: log a line per study.
        size: passed to the phantom: `shape` and `spacing` for CT, `size` for 2-D images.

    Returns:
        Path of `datalist.json`; the paths in it are relative to `folder`.

    Raises:
        ValueError: unknown modality, no seed, a split's name that the datalist needs for itself, or a
            folder that holds another modality.
    """
    if modality not in MODALITIES:
        raise ValueError(f"modality must be one of {', '.join(MODALITIES)}, not {modality!r}")
    seeds = list(seeds)
    if not seeds:
        raise ValueError("no seed is given: nothing to write")
    if split in ("name", "modality", "labels"):
        raise ValueError(f"a split cannot be called {split!r}")
    maker, name = _MAKERS[modality]
    path = folder / "datalist.json"
    datalist: dict[str, Any] = {"name": name, "modality": modality, "labels": {}}
    if path.exists():
        datalist = json.loads(path.read_text(encoding="utf-8"))
        if datalist.get("modality") != modality:
            raise ValueError(
                f"{path} lists {datalist.get('modality')}, not {modality}: choose another folder"
            )
    entries: list[dict[str, str]] = []
    for number, seed in enumerate(seeds, start=1):
        phantom = maker(seed, **size)
        file = f"{split}_{seed:05d}" + (".png" if phantom.affine is None else ".nii.gz")
        for part, array in (("images", phantom.image), ("labels", phantom.label)):
            _store(folder / part / file, _encode(array, phantom.affine))
        entry = {"image": f"images/{file}", "label": f"labels/{file}"}
        entries.append(entry | ({"text": phantom.text} if phantom.text else {}))
        datalist["labels"] = {"0": "background"} | {
            str(value): label for value, label in phantom.labels.items()
        }
        if progress:
            _LOG.info("%s %d of %d: seed %d", name, number, len(seeds), seed)
    datalist[split] = entries
    _store(path, (json.dumps(datalist, indent=1) + "\n").encode())
    return path


def _encode(array: Array, affine: NDArray[np.float64] | None) -> bytes:
    if affine is None:
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, format="PNG")
        return stream.getvalue()
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    # Without a time stamp in it the same study gives the same file.
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def _store(path: Path, content: bytes) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)
