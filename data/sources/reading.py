"""Rows of a benchmark, streamed from the Hugging Face hub or from downloaded files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyarrow.dataset import ParquetFragmentScanOptions

from m3router.data.errors import DataError
from m3router.data.hub_reach import CONNECTION_ERRORS
from m3router.data.sources.benchmarks.base import Benchmark, RawExample, Row
from m3router.data.tables.table import read_cells

READERS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}
"""Ending of a file to the reader of the ``datasets`` library."""

_LONGEST = 60
_UNREADABLE: tuple[type[Exception], ...] = (OSError, ValueError, ImportError, *CONNECTION_ERRORS)


def read_rows(
    entry: Benchmark,
    config: str,
    split: str,
    files: tuple[Path, ...],
    *,
    columns: tuple[str, ...],
    homes: set[str] | None = None,
) -> Iterator[Row]:
    """Stream rows, with images as bytes.

    Of a dataset's homes on the hub the first one that gives a row is read.

    Args:
        entry: The benchmark.
        config: Configuration of its dataset; empty for its only one.
        split: Part of its dataset.
        files: Read these in place of the hub, whole.
        columns: What the rows must have; the first one is looked at.
        homes: Receives which of the dataset's homes was read.

    Yields:
        Column to value.

    Raises:
        DataError: The benchmark is not on the hub and there are no files; the hub or a file
            cannot be read; or a column is missing.
    """
    if not files and not entry.homes:
        raise DataError(
            f"{entry.title} is not on the Hugging Face hub. Download {entry.sheet} and pass it "
            "with --file."
        )
    failed: list[tuple[str, Exception]] = []
    for home in ("",) if files else entry.homes:
        begun = False
        try:
            for row in _open(home, config, split, files):
                if not begun:
                    _check_columns(entry, row, columns)
                    begun = True
                    if home and homes is not None:
                        homes.add(home)
                yield row
            return
        except _UNREADABLE as error:
            failed.append((home, error))
            if begun or isinstance(error, ConnectionError):  # the other home is on the same hub
                break
    cause = failed[-1][1]
    raise DataError(_unreadable(entry, config, split, files, failed)) from cause


def read_row(entry: Benchmark, row: Row) -> RawExample:
    """Turn a row into a question.

    Raises:
        DataError: A value is not as published; the message shows the row.
    """
    try:
        return entry.read(row)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        shown = ", ".join(f"{name}: {_brief(row.get(name))}" for name in entry.columns)
        raise DataError(
            f"{entry.title}: a row is not as published ({type(error).__name__}: {error}); it has "
            f"{shown}."
        ) from error


def _open(hub: str, config: str, split: str, files: tuple[Path, ...]) -> Iterable[Row]:
    from datasets import load_dataset

    if not files:
        return _undecoded(load_dataset(hub, config or None, split=split, streaming=True))
    kinds = {READERS.get(path.suffix.lower(), "") for path in files}
    if len(kinds) > 1 or "" in kinds:
        raise ValueError(f"files must be of one kind out of {', '.join(READERS)}")
    kind = kinds.pop()
    if kind == "csv":  # as other tables are read: pandas takes words such as "null" for missing
        return (row for path in files for row in _sheet(path))
    names = [str(path) for path in files]
    return _undecoded(
        load_dataset(kind, data_files=names, split="train", streaming=True, **_options(kind))
    )


def _sheet(path: Path) -> Iterator[Row]:
    """Rows of a sheet, every cell a text or None."""
    table = read_cells(path)
    columns = [table.cells(name, strip=False) for name in table.names]
    for cells in zip(*columns, strict=True):
        yield dict(zip(table.names, cells, strict=True))


def _options(kind: str) -> dict[str, Any]:
    """Options of a reader of files."""
    if kind == "parquet":
        # Else all that was read of a file stays in memory until its end.
        return {"fragment_scan_options": ParquetFragmentScanOptions(pre_buffer=False)}
    return {}


def _undecoded(rows: Any) -> Any:
    """Leave images as bytes; rows of unknown types, such as a sheet's, hold none."""
    return rows if rows.features is None else rows.decode(False)


def _check_columns(entry: Benchmark, row: Row, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in row]
    if missing:
        raise DataError(
            f"{entry.title}: missing column {', '.join(missing)}; the rows have {', '.join(row)}. "
            "Check that the files are of this benchmark and configuration."
        )


def _unreadable(
    entry: Benchmark,
    config: str,
    split: str,
    files: tuple[Path, ...],
    failed: Sequence[tuple[str, Exception]],
) -> str:
    """Say where a benchmark was looked for, the last place first, and what went wrong there."""
    causes = [(home, _cause(error)) for home, error in reversed(failed)]
    if files:
        where = ", ".join(map(str, files))
        return f"{entry.title} cannot be read from {where}: {causes[0][1]}. Check the files."
    part = f"({config or 'default'}, {split})"
    places = "; nor from ".join(f"{home} {part}: {cause}" for home, cause in causes)
    return (
        f"{entry.title} cannot be read from {places}. Check the connection and the split; or "
        f"download the Parquet files of huggingface.co/datasets/{entry.hub} elsewhere and pass "
        "them with --file."
    )


def _cause(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n")[0].rstrip(".")


def _brief(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(str, value))}}}"
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
