"""What is in a text file or workbook: its rows of cells, or its objects, before anything is read.

:mod:`m3router.data.tables.table` makes tables of them. All functions raise ValueError with what is
wrong and what to do; the caller names the file.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import sys
from pathlib import Path
from typing import Any

from m3router.data.json_files import parse_json

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded_text(path: Path) -> str:
    """Read a file's text by the mark it begins with; UTF-8 without one.

    Raises:
        ValueError: It is in another encoding; nobody can tell in which.
    """
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        content = gzip.decompress(content)
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding)
    if b"\0" in content[:64]:
        raise ValueError("it holds NUL characters, as UTF-16 without its mark does. Save as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} holds the byte 0x{content[error.start]:02X}, which is not UTF-8. Save it "
            "as UTF-8 (in Excel: 'CSV UTF-8')."
        ) from error


def separated_rows(text: str, mark: str, *, left_out: list[str] | None = None) -> list[list[Any]]:
    """Split a text into rows of cells; blank lines are left out.

    Args:
        text: Of the file.
        mark: What separates cells.
        left_out: Receives a sentence for each row that is longer than the first one, which is then
            left out; None refuses such rows.

    Raises:
        ValueError: Quotation marks do not pair, rows are longer than the first one, or it is
            separated by something else.
    """
    before = csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    rows: list[list[Any]] = []
    try:
        for row in reader:
            width = len(rows[0]) if rows else len(row)
            if len(row) > width and any(map(str.strip, row[width:])):
                if left_out is not None:
                    left_out.append(
                        f"line {reader.line_num} has {len(row)} cells, the first line {width} names"
                    )
                    continue
                raise ValueError(
                    f"rows have more cells than the first line has names (line {reader.line_num}: "
                    f"{len(row)} and {width}). Put texts with {mark!r} in quotation marks."
                )
            if row:
                rows.append(row if len(row) <= width else row[:width])
    except csv.Error as error:
        raise ValueError(
            f"line {reader.line_num}: {error}. A text in quotation marks ends with one, and those "
            "inside of it are doubled."
        ) from error
    finally:
        csv.field_size_limit(before)
    if rows and len(rows[0]) == 1:
        for other in ",;\t|".replace(mark, ""):
            if other in rows[0][0]:
                better = "commas" if mark == "," else "tabs"
                raise ValueError(f"it is separated by {other!r}. Save it with {better} instead.")
    return rows


def sheet_rows(path: Path) -> list[list[Any]]:
    """Read the first sheet of a workbook."""
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # what a workbook says of its size need not be true
        return [list(row) for row in sheet.iter_rows(values_only=True)]
    finally:
        book.close()


def objects_of(
    text: str, *, by_line: bool, left_out: list[str] | None = None
) -> list[dict[str, Any]]:
    """Read objects.

    Args:
        text: Of the file.
        by_line: Whether each line is an object, not the whole text a list of them.
        left_out: Receives a sentence for each row that is not an object (it is left out); None
            refuses such rows.

    Raises:
        ValueError: It is not JSON, or not made of objects; or one names a field twice.
    """
    if by_line:
        records = []
        for number, line in enumerate(text.split("\n"), start=1):
            try:
                records += [parse_json(line, nan=True)] if line.strip() else []
            except ValueError as error:
                if left_out is None:
                    raise ValueError(f"line {number}: {error}") from error
                left_out.append(f"line {number} is not JSON: {error}")
    else:
        records = parse_json(text, nan=True)
    if left_out is not None and isinstance(records, list):
        odd = [place for place, row in enumerate(records, start=1) if not isinstance(row, dict)]
        left_out += [f"row {place} is not a JSON object" for place in odd]
        records = [row for row in records if isinstance(row, dict)]
    if not isinstance(records, list) or not all(isinstance(row, dict) for row in records):
        raise ValueError("expected a list of rows, each a JSON object")
    return records
