"""From the folder layout of LViT (QaTa-COV19, MoNuSeg, MosMedData+) to a datalist and a report on its splits.

The layout: ``Train_Folder``, ``Val_Folder`` and ``Test_Folder``, each with images in ``img``, masks in ``labelcol``
(named as the image, or with ``mask_`` before it) and a sheet ``*text*.xlsx`` or ``*text*.csv`` with the columns
'Image' and 'Description'. A sheet may also lie beside the folders, or in one of them for several.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from networkx.utils import UnionFind

from bundle.atomic import write_atomically
from bundle.cases.datalist import SPLITS, Entry
from bundle.cases.errors import CaseError
from bundle.cases.files import PICTURE_SUFFIXES, image_suffix
from bundle.cases.modality import Modality
from bundle.datasets.examining import Examined, examine
from bundle.datasets.leaks import Leaks, find_leaks, near_pairs
from bundle.datasets.sheets import Sheet, children, key_of, sheets_of
from bundle.datasets.split_report import build_report, relative

_FOLDERS = {
    "training": ("train_folder",),
    "validation": ("val_folder", "validation_folder"),
    "test": ("test_folder",),
}
_WORDS = {"training": "train", "validation": "val", "test": "test"}


def import_lvit(
    root: Path,
    output: Path,
    modality: Modality,
    label_name: str,
    *,
    pattern: re.Pattern[str] | None = None,
    validation_share: float = 0.1,
    seed: int = 0,
    drop_leaks: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Write the datalist of a folder in LViT's layout, and ``<output>.report.json`` beside it.

    Images whose mask is missing, cannot be read, has another size or is not binary are left out.

    Args:
        root: the folder that holds Train_Folder and Test_Folder.
        output: the datalist to write; paths in it are relative to its folder.
        modality: of all images; the 2-D images of this layout cannot be CT, which is volumes in HU.
        label_name: what the foreground of the masks is.
        pattern: finds the patient in a file name, see `examining.compile_patient_pattern`; None tries known namings.
        validation_share: of the training cases, put aside where there is no Val_Folder. Patients stay whole, and so
            do groups of identical or near-identical images.
        seed: of the choice of the patients that are put aside.
        drop_leaks: leave out of training and validation what is also in test: its patients, and images that are
            identical or near-identical to its own.
        progress: show a progress bar.

    Returns:
        The report, see `split_report.build_report`; 'failed' names what was left out, 'dropped' what leaked.

    Raises:
        CaseError: the layout or a sheet cannot be read, or nothing in it can be used.
        OSError: the results cannot be written.
    """
    if modality == "CT":
        raise CaseError(
            root,
            "holds 2-D images, which cannot be CT here, since CT is in HU",
            "state X-ray, the modality of grey images",
        )
    if not 0 <= validation_share < 1:
        raise CaseError(
            "--validation-share", f"is {validation_share:g}", "give a share of at least 0 and below 1"
        )
    layout = _Layout(root, modality, label_name)
    examined = examine(layout.splits, pattern, progress=progress)
    usable = [one for one in examined if not one.failure and one.entry.label is not None]
    if not usable:
        problem = "holds no image with a mask that can be used"
        first = next((one.failure for one in examined if one.failure), "")
        raise CaseError(
            root, f"{problem} ({first.rstrip('.')})" if first else problem, "check its labelcol folders"
        )
    training = [one for one in usable if one.split == "training"]
    if training and "validation" not in layout.splits and validation_share > 0:
        aside = _put_aside(root, training, validation_share, seed)
        usable = [replace(one, split="validation") if one.entry.image in aside else one for one in usable]
        examined = [replace(one, split="validation") if one.entry.image in aside else one for one in examined]
    leaks = find_leaks(usable)
    dropped = _in_test(usable, leaks) if drop_leaks else {}
    kept = [one for one in usable if (one.split, one.entry.image) not in dropped]
    folder = Path(os.path.abspath(output.parent))
    report = build_report(examined, leaks, folder)
    report["texts"]["contradictory"] = layout.contradictory()
    report["masks_without_image"] = [relative(mask, folder) for mask in layout.unused_masks]
    report["texts_without_image"] = layout.unused_texts()
    report["failed"] += [
        {
            "image": relative(one.entry.image, folder),
            "split": one.split,
            "error": str(CaseError(one.entry.image, "has no mask", "add one to labelcol")),
        }
        for one in examined
        if one.entry.label is None and not one.failure
    ]
    report["dropped"] = [
        {"image": relative(image, folder), "split": split, "reasons": sorted(reasons)}
        for (split, image), reasons in dropped.items()
    ]
    datalist = {
        "name": root.resolve().name,
        "modality": modality,
        "labels": {"0": "background", "1": label_name},
        **{split: [_item(one.entry, folder) for one in kept if one.split == split] for split in SPLITS},
    }
    _write_json(output.with_name(f"{output.name}.report.json"), report)
    _write_json(output, datalist)
    return report


def _item(entry: Entry, folder: Path) -> dict[str, str]:
    label = {} if entry.label is None else {"label": relative(entry.label, folder)}
    return {"image": relative(entry.image, folder), **label, "text": entry.text}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# --- splits ----------------------------------------------------------------------------------------------


def _put_aside(root: Path, training: Sequence[Examined], share: float, seed: int) -> set[Path]:
    """The images of a validation split: whole groups, in an order that seed and names alone decide."""
    groups = _groups(training)
    if len(groups) < 2:
        raise CaseError(
            root,
            "has training images of one patient only, of whom none can be put aside for validation",
            "add a Val_Folder, state --patient-pattern, or state --validation-share 0",
        )

    def order(group: list[Examined]) -> str:
        names = min(one.entry.image.name for one in group)
        return hashlib.sha256(f"{seed}/{names}".encode("utf-8", "surrogateescape")).hexdigest()

    aside: set[Path] = set()
    for group in sorted(groups, key=order)[:-1]:
        if len(aside) >= share * len(training):
            break
        aside.update(one.entry.image for one in group)
    return aside


def _groups(examined: Sequence[Examined]) -> list[list[Examined]]:
    """Images that belong together: of one patient, or of two whose images are the same to the eye."""
    joined = UnionFind()
    for one in examined:
        joined.union(one.entry.image, one.patient, ("pixels", one.digest))
    for first, second, _ in near_pairs(examined):
        joined.union(first.entry.image, second.entry.image)
    groups: defaultdict[Any, list[Examined]] = defaultdict(list)
    for one in examined:
        groups[joined[one.entry.image]].append(one)
    return list(groups.values())


def _in_test(examined: Sequence[Examined], leaks: Leaks) -> dict[tuple[str, Path], set[str]]:
    """(split, image) outside test -> what it shares with test."""
    found: defaultdict[tuple[str, Path], set[str]] = defaultdict(set)
    shared: list[tuple[str, Iterable[Examined]]] = [
        *(("patient", group) for group in leaks.patients.values()),
        *(("identical image", group) for group in leaks.identical),
        *(("near-identical image", (first, second)) for first, second, _ in leaks.near_identical),
    ]
    for reason, group in shared:
        members = list(group)
        if any(one.split == "test" for one in members):
            for one in members:
                if one.split != "test":
                    found[one.split, one.entry.image].add(reason)
    places = ((one.split, one.entry.image) for one in examined)
    return {place: found[place] for place in places if place in found}


# --- folders ---------------------------------------------------------------------------------------------


class _Layout:
    """What the folders hold: the entries of each split, and what belongs to none of them."""

    def __init__(self, root: Path, modality: Modality, label_name: str) -> None:
        self.modality: Modality = modality
        self.labels = {1: label_name}
        self.unused_masks: list[Path] = []
        self.splits: dict[str, list[Entry]] = {}
        root = Path(os.path.abspath(root))
        inside = {child.name.lower(): child for child in children(root) if child.is_dir()}
        folders = {
            split: next(inside[name] for name in names if name in inside)
            for split, names in _FOLDERS.items()
            if any(name in inside for name in names)
        }
        if not folders:
            raise CaseError(
                root, "holds neither Train_Folder nor Test_Folder", "name the folder that holds them"
            )
        self.sheets = {folder: sheets_of(folder) for folder in (root, *folders.values())}
        for split, folder in folders.items():
            self.splits[split] = self._entries(folder, self._searched(split, folder, root))

    def contradictory(self) -> list[str]:
        return [name for sheet in self._all_sheets() for name in sheet.contradictory]

    def unused_texts(self) -> list[str]:
        return [
            name for sheet in self._all_sheets() for key, name in sheet.names.items() if key not in sheet.used
        ]

    def _all_sheets(self) -> list[Sheet]:
        return [sheet for sheets in self.sheets.values() for sheet in sheets]

    def _searched(self, split: str, folder: Path, root: Path) -> list[Sheet]:
        """The sheets that may hold a split's texts, the most particular first."""

        def order(sheet: Sheet) -> tuple[bool, bool]:
            return sheet.path.parent != folder, _WORDS[split] not in sheet.path.name.lower()

        return sorted(self._all_sheets(), key=order)

    def _entries(self, folder: Path, sheets: list[Sheet]) -> list[Entry]:
        inside = {child.name.lower(): child for child in children(folder) if child.is_dir()}
        if "img" not in inside or "labelcol" not in inside:
            missing = "img" if "img" not in inside else "labelcol"
            raise CaseError(folder, f"has no folder '{missing}'", "arrange it as LViT does")
        masks: defaultdict[str, list[Path]] = defaultdict(list)
        for mask in _images(inside["labelcol"]):
            masks[key_of(mask.name)].append(mask)
        used: set[Path] = set()
        entries: list[Entry] = []
        for image in _images(inside["img"]):
            key = key_of(image.name)
            keys = (key, f"mask_{key}")
            # Of an image and a mask that both lie in labelcol, the lossless one is the mask.
            candidates = sorted(masks.get(keys[0]) or masks.get(keys[1], []), key=_is_lossy)
            used.update(candidates)
            text = next(filter(None, (sheet.find(keys) for sheet in sheets)), "")
            mask_path = candidates[0] if candidates else None
            entries.append(Entry(image, mask_path, text, self.modality, self.labels))
        self.unused_masks += [mask for group in masks.values() for mask in group if mask not in used]
        return entries


def _is_lossy(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg")


def _images(folder: Path) -> list[Path]:
    return [child for child in children(folder) if image_suffix(child).lower() in PICTURE_SUFFIXES]
