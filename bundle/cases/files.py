"""Which files are images, and whether a file can be opened at all."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from bundle.cases.errors import CaseError

NIFTI_SUFFIXES = (".nii.gz", ".nii")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
#: Of whole-slide images; they come as TIFF too.
SLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".bif", ".mrxs", ".svslide")
IMAGE_SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES + PICTURE_SUFFIXES + SLIDE_SUFFIXES
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_HEAD_BYTES = 1024


def image_suffix(path: Path) -> str:
    """The image suffix as the name spells it ('.nii.gz' is one suffix); '' for other files."""
    name = path.name.lower()
    known = next((suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix)), "")
    return path.name[-len(known) :] if known else ""


def os_problem(error: OSError) -> str:
    """What an error of the file system means, in words."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, PermissionError):
        return "may not be read by this user"
    if isinstance(error, NotADirectoryError):
        return "does not exist, since a part of its path is a file"
    if error.errno == errno.ELOOP:
        return "is a symbolic link that leads back to itself"
    if error.errno == errno.ENAMETOOLONG:
        return "has a name longer than the file system allows"
    return f"cannot be opened ({(error.strerror or type(error).__name__).lower()})"


def read_head(path: Path) -> bytes:
    """The first bytes of a regular, non-empty file.

    Raises:
        CaseError: the path does not exist, is a folder or a device, may not be read, or is empty.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise CaseError(path, "is a folder where an image file is expected", "name the image file")
        # A pipe or a device could block for ever.
        if not stat.S_ISREG(status.st_mode):
            raise CaseError(path, "is not a regular file", "name an image file")
        if status.st_size == 0:
            raise CaseError(path, "is empty", "copy or export it again")
        with open(path, "rb") as stream:
            return stream.read(_HEAD_BYTES)
    except OSError as error:
        raise CaseError(path, os_problem(error), "check the path and its permissions") from error
    except ValueError as error:
        if isinstance(error, CaseError):
            raise
        # The file system refuses the path itself, as it does a null byte.
        raise CaseError(path, "is not a valid path", "correct the path") from error


def read_text(path: Path, most_bytes: int = 1_000_000) -> str:
    """A text file in UTF-8.

    Raises:
        CaseError: it cannot be read, is larger than `most_bytes`, or is not UTF-8.
    """
    try:
        if path.is_dir():
            raise CaseError(path, "is a folder", "name a file")
        with open(path, "rb") as stream:
            content = stream.read(most_bytes + 1)
    except OSError as error:
        raise CaseError(path, os_problem(error), "check the path and its permissions") from error
    if len(content) > most_bytes:
        raise CaseError(path, f"is larger than {most_bytes:,} bytes", "shorten or split it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaseError(path, "is not UTF-8 text", "save it as UTF-8") from error


def read_json(path: Path, most_bytes: int = 1_000_000) -> Any:
    """The content of a JSON file.

    Raises:
        CaseError: see `read_text`; also where it is not JSON.
    """
    text = read_text(path, most_bytes)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise CaseError(path, f"is not valid JSON ({where})", "correct it") from error
    except RecursionError as error:
        raise CaseError(path, "is nested too deeply", "correct it") from error
