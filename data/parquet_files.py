"""Parquet that somebody may have damaged: read whole and checked, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from m3router.data.errors import DataError


def read_parquet(path: Path, *, redo: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file.

    Args:
        path: The file, whose hash was checked where it has one.
        redo: What to do where it is damaged, a sentence.
        columns: Those to read; all by default.

    Raises:
        DataError: It cannot be read, is no Parquet, holds bytes that are no text, or lacks a
            column.
    """
    try:
        table = pq.ParquetFile(path).read(columns=None if columns is None else list(columns))
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is no readable table ({_brief(error)}). {redo}") from error
    missing = [name for name in columns or () if name not in table.column_names]
    if missing:
        raise DataError(f"{path} lacks the column {missing[0]!r}. {redo}")
    return table


def _brief(error: Exception) -> str:
    """The first line of what Arrow says; it quotes bytes of the file, which may be any."""
    first = (str(error) or repr(error)).splitlines()[0]
    return "".join(one if one.isprintable() else "?" for one in first)
