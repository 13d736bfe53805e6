"""The files of a journal and their lines: JSON objects with a checksum each.

One JSON object a line: a header ``{"journal":1,"metadata":{...},"crc":"..."}``, then batches
``{"rows":[...],"crc":"..."}``; ``crc`` is the CRC-32 of the bytes between the outer brace and its
own key. As in Optuna's ``storages/journal/_file.py`` a torn last line is dropped and a torn line in
the middle is an error.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.errors import DataError

JOURNAL = "journal.jsonl"
VERSION = 1

_LINE = re.compile(rb'\{(.*),"crc":"([0-9a-f]{8})"\}', re.DOTALL)


def write_line(record: Mapping[str, Any]) -> bytes:
    """Write one line with its checksum; NumPy numbers become plain ones."""
    text = json.dumps(record, separators=(",", ":"), default=_plain)
    payload = text[1:-1].encode("ascii")
    return b'{%b,"crc":"%08x"}\n' % (payload, zlib.crc32(payload))


def _plain(value: Any) -> Any:
    """Turn a NumPy scalar into a Python number."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value: {value!r}")


def read_line(line: bytes, *, path: Path, offset: int) -> dict[str, Any]:
    """Check the checksum of one whole line and read it."""
    match = _LINE.fullmatch(line.removesuffix(b"\n"))
    if match is None or zlib.crc32(match[1]) != int(match[2], 16):
        raise DataError(
            f"{path} is damaged at byte {offset} ({len(line)} bytes fail their checksum). Copy "
            f"it again, or cut it there (`truncate -s {offset}`): what follows is labelled again."
        )
    record: dict[str, Any] = json.loads(b"{" + match[1] + b"}")
    return record


def read_records(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The records of a journal, header first, one line in memory at a time.

    Yields:
        (offset of its first byte, offset behind its last, record); a torn tail is left out.

    Raises:
        DataError: A whole line is damaged; the message names the byte.
    """
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield offset, offset + len(line), read_line(line, path=path, offset=offset)
            offset += len(line)


def journal_files(folder: Path) -> list[Path]:
    """The journals of all processes that ever labelled into a folder, in order of their ranks."""
    stem, suffix = JOURNAL.split(".")
    numbered = {
        int(path.name.split(".")[1]): path
        for path in folder.glob(f"{stem}.*.{suffix}")
        if path.name.split(".")[1].isdigit()
    }
    first = folder / JOURNAL
    return [*([first] if first.exists() else []), *(numbered[rank] for rank in sorted(numbered))]


def latest_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The row of every (example, scale) in a folder's journals, in order of first appearance.

    A row without an error goes before one with an error, a later row before an earlier one. Nothing
    is locked, and only pairs that were answered twice are kept in memory.

    Raises:
        DataError: A journal is damaged.
    """
    several: dict[tuple[str, str], dict[str, Any]] = {}
    seen: dict[str, set[str]] = {}
    for row in _all_rows(folder):
        example, scale = key_of(row)
        if scale in seen.setdefault(example, set()):
            several[example, scale] = {}
        seen[example].add(scale)
    seen.clear()
    for row in _all_rows(folder) if several else ():
        key = key_of(row)
        if key in several:
            there = several[key]
            if not there or row.get("error") is None or there.get("error") is not None:
                several[key] = row
    given: set[tuple[str, str]] = set()
    for row in _all_rows(folder):
        key = key_of(row)
        if key in several:
            if key in given:
                continue
            given.add(key)
            row = several[key]
        yield row


def _all_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Every row of every process, as often as it was written."""
    for path in journal_files(folder):
        for number, (offset, _, record) in enumerate(read_records(path)):
            if number:
                yield from rows_of(record, path=path, offset=offset)


def rows_of(record: dict[str, Any], *, path: Path, offset: int) -> list[dict[str, Any]]:
    """The rows of a record that is no header.

    Raises:
        DataError: It has none.
    """
    rows = record.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} has no rows at byte {offset}: it is not a journal of ours.")
    return rows


def key_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Name the cell that a row is for.

    Raises:
        DataError: It names no example or no scale.
    """
    try:
        return str(row["example_id"]), str(row["scale"])
    except KeyError as error:
        raise DataError(f"A journal row needs {error}: {dict(row)}.") from error
