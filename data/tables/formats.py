"""What is in a text file or workbook: its rows of cells, or its objects, before anything is read.

:mod:`m3router.data.tables.table` makes tables of them. All functions raise ValueError with what is
wrong and what to do; the caller names the file.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from m3router.data.json_files import parse_json
from m3router.data.plain_files import open_file

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


_LOOKED_AT = 20
"""Rows by which the mark between cells is told."""
_SIGNATURES = {b"PAR1": ".parquet", b"PK\x03\x04": ".xlsx"}
_OLD_WORKBOOK = b"\xd0\xcf\x11\xe0"
_GZIP = b"\x1f\x8b"
SEPARATORS = ",\t;|"
"""What may stand between cells; Excel writes semicolons where a comma is the decimal mark."""


def packed_kind(path: Path) -> str:
    """``.parquet`` or ``.xlsx`` where a file begins as one, whatever its name; else "".

    Raises:
        ValueError: It is a workbook of the old kind, which is not read.
        OSError: It cannot be read.
    """
    with open_file(path) as file:
        head = file.read(4)
    if head == _OLD_WORKBOOK:
        raise ValueError("it is a workbook of the old kind (.xls). Save it as .xlsx or as CSV.")
    return _SIGNATURES.get(head, "")


def text_kind(text: str) -> str:
    """What a text looks like: ``.json``, ``.jsonl`` or ``.csv``; "" where nothing tells.

    >>> text_kind('[{"id": 1}]'), text_kind('{"id": 1}'), text_kind("id;image"), text_kind("id")
    ('.json', '.jsonl', '.csv', '')
    """
    start = text.lstrip()[:1]
    if start in ("[", "{"):
        return ".json" if start == "[" else ".jsonl"
    first = text.lstrip("\r\n").partition("\n")[0]
    return ".csv" if any(mark in first for mark in SEPARATORS) else ""


def decoded_text(path: Path) -> str:
    """Read a file's text by the mark it begins with; UTF-8 without one.

    Raises:
        ValueError: It is in another encoding; nobody can tell in which.
    """
    with open_file(path) as file:
        content = file.read()
    if path.suffix.lower() == ".gz" or content.startswith(_GZIP):
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
        mark: What separates cells by the file's name; another one where that divides the rows
            evenly, and into more cells.
        left_out: Receives a sentence for each row that is longer than the first one, which is then
            left out; None refuses such rows.

    Raises:
        ValueError: Quotation marks do not pair, or rows are longer than the first one.
    """
    before = csv.field_size_limit(sys.maxsize)
    mark = _separator(text, mark)
    reader = _reader(text, mark)
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
    return rows


def _reader(text: str, mark: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)


def _separator(text: str, usual: str) -> str:
    """What divides the rows evenly, into most cells; the usual mark where nothing else does."""
    widths = {mark: _widths(text, mark) for mark in dict.fromkeys(usual + SEPARATORS)}
    even = [mark for mark, found in widths.items() if len(set(found)) == 1 and found[0] > 1]
    if not even and widths[usual][0] > 1:
        return usual
    return max(even or widths, key=lambda mark: widths[mark][0])


def _widths(text: str, mark: str) -> list[int]:
    """How many cells this makes of each of the first rows, as far as they read; [0] for none."""
    widths: list[int] = []
    with contextlib.suppress(csv.Error):
        for row in islice(filter(None, _reader(text, mark)), _LOOKED_AT):
            widths.append(len(row))
    return widths or [0]


def sheet_rows(path: Path) -> list[list[Any]]:
    """Read the first sheet of a workbook."""
    import openpyxl

    with open_file(path) as file:  # by its name openpyxl would refuse some
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        try:
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # what a workbook says of its size need not be true
            return [list(row) for row in sheet.iter_rows(values_only=True)]
        finally:
            book.close()


class ShapeError(ValueError):
    """It is JSON, and no list of rows."""


def check_shape(values: Any) -> None:
    """Refuse a table's columns in one object, which pandas writes where nothing else is asked for.

    Raises:
        ShapeError: It is such an object, or has names and rows apart.

    >>> check_shape({"id": "1", "question": "What is it?"})
    >>> check_shape({"id": {"0": "1"}, "question": {"0": "What is it?"}})
    Traceback (most recent call last):
    m3router.data.tables.formats.ShapeError: it is one object that holds the columns of a table, ...
    """
    parts = list(values.values()) if isinstance(values, dict) else []
    lengths = {len(part) if isinstance(part, list) else 0 for part in parts}
    if (
        (parts and all(isinstance(part, dict) for part in parts))
        or (len(parts) > 1 and len(lengths) == 1 and 0 not in lengths)
        or (parts and {"columns", "index", "data"} == set(values))
    ):
        raise ShapeError(
            "it is one object that holds the columns of a table, where a list of rows is needed, "
            "each an object: in pandas, to_json(path, orient='records')"
        )


def objects_of(
    text: str, *, by_line: bool, left_out: list[str] | None = None
) -> list[dict[str, Any]]:
    """Read objects.

    Args:
        text: Of the file.
        by_line: Whether each line is an object, not the whole text a list of them, or an object
            with one such list, as in ``{"version": 1, "data": [...]}``.
        left_out: Receives a sentence for each row that is not an object (it is left out); None
            refuses such rows.

    Raises:
        ShapeError: It is not made of objects.
        ValueError: It is not JSON, or an object names a field twice.
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
        records = _only_list(parse_json(text, nan=True))
    if not by_line or len(records) == 1:
        check_shape(records[0] if by_line else records)
    if left_out is not None and isinstance(records, list):
        odd = [place for place, row in enumerate(records, start=1) if not isinstance(row, dict)]
        left_out += [f"row {place} is not a JSON object" for place in odd]
        records = [row for row in records if isinstance(row, dict)]
    if not isinstance(records, list) or not all(isinstance(row, dict) for row in records):
        raise ShapeError("expected a list of rows, each a JSON object")
    return records


def _only_list(values: Any) -> Any:
    """The one list of objects that an object holds; what is no such object stays as it is."""
    if not isinstance(values, dict):
        return values
    lists = {
        name: one
        for name, one in values.items()
        if isinstance(one, list) and one and all(isinstance(row, dict) for row in one)
    }
    if len(lists) > 1:
        raise ValueError(
            f"it holds {len(lists)} lists of objects ({', '.join(lists)}): keep the one that is "
            "meant in a file of its own."
        )
    return next(iter(lists.values()), values)
