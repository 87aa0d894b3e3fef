"""Files of a folder that are no input, and the sentence that names them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.cases.dicom.series import Exclusion
from bundle.cases.files import image_suffix
from bundle.cases.privacy import Naming

_NAMED = 5  # files that a sentence names
#: Of what belongs to an image of the same name: its prompt, its voxels, what converters say of it.
_COMPANIONS = (".txt", ".json", ".raw.gz", ".zraw", ".raw", ".bval", ".bvec")
_OF_SERIES = frozenset(("prompt.txt", "prompt.json", "report.txt", "report.json"))
_SYSTEM = frozenset(("thumbs.db", "desktop.ini", "ehthumbs.db"))


@dataclass(frozen=True)
class LeftOut(Exclusion):
    """Files of a folder that are not segmented."""

    def __str__(self) -> str:
        return f"{self.input}: {self.reason}."


def left_out(folder: Path, what: Sequence[str], names: Iterable[str], naming: Naming) -> LeftOut:
    """What is left out of a folder.

    Args:
        folder: that the user named, or that lies in it.
        what: of one, and of several with a place for their number.
        names: of the files or folders.
    """
    listed = sorted(map(naming.path, names))
    more = ", ..." if len(listed) > _NAMED else ""
    phrase = what[0] if len(listed) == 1 else what[1].format(len(listed))
    return LeftOut(naming.path(folder), f"{phrase}: {', '.join(listed[:_NAMED])}{more}", len(listed))


def unread(others: Iterable[Path], images: Iterable[Path], dicom: Collection[Path]) -> list[Path]:
    """The files that nothing reads, without what belongs to an image and what systems leave behind."""
    stems = {path.with_name(path.name[: len(path.name) - len(image_suffix(path))]) for path in images}
    series = {path.parent for path in dicom}
    return [path for path in others if not _belongs(path, stems, series)]


def _belongs(path: Path, stems: set[Path], series: set[Path]) -> bool:
    name = path.name.lower()
    if name in _SYSTEM or (name in _OF_SERIES and path.parent in series):
        return True
    # an MRXS slide has a folder of its name
    if path.parent in stems:
        return True
    suffix = next((one for one in _COMPANIONS if name.endswith(one)), "")
    stem = (
        path.with_name(path.name[: len(path.name) - len(suffix)])
        if suffix and len(suffix) < len(name)
        else None
    )
    return stem in stems or stem in series
