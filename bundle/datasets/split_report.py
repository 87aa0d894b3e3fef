"""The report on the splits of a data set: what leaks, and which masks and texts are faulty."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.cases.datalist import SPLITS, read_datalist
from bundle.cases.errors import CaseError
from bundle.datasets.examining import Examined, examine, listed_values
from bundle.datasets.leaks import Leaks, find_leaks, splits_of

_EXAMPLES = 5


def datalist_report(
    path: Path, pattern: re.Pattern[str] | None = None, *, progress: bool = False
) -> dict[str, Any]:
    """The report over every list of a datalist that holds images.

    Raises:
        CaseError: the file is not a datalist, or none of its images can be read.
    """
    read_datalist(path)
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    splits = {
        key: read_datalist(path, key)
        for key, value in content.items()
        # A list of strings names images of other lists: a selection, and no split of its own.
        if isinstance(value, list) and value and (key in SPLITS or any(isinstance(i, dict) for i in value))
    }
    examined = examine(splits, pattern, progress=progress)
    if all(one.image_error for one in examined):
        problem = f"names no image that can be read ({examined[0].image_error.rstrip('.')})"
        raise CaseError(path, problem, "check its folder")
    return build_report(examined, find_leaks(examined), Path(os.path.abspath(path.parent)))


def build_report(examined: Sequence[Examined], leaks: Leaks, folder: Path) -> dict[str, Any]:
    """Everything that was found, ready for JSON; paths are relative to `folder`."""

    def named(path: Path) -> str:
        return relative(path, folder)

    def by_split(images: Iterable[Examined]) -> dict[str, list[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for one in images:
            found[one.split].append(named(one.entry.image))
        return dict(found)

    def masks(error: Callable[[Examined], str]) -> list[dict[str, str]]:
        return [{"label": named(label), "error": error(one)} for one, label in with_mask if error(one)]

    with_mask = [(one, one.entry.label) for one in examined if one.entry.label is not None]
    patients = {
        split: {one.patient for one in examined if one.split == split} for split in splits_of(examined)
    }
    texts = Counter(one.entry.text for one in examined if one.entry.text)
    text_splits: defaultdict[str, set[str]] = defaultdict(set)
    for one in examined:
        text_splits[one.entry.text].add(one.split)
    return {
        "cases": dict(Counter(one.split for one in examined)),
        "patients": {split: len(found) for split, found in patients.items()},
        "names_without_patient": sum(not one.has_patient for one in examined),
        "leaks": {
            "patients": [
                {"patient": key, "images": by_split(group)} for key, group in leaks.patients.items()
            ],
            "identical_images": [by_split(group) for group in leaks.identical],
            "near_identical_images": [
                {"bits": bits, "images": by_split(pair)} for *pair, bits in leaks.near_identical
            ],
            "file_names": [
                {"name": key, "images": by_split(group)} for key, group in leaks.file_names.items()
            ],
        },
        "texts": {
            "missing": [named(one.entry.image) for one in examined if not one.entry.text],
            "distinct": len(texts),
            "shared": sum(count > 1 for count in texts.values()),
            "cases_with_shared_text": sum(count for count in texts.values() if count > 1),
            "shared_across_splits": sum(len(text_splits[text]) > 1 for text in texts),
        },
        "masks": {
            "missing": [named(one.entry.image) for one in examined if one.entry.label is None],
            "unreadable": masks(lambda one: one.mask_error),
            "other_size": masks(lambda one: one.size_error),
            "empty": [named(label) for one, label in with_mask if one.is_empty],
            "unexpected_values": [
                {"label": named(label), "values": list(one.unexpected)}
                for one, label in with_mask
                if one.unexpected
            ],
        },
        "failed": [
            {"image": named(one.entry.image), "split": one.split, "error": one.failure}
            for one in examined
            if one.failure
        ],
    }


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """The report for a terminal: a line a finding, and the first few examples of it."""
    leaks, texts, masks = report["leaks"], report["texts"], report["masks"]
    lines = [
        f"{split}: {count} cases of {report['patients'][split]} patients"
        for split, count in report["cases"].items()
    ]
    if report["names_without_patient"]:
        lines.append(
            f"{report['names_without_patient']} file names show no patient and count as a patient each"
        )
    findings: list[tuple[str, list[str] | None]] = [
        (
            "patients in more than one split",
            [f"{i['patient']}: {_split_counts(i)}" for i in leaks["patients"]],
        ),
        ("identical images in more than one split", [_listed(group) for group in leaks["identical_images"]]),
        (
            "near-identical pairs of images across splits",
            [f"{i['bits']} of 255 bits: {_listed(i['images'])}" for i in leaks["near_identical_images"]],
        ),
        ("file names in more than one split", [item["name"] for item in leaks["file_names"]]),
        ("cases without a text", texts["missing"]),
        ("texts of one image that differ, of which the first was taken", texts.get("contradictory")),
        ("images without a mask", masks["missing"]),
        ("masks that cannot be read", [item["error"] for item in masks["unreadable"]]),
        ("masks of another size than their image", [item["error"] for item in masks["other_size"]]),
        ("empty masks", masks["empty"]),
        (
            "masks with values that no label has",
            [f"{item['label']}: {listed_values(item['values'])}" for item in masks["unexpected_values"]],
        ),
        ("masks without an image", report.get("masks_without_image")),
        ("rows of text without an image", report.get("texts_without_image")),
        (
            "dropped because the test split has them",
            [item["image"] for item in report["dropped"]] if "dropped" in report else None,
        ),
        ("failed", [item["error"] for item in report["failed"]]),
    ]
    for title, examples in findings:
        if examples is None:  # of the import of a folder, and this is the report on a datalist
            continue
        lines.append(f"{title}: {len(examples)}")
        lines.extend(f"  {example}" for example in examples[:_EXAMPLES])
        if len(examples) > _EXAMPLES:
            lines.append("  ...")
    lines.append(
        f"texts: {texts['distinct']} distinct, {texts['shared']} of them on several cases "
        f"({texts['cases_with_shared_text']} cases), {texts['shared_across_splits']} in more than one split"
    )
    # A file name may hold bytes that are no UTF-8.
    return [line.encode("utf-8", "backslashreplace").decode("utf-8") for line in lines]


def relative(path: Path, folder: Path) -> str:
    """A path as a datalist in `folder` writes it."""
    return Path(os.path.relpath(path, folder)).as_posix()


def _split_counts(item: Mapping[str, Any]) -> str:
    return ", ".join(f"{len(images)} {split}" for split, images in item["images"].items())


def _listed(images: Mapping[str, list[str]]) -> str:
    return " = ".join(f"{split} {name}" for split, names in images.items() for name in names)
