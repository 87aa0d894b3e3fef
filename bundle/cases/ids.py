"""Case ids: unique names that are safe as folder names on every file system."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from bundle.cases.files import image_suffix

MAX_LENGTH = 100

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
# Names that stand for devices on Windows, with or without a suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
#: Folder in a run's folder, of the journals of its parts.
PARTS = "parts"
#: What a run writes beside the folders of its cases.
RUN_FILES = frozenset(
    ("run.json", "journal.jsonl", "index.html", "viewer", "metrics.csv", "summary.json", PARTS)
)
_JOINT = "__"
_HASH_LENGTHS = (8, 16, 32, 64)


def case_ids(paths: Sequence[Path]) -> dict[Path, str]:
    """Give each path an id: its file name without the image suffix where that is enough.

    Where it is not, the shortest chain of parent folders that tells the paths apart is put before it,
    then the suffix after it, then a hash of the path. Ids that differ in case only count as equal. The
    ids depend on which paths there are, not on their order.

    Args:
        paths: absolute paths; one given twice counts once.
    """
    groups: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(set(paths)):
        groups[_stem(path).lower()].append(path)
    wanted: dict[Path, str] = {}
    for group in groups.values():
        wanted.update(_distinguished(group))
    return _unique({path: _bounded(name) for path, name in wanted.items()})


def series_ids(series: Sequence[tuple[str, str]], taken: Iterable[str]) -> list[str]:
    """Give each DICOM series an id: the name wanted for it, with its hash after it where that is not its own.

    Parent folders, which tell files apart, are not put before it: exports name them after patients.

    Args:
        series: name wanted, and a hash that tells series apart; the name may be empty.
        taken: ids that others have.
    """
    names = [_bounded(_safe(name) or "series") for name, _ in series]
    counts = _spelled([*names, *taken])
    ids = []
    for (wanted, digest), name in zip(series, names, strict=True):
        alone = bool(_safe(wanted)) and counts[name.lower()] == 1
        ids.append(name if alone else f"{name[: MAX_LENGTH - len(digest) - 1]}-{digest}")
    used = _spelled([*ids, *taken])
    return [one if used[one.lower()] == 1 else f"{one}-{number}" for number, one in enumerate(ids, start=1)]


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text).strip(".")


def _stem(path: Path) -> str:
    suffix = image_suffix(path)
    return _safe(path.name[: len(path.name) - len(suffix)]) or "case"


def _distinguished(group: list[Path]) -> dict[Path, str]:
    """Prefix parent folders, then append suffixes, as far as a group that shares its stem needs it."""
    if len(group) == 1:
        return {group[0]: _stem(group[0])}
    prefixed = _with_parents(group)
    taken = _spelled(prefixed.values())
    return {
        path: name if taken[name.lower()] == 1 else f"{name}_{_safe(image_suffix(path).strip('.')) or 'none'}"
        for path, name in prefixed.items()
    }


def _with_parents(group: list[Path]) -> dict[Path, str]:
    parents = {path: [_safe(part) or "_" for part in path.parent.parts[1:]] for path in group}
    deepest = max(len(parts) for parts in parents.values())
    best: dict[Path, str] = {}
    most = 0
    for depth in range(deepest + 1):
        names = {
            path: _JOINT.join([*parts[max(0, len(parts) - depth) :], _stem(path)])
            for path, parts in parents.items()
        }
        distinct = len(_spelled(names.values()))
        if distinct > most:
            best, most = names, distinct
        if distinct == len(group):
            break
    return best


def _spelled(names: Iterable[str]) -> Counter[str]:
    return Counter(name.lower() for name in names)


def _bounded(name: str) -> str:
    if _DEVICES.fullmatch(name) or name.lower() in RUN_FILES:
        name = f"case_{name}"
    if len(name) <= MAX_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[: _HASH_LENGTHS[0]]
    return f"{name[: MAX_LENGTH - len(digest) - 1]}-{digest}"


def _unique(names: dict[Path, str]) -> dict[Path, str]:
    """Append a hash of the path wherever two names still fall together."""
    for length in _HASH_LENGTHS:
        taken = _spelled(names.values())
        if len(taken) == len(names):
            break
        names = {
            path: name if taken[name.lower()] == 1 else _hashed(path, name, length)
            for path, name in names.items()
        }
    return names


def _hashed(path: Path, name: str, length: int) -> str:
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:length]
    return f"{name[: MAX_LENGTH - length - 1]}-{digest}"
