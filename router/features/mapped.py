"""Arrays of features that may be larger than memory: from a limit on, they live in a file.

A mapped array is an ordinary NumPy array whose pages the system reads from, and drops back to,
an unnamed temporary file (in TMPDIR): whoever uses it sees no difference. LightGBM bins it row
by row, the networks read it batch by batch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Array = npt.NDArray[np.float32]

LIMIT = 2 << 30
"""Bytes from which an array is kept in a file."""
STEP = 1 << 22
"""Numbers that are copied at a time."""


def empty(rows: int, columns: int, *, limit: int | None = None) -> Array:
    """A float32 array (rows, columns) to be filled; in a file when it has `limit` bytes or more.

    Args:
        rows: N.
        columns: D.
        limit: bytes; `LIMIT` when None.

    Raises:
        OSError: when there is no room for the file.
    """
    if 4 * rows * columns < (LIMIT if limit is None else limit):
        return np.empty((rows, columns), dtype=np.float32)
    with tempfile.TemporaryFile(prefix="m3router-features-") as file:
        mapped = np.memmap(file, dtype=np.float32, mode="w+", shape=(rows, columns))
    return mapped  # the mapping keeps the file alive, which has no name any more


def side_by_side(blocks: list[Array], rows: npt.NDArray[np.intp] | None = None) -> Array:
    """The blocks (N, d), or these rows of them, as one array (n, D), copied a part at a time."""
    count = len(blocks[0]) if rows is None else len(rows)
    joined = empty(count, sum(block.shape[1] for block in blocks))
    step = max(1, STEP // joined.shape[1])
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        taken: slice | npt.NDArray[np.intp] = part if rows is None else rows[part]
        at = 0
        for block in blocks:
            joined[part, at : at + block.shape[1]] = block[taken]
            at += block.shape[1]
    return joined


def finite_rows(block: Array) -> npt.NDArray[np.bool_]:
    """Which rows (N,) of a block (N, d) are finite throughout, judged a part at a time."""
    step = max(1, STEP // block.shape[1])
    parts = [
        np.isfinite(block[start : start + step]).all(axis=1) for start in range(0, len(block), step)
    ]
    return np.concatenate(parts) if parts else np.ones(0, dtype=bool)


def read_lists(path: Path, column: str) -> Array:
    """One column of fixed-size lists of a Parquet file as an array (N, d), read in batches."""
    with pq.ParquetFile(path) as file:
        width = file.schema_arrow.field(column).type.list_size
        block = empty(file.metadata.num_rows, width)
        start = 0
        for batch in file.iter_batches(batch_size=max(1, STEP // width), columns=[column]):
            part = pa.concat_arrays([batch.column(0)]).flatten().to_numpy(zero_copy_only=False)
            block[start : start + len(batch)] = part.reshape(len(batch), width)
            start += len(batch)
    return block
