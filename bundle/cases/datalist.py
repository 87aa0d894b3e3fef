"""Datalists: the JSON files that name images with their labels, text and modality, by split."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.cases.dicom.series import DicomSeries
from bundle.cases.errors import CaseError
from bundle.cases.files import read_json
from bundle.cases.modality import MODALITIES, Modality

SPLITS = ("training", "validation", "test")

MOST_BYTES = 200_000_000
_SPELLINGS: dict[str, Modality] = {
    "ct": "CT",
    "x-ray": "X-ray",
    "xray": "X-ray",
    "cxr": "X-ray",
    "h&e": "H&E",
    "he": "H&E",
}


@dataclass(frozen=True)
class Entry:
    """One image of a datalist, with its paths made absolute.

    Attributes:
        image: the image file.
        label: the ground truth, where the entry has one.
        instances: the number of each pixel's cell in the ground truth, where the entry has them.
        text: what the entry says of the image, as written; empty where it says nothing.
        modality: the entry's own, else the datalist's, else None.
        labels: value in the ground truth -> name of the structure, background left out; of what the entry's
            'labelled_classes' name alone, where it has that.
        series: of DICOM files, their series.
        listed: whether it comes from a datalist.
    """

    image: Path
    label: Path | None = None
    text: str = ""
    modality: Modality | None = None
    labels: Mapping[int, str] = field(default_factory=dict)
    series: DicomSeries | None = None
    listed: bool = False
    instances: Path | None = None


def read_datalist(path: Path, split: str | None = None, text_key: str = "text") -> list[Entry]:
    """Read the entries of one split, or of all splits.

    A split is a list of objects with 'image' and perhaps 'label', 'text', 'modality', 'instances', a picture
    that numbers the cells of the label, and 'labelled_classes', the values that the label may hold where not
    all structures of the list are labelled in it; or a list of strings, which name images of the lists of
    objects and stand for their entries. In the three usual splits, and where there is no list of objects,
    strings may also name images that have no entry.

    Args:
        path: the JSON file; the paths in it are relative to its folder.
        split: the key of a list; None takes every list of objects, and of the three usual splits also
            those of strings.
        text_key: field of an entry that is its text. Entries without it have no text.

    Returns:
        The entries in the order of the file. Without `split`, each image stands once, as first listed.

    Raises:
        CaseError: the file is not a datalist, has no such split, has texts but none under `text_key`,
            names one image twice in a split with different text or label, or names one that has no entry.
    """
    content = read_json(path, MOST_BYTES)
    if not isinstance(content, dict):
        raise CaseError(path, "is not a datalist", "make it a JSON object with lists of images")
    lists = {key: value for key, value in content.items() if _is_list_of_entries(key, value, split)}
    if split is not None and split not in lists:
        known = ", ".join(k for k, v in content.items() if _is_list_of_entries(k, v, None)) or "none"
        raise CaseError(path, f"has no split '{split}'", f"use one of its splits: {known}")
    if not lists:
        raise CaseError(path, "is not a datalist", "give it a list of objects that have an 'image'")
    parser = _Parser(path, content, text_key)
    objects: dict[Path, Entry] = {}
    parsed: dict[str, list[Entry]] = {}
    # Lists of strings come last here, since they may name images of any other list.
    for key in sorted(lists, key=lambda key: all(isinstance(item, str) for item in lists[key])):
        parsed[key] = parser.entries(key, lists[key], objects)
    parser.check_text_key()
    entries: dict[Path, Entry] = {}
    for key in lists if split is None else (split,):
        for entry in parsed[key]:
            entries.setdefault(entry.image, entry)
    return list(entries.values())


def read_items(path: Path, items: Iterable[tuple[str, Any]], text_key: str) -> list[Entry]:
    """The entries of items that are written as in a datalist, each image once.

    Args:
        path: the file that they are from; paths in them are relative to its folder.
        items: where in the file it stands, and an object with 'image' or a path.
        text_key: as of `read_datalist`.

    Raises:
        CaseError: one is no entry, there are texts but none under `text_key`, or an image stands there twice with
            different values.
    """
    parser = _Parser(path, {}, text_key)
    found: dict[Path, Entry] = {}
    for where, item in items:
        parser.add(parser.entry(item, where), where, found)
    parser.check_text_key()
    return list(found.values())


def is_datalist_name(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def parse_modality(value: object) -> Modality | None:
    """The modality that a word stands for, in the usual spellings; None where it stands for none."""
    return _SPELLINGS.get(value.strip().lower()) if isinstance(value, str) else None


def _is_list_of_entries(key: str, value: object, split: str | None) -> bool:
    if not isinstance(value, list) or not value:
        return False
    if any(isinstance(item, dict) for item in value):
        return True
    return all(isinstance(item, str) for item in value) and (key in SPLITS or key == split)


class _Parser:
    """Checks and types the values of one datalist."""

    def __init__(self, path: Path, content: Mapping[str, Any], text_key: str) -> None:
        self.path = path
        self.text_key = text_key
        self.fields: set[str] = set()
        self.folder = Path(os.path.abspath(path.parent))
        self.modality = self._modality(content.get("modality"), "'modality'")
        self.labels = self._labels(content.get("labels"))

    def entries(self, key: str, items: list[Any], objects: dict[Path, Entry]) -> list[Entry]:
        """The entries of one list; `objects` collects those that are objects, for lists that name them."""
        found: dict[Path, Entry] = {}
        must_be_known = bool(objects) and key not in SPLITS and all(isinstance(item, str) for item in items)
        for number, item in enumerate(items, start=1):
            where = f"entry {number} of '{key}'"
            entry = self.entry(item, where)
            if isinstance(item, str):
                if must_be_known and entry.image not in objects:
                    raise self._error(f"{where} names {item}, which no other list has", "name it as they do")
                entry = objects.get(entry.image, entry)
            else:
                objects.setdefault(entry.image, entry)
            self.add(entry, where, found)
        return list(found.values())

    def add(self, entry: Entry, where: str, found: dict[Path, Entry]) -> None:
        """Take an entry in, unless it says something else of an image than an earlier one."""
        if found.setdefault(entry.image, entry) != entry:
            raise self._error(f"{where} lists an image again with different values", "keep one of them")

    def check_text_key(self) -> None:
        """Refuse a `text_key` that no entry has where texts stand under the usual one."""
        if "text" in self.fields and self.text_key not in self.fields:
            others = sorted(field for field in self.fields if field.startswith("text"))
            raise self._error(
                f"has no texts under text_key '{self.text_key}'", f"use one of {', '.join(others)}"
            )

    def entry(self, item: Any, where: str) -> Entry:
        """One entry of a list."""
        fields = {"image": item} if isinstance(item, str) else item
        if not isinstance(fields, dict):
            raise self._error(f"{where} is not an object", "give it an 'image'")
        image = self._file(fields, "image", where)
        if image is None:
            raise self._error(f"{where} has no 'image'", "name its image file")
        self.fields.update(fields)
        text = fields.get(self.text_key)
        if text is not None and not isinstance(text, str):
            raise self._error(f"'{self.text_key}' in {where} is not a string", "put it in quotes")
        own = self._modality(fields.get("modality"), f"'modality' in {where}")
        label = self._file(fields, "label", where)
        labels = self._labelled(fields, where)
        instances = self._file(fields, "instances", where)
        modality = own or self.modality
        return Entry(image, label, text or "", modality, labels, listed=True, instances=instances)

    def _labelled(self, fields: Mapping[str, Any], where: str) -> dict[int, str]:
        """What the entry's label says anything of: all structures of the list, or those in 'labelled_classes'."""
        values = fields.get("labelled_classes")
        if values is None:
            return self.labels
        known = isinstance(values, list) and all(
            type(value) is int and value in self.labels for value in values
        )
        if not known or not values:
            raise self._error(
                f"'labelled_classes' in {where} is no list of values in 'labels'",
                "give the values that are labelled, without 0",
            )
        return {value: name for value, name in self.labels.items() if value in values}

    def _file(self, fields: Mapping[str, Any], key: str, where: str) -> Path | None:
        value = fields.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value or "\0" in value:
            raise self._error(f"'{key}' in {where} is not a file path", "name one file")
        return Path(os.path.abspath(self.folder / value))

    def _modality(self, value: Any, where: str) -> Modality | None:
        # The Medical Segmentation Decathlon writes {"0": "CT"}.
        if isinstance(value, dict) and len(value) == 1:
            value = next(iter(value.values()))
        if value is None:
            return None
        modality = parse_modality(value)
        if modality is None:
            raise self._error(f"{where} is not a modality known here", f"use one of {', '.join(MODALITIES)}")
        return modality

    def _labels(self, value: Any) -> dict[int, str]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._error("'labels' is not an object", "map label values to names")
        labels: dict[int, str] = {}
        for key, name in value.items():
            # nnU-Net writes name -> value.
            number, name = (name, key) if isinstance(name, int) else (key, name)
            if not str(number).isdecimal() or int(number) > 255 or not isinstance(name, str):
                raise self._error(f"'labels' holds '{key}'", "map whole numbers from 0 to 255 to names")
            if int(number) != 0:
                labels[int(number)] = name
        return labels

    def _error(self, problem: str, remedy: str) -> CaseError:
        return CaseError(self.path, problem, remedy)
