"""Rows of questions, wherever they are: a file, a saved dataset, or an object of Python's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.json_files import parse_json
from m3router.data.tables.cells import Nested, text_of
from m3router.data.tables.formats import check_shape, decoded_text, packed_kind, text_kind
from m3router.data.tables.table import Table, of_arrow, read_cells

SAVED, SAVED_SPLITS = "dataset_info.json", "dataset_dict.json"
"""What ``save_to_disk`` of the ``datasets`` library leaves in a folder."""
_LINES = ".jsonl"

Values = dict[str, Any]


@dataclass(kw_only=True)
class Rows:
    """Rows, as they are read.

    Attributes:
        source: What messages call it.
        unit: What messages call a row: ``"line"`` or ``"row"``.
        home: The folder of the file; None for an object.
        rows: Number, from 1, and the values of a row; or why it cannot be read.
    """

    source: str
    unit: str
    rows: Iterable[tuple[int, Values | DataError]]
    home: Path | None = field(default=None)


def read_rows(source: Any, *, raw: frozenset[str]) -> Rows:
    """Open a source of rows.

    Args:
        source: See :func:`m3router.data.sources.examples.load_examples`.
        raw: Columns, in small letters, of which the values are given as they are; of the others
            come texts, lists and objects, and None where a cell is empty.

    Raises:
        DataError: It is nothing of the kind, or cannot be read.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            return _of_table(_saved(path), raw, home=path.parent)
        return _of_file(path, raw)
    if isinstance(source, pd.DataFrame):
        names = [str(name).strip() for name in source.columns]
        columns = [source.iloc[:, place].tolist() for place in range(len(names))]
        return _of_table(Table("The table", names, columns, texts_only=False), raw)
    if isinstance(source, Mapping):
        raise DataError(
            f"A single set of examples is needed, got {type(source).__name__} with "
            f"{', '.join(map(str, source)) or 'nothing'}. Choose one, such as source["
            f"{next(iter(source), 'test')!r}]."
        )
    if type(source).__module__.partition(".")[0] == "datasets" and hasattr(source, "num_rows"):
        return _of_table(_of_dataset(source, "The dataset"), raw)
    if isinstance(source, Iterable):
        return Rows(source="The list", unit="row", rows=_of_objects(source))
    raise DataError(
        f"Examples must be a file, a saved dataset, a Dataset, a DataFrame or a list of objects, "
        f"got {type(source).__name__}."
    )


def _of_file(path: Path, raw: frozenset[str]) -> Rows:
    try:
        lines = None if packed_kind(path) else _lines(path, decoded_text(path))
    except OSError as error:
        raise DataError(f"Examples {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"Examples {path} cannot be read: {error}") from error
    if lines is None:
        return _of_table(read_cells(path), raw, home=path.parent)
    return Rows(source=str(path), unit="line", rows=_of_lines(lines), home=path.parent)


def _lines(path: Path, text: str) -> list[str] | None:
    """The lines of a file of JSON Lines; None for another one."""
    named = Path(path.name.lower().removesuffix(".gz")).suffix == _LINES
    looks = text_kind(text)
    if not (looks == _LINES or (named and not looks)):
        return None
    lines = text.split("\n")
    first, *others = [line for line in lines if line.strip()] or [""]
    try:  # an object over several lines, or with a list in it, is a table's
        values = parse_json(first, nan=True)
    except ValueError:
        return lines if named and not (others and _is_json(text)) else None
    if not others:
        check_shape(values)
    return lines if named or others or _is_row(values) else None


def _is_json(text: str) -> bool:
    try:
        parse_json(text, nan=True)
    except ValueError:
        return False
    return True


def _is_row(values: Any) -> bool:
    lists = [one for one in values.values() if isinstance(one, list)]
    return not any(isinstance(row, dict) for one in lists for row in one)


def _of_lines(lines: Iterable[str]) -> Iterator[tuple[int, Values | DataError]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = parse_json(line, nan=True)
        except ValueError as error:
            yield number, DataError(f"invalid JSON ({error}).")
            continue
        yield number, _values(values)


def _of_objects(source: Iterable[Any]) -> Iterator[tuple[int, Values | DataError]]:
    for number, one in enumerate(source, start=1):
        yield number, _values(one.to_dict() if isinstance(one, Example) else one)


def _values(values: Any) -> Values | DataError:
    if not isinstance(values, Mapping):
        return DataError(f"expected a JSON object, got {type(values).__name__}.")
    return dict(values)


def _of_table(table: Table, raw: frozenset[str], *, home: Path | None = None) -> Rows:
    def rows() -> Iterator[tuple[int, Values | DataError]]:
        kept: dict[str, Iterable[Any]] = {}
        for name in table.names:
            kept[name] = (
                table.values(name)
                if name.casefold() in raw
                else map(plain, table.cells(name, strip=False))
            )
        for number, cells in enumerate(zip(*kept.values(), strict=True), start=1):
            yield number, dict(zip(kept, cells, strict=True))

    return Rows(source=str(table.path), unit="row", rows=rows(), home=home)


def plain(value: Any) -> Any:
    """A value as text, list or object; None where it is missing.

    >>> plain(42.0), plain("007"), plain([1.0, " a"]), plain(float("nan"))
    ('42', '007', ['1', ' a'], None)
    """
    cell = value if isinstance(value, str | Nested) else text_of(value)
    if not isinstance(cell, Nested):
        return cell
    if isinstance(cell.value, Mapping | bytes | bytearray | memoryview):
        return cell.value
    return [plain(one) for one in cell.value]


def _saved(path: Path) -> Table:
    """A dataset that ``save_to_disk`` wrote."""
    if (path / SAVED_SPLITS).is_file():
        splits = sorted(one.name for one in path.iterdir() if (one / SAVED).is_file())
        if len(splits) != 1:
            raise DataError(
                f"{path} holds a dataset in {len(splits)} parts: give the folder of one, such as "
                f"{path / (splits or ['test'])[0]} (there are {', '.join(splits) or 'none'})."
            )
        path = path / splits[0]
    if not (path / SAVED).is_file():
        raise DataError(
            f"{path} is a folder, and not one that a dataset's save_to_disk wrote. Give the file "
            "of the examples; the folder of the images goes with --images."
        )
    from datasets import load_from_disk

    try:
        return _of_dataset(load_from_disk(str(path)), str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        why = first.rstrip(".")
        raise DataError(f"The dataset in {path} cannot be read: {why}.") from error


def _of_dataset(dataset: Any, name: str) -> Table:
    """A dataset's columns, its images undecoded, and names in place of the numbers of classes."""
    if not hasattr(dataset, "with_format"):
        raise DataError(f"{name} must be one of rows, got {type(dataset).__name__}.")
    table = dataset.with_format("arrow")[:]
    return of_arrow(name, table.replace_schema_metadata(dataset.features.arrow_schema.metadata))
