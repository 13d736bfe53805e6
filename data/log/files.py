"""The files of an oracle log: rows as Parquet, all else in the manifest."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from m3router.data.errors import DataError
from m3router.data.log.checks import SCHEMA
from m3router.data.manifest import atomic_write_bytes, read_manifest, sha256_file, write_manifest
from m3router.data.parquet_files import read_parquet
from m3router.data.paths import StrPath

PARQUET = "oracle.parquet"
HUB_PARQUET = "data/train-00000-of-00001.parquet"
"""The same file where data-set hubs look for it; see :mod:`m3router.data.log.exporting`."""
STAGE = "log"


def save(
    folder: Path, frame: pd.DataFrame, *, file: str, inputs: Mapping[str, StrPath], **recorded: Any
) -> None:
    """Write the rows, then the manifest of the stage ``log``.

    Args:
        folder: Made when it is missing.
        frame: All columns of :data:`m3router.data.log.checks.SCHEMA`.
        file: ``PARQUET`` or ``HUB_PARQUET``.
        inputs: What the log was made from, see :func:`m3router.data.manifest.write_manifest`.
        recorded: What else the manifest says, JSON values.

    Raises:
        DataError: It cannot be written; a log that stood there before is not half replaced.
    """
    buffer = io.BytesIO()
    table = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
    pq.write_table(table, buffer)
    atomic_write_bytes(folder / file, buffer.getvalue())
    files = {file: sha256_file(folder / file)}
    write_manifest(folder, stage=STAGE, inputs=inputs, params={}, files=files, **recorded)


def load(
    folder: Path, *, sha256: Callable[[Path], str] = sha256_file
) -> tuple[pd.DataFrame, list[str], str, dict[str, Any]]:
    """Read rows, options, cost unit and metadata, and check the rows against the manifest.

    Args:
        folder: What ``store`` wrote.
        sha256: Hashes the rows; whoever has done so already says so here.

    Raises:
        DataError: The folder holds no log, a newer one, or a damaged one.
    """
    manifest = read_manifest(folder, stage=STAGE)
    try:
        file = HUB_PARQUET if HUB_PARQUET in manifest["files"] else PARQUET
        recorded = manifest["files"][file]
        options, cost_unit = manifest["options"], manifest["cost_unit"]
        metadata = dict(manifest["metadata"])
        if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
            raise TypeError(f"options must be a list of names, not {options!r}")
        if not isinstance(cost_unit, str):
            raise TypeError(f"cost_unit must be a text, not {cost_unit!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"The manifest in {folder} is damaged: {error!r}. Label again.") from error
    path = folder / file
    found = sha256(path)
    if found != recorded:
        raise DataError(
            f"{path} is damaged or was changed. Copy the folder again, or label again. (SHA-256 "
            f"{found[:12]}, as written {str(recorded)[:12]})"
        )
    table = read_parquet(path, redo="Label again.")
    return table.to_pandas(ignore_metadata=True), options, cost_unit, metadata
