"""How a file becomes a table: the one reader of importers, given splits and benchmarks' sheets.

``.csv`` and ``.tsv`` with commas, tabs, semicolons or bars (UTF-8, or UTF-16 and UTF-32 that begin
with their mark), ``.parquet``, ``.json`` (a list of objects), ``.jsonl`` (an object a line) and
``.xlsx`` (its first sheet); text formats also with ``.gz`` behind. Where the name says nothing or
something else, the content does. What a cell holds is said by :mod:`m3router.data.tables.cells`.
"""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from m3router.data.errors import DataError, listed
from m3router.data.tables.cells import EXACT, Cell, keys_of, text_of
from m3router.data.tables.formats import (
    ShapeError,
    decoded_text,
    objects_of,
    packed_kind,
    separated_rows,
    sheet_rows,
    text_kind,
)

SEPARATED, OBJECTS, _PACKED = (".csv", ".tsv"), (".json", ".jsonl"), (".parquet", ".xlsx")
SUFFIXES = (".csv", ".tsv", ".parquet", ".json", ".jsonl", ".xlsx")
_UNNAMED = "Unnamed: "
_AT_ONCE = 64
"""Values of a column that are taken out of Arrow together."""


class Table:
    """The columns of a file; cells are read when they are asked for.

    Args:
        path: The file, or what it is called in messages.
        names: Of the columns, in the file's order.
        columns: Values of each column: Python values, or an array of Arrow's.
        texts_only: Whether the format has no types, so that an empty text means a missing one.
    """

    def __init__(
        self, path: Path | str, names: Sequence[str], columns: Sequence[Any], *, texts_only: bool
    ) -> None:
        self.path = path
        self.names = tuple(names)
        self._columns = dict(zip(names, columns, strict=True))
        self._twice = {name for name, count in Counter(names).items() if count > 1}
        self._texts_only = texts_only

    def __len__(self) -> int:
        """Count the rows."""
        return len(next(iter(self._columns.values()), ()))

    def cells(self, name: str, *, strip: bool = True) -> list[Cell]:
        """Read a column.

        Args:
            name: Of the column.
            strip: Take white space around texts away.

        Returns:
            Texts, :class:`m3router.data.tables.cells.Nested` ones, and None where the file marks
            them as missing.

        Raises:
            DataError: There is no such column, there are two, or its part of the file is damaged.
        """
        values = self._column(name)
        if isinstance(values, pa.ChunkedArray):
            return [cell for chunk in values.chunks for cell in _arrow_cells(chunk, strip)]
        bare = str.strip if strip else str
        cells = [bare(value) if type(value) is str else text_of(value) for value in values]
        return [cell or None for cell in cells] if self._texts_only else cells

    def _column(self, name: str) -> Any:
        if name not in self._columns:
            raise DataError(f"{self.path} has no column {name!r}; it has {listed(self.names, 12)}.")
        if name in self._twice:
            raise DataError(
                f"{self.path} has {self.names.count(name)} columns called {name!r}: rename all but "
                "the one that is meant."
            )
        return self._columns[name]

    def values(self, name: str) -> Iterator[Any]:
        """Give a column's values as they are, one after another: images need much memory."""
        values = self._column(name)
        if not isinstance(values, pa.ChunkedArray):
            yield from values
            return
        for chunk in values.chunks:
            for start in range(0, len(chunk), _AT_ONCE):
                yield from chunk.slice(start, _AT_ONCE).to_pylist()

    def keys(self, name: str) -> list[Cell]:
        """Read a column of identifiers, see :func:`m3router.data.tables.cells.keys_of`.

        Raises:
            DataError: See :meth:`cells`; or the column holds floating-point numbers that are too
                large to be exact, so that different identifiers may have become one.
        """
        cells = self.cells(name)
        if inexact := _inexact(self._columns[name]):
            raise DataError(
                f"{self.path}, column {name!r}: {inexact:.17g} is a floating-point number, of "
                "which the last digits are lost from 2^53 on. Store identifiers as whole numbers "
                "or texts."
            )
        return keys_of(cells)


def read_cells(path: Path, *, left_out: list[str] | None = None) -> Table:
    """Read a table from a file.

    Args:
        path: In a format that the module names.
        left_out: Receives a sentence for each row that cannot be read by itself, which is then left
            out; None refuses the file.

    Returns:
        The table. Names of columns are stripped; a column without a name is called as pandas does
        (``Unnamed: 0``), and left out if it is empty. Empty rows at the end are left out.

    Raises:
        DataError: The format is not known, or the file cannot be read as one.
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    try:
        plain = path.is_file()
        packed = packed_kind(path) if plain else ""
        suffix = packed or suffix
        if not packed and path.suffix.lower() == ".gz" and suffix in _PACKED:
            raise DataError(_unknown(path))
        if suffix == ".parquet":
            return _read_parquet(path)
        if suffix == ".xlsx":
            return _of_rows(path, sheet_rows(path))
        if not plain and suffix not in SUFFIXES:
            raise DataError(_unknown(path))
        return _read_text(path, suffix, left_out)
    except ImportError as error:
        raise DataError(
            f"{path}: reading .xlsx needs openpyxl, which is not installed. Install it "
            "(pip install 'm3router[xlsx]'), or save the table as .csv or .tsv."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a readable .gz file: {error}.") from error
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a readable {suffix} table: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, zipfile.BadZipFile, RecursionError) as error:
        raise DataError(f"{path} is not a readable {suffix} table: {error}") from error


def _read_text(path: Path, suffix: str, left_out: list[str] | None) -> Table:
    """Read a text as what it looks like, where that is another kind than its name says.

    Raises:
        ValueError: It does not read as such.
    """
    known = suffix in (*SEPARATED, *OBJECTS)
    try:
        text = decoded_text(path)
    except ValueError as error:
        if known:
            raise
        raise DataError(_unknown(path)) from error
    looks = text_kind(text)
    if not known and not looks:
        raise DataError(_unknown(path))
    if looks in OBJECTS or (suffix in OBJECTS and not looks):
        kind = suffix if suffix in OBJECTS and looks != ".json" else looks
        return _of_records(path, _objects(text, by_line=kind == ".jsonl", left_out=left_out))
    mark = "\t" if suffix == ".tsv" else ","
    return _of_rows(path, separated_rows(text, mark, left_out=left_out))


def _objects(text: str, *, by_line: bool, left_out: list[str] | None) -> list[dict[str, Any]]:
    """Read objects one way; the other way where that fails and there are several lines."""
    try:
        return objects_of(text, by_line=by_line, left_out=left_out)
    except ValueError:
        if text.strip().count("\n"):
            try:
                return objects_of(text, by_line=not by_line)
            except ShapeError:
                raise
            except ValueError:
                pass  # what the file's name says is what was meant
        raise


def _unknown(path: Path) -> str:
    got = "".join(path.suffixes[-2 if path.suffix.lower() == ".gz" else -1 :]).lower()
    return f"{path} must be one of {', '.join(SUFFIXES)}, got {got or 'no suffix'!r}."


def _of_rows(path: Path, rows: list[list[Any]]) -> Table:
    """Lay rows of cells out; the first one names the columns.

    Raises:
        ValueError: There is no first row.
    """
    while rows and all(text_of(cell) in (None, "") for cell in rows[-1]):
        rows.pop()
    if not rows:
        raise ValueError("it is empty: the first line must name the columns.")
    names = [str(text_of(cell) or "") for cell in rows[0]]
    width = max(map(len, rows))
    names += [""] * (width - len(names))
    for row in rows[1:]:
        if len(row) < width:
            row += [None] * (width - len(row))
    columns = [[row[place] for row in rows[1:]] for place in range(width)]
    kept = [
        (name or f"{_UNNAMED}{place}", column)
        for place, (name, column) in enumerate(zip(names, columns, strict=True))
        if name or any(text_of(cell) not in (None, "") for cell in column)
    ]
    return Table(path, [name for name, _ in kept], [one for _, one in kept], texts_only=True)


def _of_records(path: Path, records: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in records for name in row))
    columns = [[row.get(name) for row in records] for name in names]
    stripped = [name.strip() for name in names]
    return Table(path, stripped, columns, texts_only=False)


def _read_parquet(path: Path) -> Table:
    """Read all columns of Parquet, those that pandas took for the index too."""
    table = pq.read_table(path) if path.is_dir() else pq.ParquetFile(path).read()
    return of_arrow(path, table)


def of_arrow(path: Path | str, table: pa.Table) -> Table:
    """Take a table of Arrow's; numbers of classes, as the ``datasets`` library has them, are names.

    Args:
        path: The file, or what the table is called in messages.
        table: It.
    """
    classes = _classes(table.schema)
    columns = [
        _named(column, classes[name]) if name in classes else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    names = [name.strip() for name in table.column_names]
    return Table(path, names, columns, texts_only=False)


def _classes(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> the names of its classes, as the ``datasets`` library writes them."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = told["info"]["features"].items()
        return {name: list(map(str, one["names"])) for name, one in features if _is_class(one)}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}  # of another version, or of somebody else


def _is_class(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "ClassLabel"


def _named(column: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Numbers as the names of classes; what is no class's number is missing."""
    numbers = column.to_pylist()
    known = [one if one is not None and 0 <= one < len(names) else None for one in numbers]
    places = pa.array(known, type=pa.int32())
    return pa.chunked_array([pa.DictionaryArray.from_arrays(places, pa.array(names))])


def _arrow_cells(chunk: pa.Array, strip: bool) -> list[Cell]:
    """Read a part of a column; a number, date or category once for all cells that hold it."""
    kind = chunk.type
    if pa.types.is_dictionary(kind):
        return _taken(_arrow_cells(chunk.dictionary, strip), chunk.indices)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = chunk.to_pylist()
        return [value.strip() if value else value for value in values] if strip else values
    if not (pa.types.is_primitive(kind) or pa.types.is_decimal(kind)):
        return [_unstripped(value, strip) for value in chunk.to_pylist()]
    encoded = chunk.dictionary_encode()
    if pa.types.is_floating(kind):
        distinct = list(encoded.dictionary.to_numpy(zero_copy_only=False))
    else:
        distinct = encoded.dictionary.to_pylist()
    return _taken([text_of(value) for value in distinct], encoded.indices)


def _unstripped(value: object, strip: bool) -> Cell:
    return value if isinstance(value, str) and not strip else text_of(value)


def _taken(cells: Sequence[Cell], places: pa.Array) -> list[Cell]:
    return [None if place is None else cells[place] for place in places.to_pylist()]


def _inexact(values: Any) -> float | None:
    """Give a floating-point number whose neighbours are more than one away."""
    if isinstance(values, pa.ChunkedArray):
        if not pa.types.is_floating(values.type):
            return None
        values = values.to_numpy()
    for value in values:
        if isinstance(value, float | np.floating):
            number = float(value)
            if np.isfinite(number) and abs(number) >= EXACT:
                return number
    return None
