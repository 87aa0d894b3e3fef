"""Sheets with the texts of images, CSV or Excel, as LViT's data sets have them."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import openpyxl  # type: ignore[import-untyped]

from bundle.cases.errors import CaseError
from bundle.cases.files import image_suffix, os_problem

_SHEET_SUFFIXES = (".xlsx", ".csv")
_MAX_SHEET_BYTES = 200_000_000
_MAX_UNPACKED_BYTES = 1_000_000_000


@dataclass
class Sheet:
    """The texts of one sheet.

    Attributes:
        texts: name without suffix, lower case -> text.
        names: the same keys -> the name as written.
        contradictory: names that have several texts; the first holds.
        used: keys that an image has.
    """

    path: Path
    texts: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    contradictory: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def add(self, name: str, text: str) -> None:
        key = key_of(name.replace("\\", "/").rsplit("/", 1)[-1])
        if self.texts.setdefault(key, text) != text:
            self.contradictory.append(name)
        self.names.setdefault(key, name)

    def find(self, keys: Sequence[str]) -> str:
        key = next((key for key in keys if key in self.texts), None)
        if key is None:
            return ""
        self.used.add(key)
        return self.texts[key]


def key_of(name: str) -> str:
    """A file's name as images, masks and rows of a sheet are matched by it: no suffix, lower case."""
    name = name.strip()
    return name[: len(name) - len(image_suffix(Path(name)))].lower()


def children(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden.

    Raises:
        CaseError: the folder cannot be read.
    """
    try:
        return sorted(child for child in folder.iterdir() if not child.name.startswith((".", "~$")))
    except OSError as error:
        raise CaseError(folder, os_problem(error), "check the path and its permissions") from error


def sheets_of(folder: Path) -> list[Sheet]:
    """The sheets of texts in a folder: CSV and Excel files with 'text' in their name.

    Raises:
        CaseError: one cannot be read, is too large, or has no columns 'Image' and 'Description'.
    """
    files = [child for child in children(folder) if "text" in child.name.lower() and child.is_file()]
    old = next((path for path in files if path.suffix.lower() == ".xls"), None)
    if old is not None:
        raise CaseError(old, "is a sheet in the old Excel format", "save it as .xlsx or .csv")
    return [_read_sheet(path) for path in files if path.suffix.lower() in _SHEET_SUFFIXES]


def _read_sheet(path: Path) -> Sheet:
    try:
        if path.stat().st_size > _MAX_SHEET_BYTES:
            raise CaseError(path, "is too large for a sheet of texts", "split it")
        content = path.read_bytes()
    except OSError as error:
        raise CaseError(path, os_problem(error), "check the path and its permissions") from error
    tables = _csv_tables(path, content) if path.suffix.lower() == ".csv" else _xlsx_tables(path, content)
    for rows in tables:
        header = [cell.lower() for cell in rows[0]] if rows else []
        if "image" not in header or "description" not in header:
            continue
        name_column, text_column = header.index("image"), header.index("description")
        sheet = Sheet(path)
        for row in rows[1:]:
            padded = [*row, *[""] * len(header)]
            if padded[name_column] and padded[text_column]:
                sheet.add(padded[name_column], padded[text_column])
        return sheet
    raise CaseError(path, "has no columns 'Image' and 'Description'", "name them in its first row")


def _csv_tables(path: Path, content: bytes) -> list[list[list[str]]]:
    try:
        text = content.decode("utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        rows = [
            [cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, ""), delimiter=delimiter)
        ]
    except UnicodeDecodeError as error:
        raise CaseError(path, "is not UTF-8 text", "save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise CaseError(path, f"cannot be read as CSV ({error})", "save it again as CSV in UTF-8") from error
    return [rows]


def _xlsx_tables(path: Path, content: bytes) -> list[list[list[str]]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(part.file_size for part in archive.infolist()) > _MAX_UNPACKED_BYTES:
                raise CaseError(path, "is too large for a sheet of texts", "split it")
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        tables = []
        for sheet in book.worksheets:
            # Some programs write wrong dimensions, which openpyxl would believe.
            sheet.reset_dimensions()
            tables.append([[_cell(value) for value in row] for row in sheet.iter_rows(values_only=True)])
        book.close()
    except CaseError:
        raise
    except Exception as error:
        # openpyxl lets through whatever its parsers raise on a broken file.
        problem = f"cannot be read as an Excel sheet ({type(error).__name__})"
        raise CaseError(path, problem, "save it again as .xlsx or .csv") from error
    return tables


def _cell(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()
