"""The journal of a labelling run: rows are appended durably, and a killed run is resumed.

Each process of a run writes a file of its own, ``journal.jsonl`` or ``journal.<rank>.jsonl``, and
reads those of all, so that a run goes on with another number of processes. Rows stay on the
disk; only what is done is kept in memory.

A file has one JSON object a line: a header ``{"journal":1,"metadata":{...},"crc":"..."}``, then
batches ``{"rows":[...],"crc":"..."}``, or ``{"metadata":{...},"crc":"..."}`` where the run goes on
with other metadata, such as more examples; ``crc`` is the CRC-32 of the bytes between the outer
brace and its own key. As in Optuna's ``storages/journal/_file.py`` a torn last line is dropped and
a torn line in the middle is an error.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from m3router.data.errors import DataError, MismatchError
from m3router.data.json_files import parse_json
from m3router.data.locks import take_lock
from m3router.data.manifest import FULL_DISK, fsync_folder
from m3router.data.plain_files import is_there, open_file
from m3router.data.scoring.judged import is_waiting

JOURNAL = "journal.jsonl"
OTHER = {
    "asked": "another way of asking",
    "examples_sha256": "other examples",
    "grid": "other options",
    "max_new_tokens": "another longest answer",
    "model": "another model",
    "n_examples": "other examples",
    "revision": "other weights, prompt or options of the model",
}
"""Setting -> what it is in words, where its name does not say it."""
_HASH = re.compile(r"[0-9a-f]{40,}")
VERSION = 1
NESTED = "deciding"
"""Key of the metadata whose value is told part by part: all that decides answers."""

_LINE = re.compile(rb'\{(.*),"crc":"([0-9a-f]{8})"\}', re.DOTALL)


def write_line(record: Mapping[str, Any]) -> bytes:
    """Write one line with its checksum; NumPy numbers become plain ones."""
    text = json.dumps(record, separators=(",", ":"), default=_plain)
    payload = text[1:-1].encode("ascii")
    return b'{%b,"crc":"%08x"}\n' % (payload, zlib.crc32(payload))


class ChecksumError(DataError):
    """A whole line fails its checksum."""


def _plain(value: Any) -> Any:
    """Turn a NumPy scalar into a Python number."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a JSON value: {value!r}")


def read_line(line: bytes, *, path: Path, offset: int) -> dict[str, Any]:
    """Check the checksum of one whole line and read it."""
    match = _LINE.fullmatch(line.removesuffix(b"\n"))
    if match is None or zlib.crc32(match[1]) != int(match[2], 16):
        raise ChecksumError(
            f"{path} is damaged at byte {offset} ({len(line)} bytes fail their checksum). Copy "
            f"it again, or cut it there (`truncate -s {offset}`): what follows is labelled again."
        )
    try:
        record: dict[str, Any] = parse_json(b"{" + match[1] + b"}", nan=True)
    except ValueError as error:
        raise DataError(
            f"{path} has a right checksum but no journal's line at byte {offset} ({error}): "
            "something else wrote it. Use another folder."
        ) from error
    return record


def read_records(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The records of a journal, header first, one line in memory at a time.

    Yields:
        (offset of its first byte, offset behind its last, record); a torn tail is left out.

    Raises:
        DataError: A whole line is damaged; the message names the byte.
        OSError: The file cannot be opened.
    """
    offset = 0
    with open_file(path) as file:
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
    return [*([first] if is_there(first) else []), *(numbered[rank] for rank in sorted(numbered))]


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
    """The rows of a record that is not a header; none where it has metadata.

    Raises:
        DataError: It has neither.
    """
    rows = record.get("rows")
    if rows is None and isinstance(record.get("metadata"), dict):
        return []
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


LOCK = "journal.lock"

_log = logging.getLogger(__name__)


class Journal:
    """An open journal; made by :meth:`open`, a context manager.

    Attributes:
        path: The file that this process writes.
    """

    def __init__(self, path: Path, *, descriptor: int, lock: int, retry_errors: bool) -> None:
        """Keep two open files; use :meth:`open` instead."""
        self.path = path
        self.retry_errors = retry_errors
        self._descriptor = descriptor
        self._lock = lock
        self._synced = time.monotonic()
        self._pending = False
        self._metadata: dict[str, Any] = {}
        self._done: dict[str, frozenset[str]] = {}
        self._sets: dict[frozenset[str], frozenset[str]] = {}

    @classmethod
    def open(
        cls,
        folder: Path,
        metadata: Mapping[str, Any],
        *,
        retry_errors: bool = False,
        rank: int = 0,
        assumed: Mapping[str, Any] | None = None,
        renewed: Collection[str] = (),
    ) -> Journal:
        """Start or resume the journal of a folder.

        Args:
            folder: The labelling run's folder; made when it is missing.
            metadata: What the rows depend on (model, grid, prompt version, ...); JSON values.
            retry_errors: Treat rows with an error as not done.
            rank: Number of this process among those that label together, from 0; the first one
                must have opened its journal before the others do.
            assumed: What is meant where a journal of an earlier version lacks a key.
            renewed: Keys of the metadata that may differ; see :meth:`renew`.

        Returns:
            The journal.

        Raises:
            DataError: Another process has it open, it is damaged, or it cannot be written.
            MismatchError: It was started with other metadata; the message names both sides.
        """
        path, lock_file = folder / _name(JOURNAL, rank), folder / _name(LOCK, rank)
        with contextlib.ExitStack() as undo:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if rank == 0:
                    _check_free(folder, except_for=lock_file)
                lock = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o666)
                undo.callback(os.close, lock)
                take_lock(lock, _busy(folder))
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
                undo.callback(os.close, descriptor)
                fsync_folder(folder)
                journal = cls(path, descriptor=descriptor, lock=lock, retry_errors=retry_errors)
                journal._resume(
                    json.loads(json.dumps(metadata)), dict(assumed or {}), frozenset(renewed)
                )
            except OSError as error:
                raise DataError(f"{path} cannot be opened: {error.strerror or error}.") from error
            undo.pop_all()
        return journal

    def read_rows(self) -> Iterator[dict[str, Any]]:
        """The latest row of every (example, scale), in order of first appearance, from the disk."""
        return latest_rows(self.path.parent)

    def has(self, example: str, scales: Iterable[str]) -> bool:
        """Whether an example needs no more labelling at any of these scales."""
        return self._done.get(example, frozenset()).issuperset(scales)

    def append(self, rows: Sequence[Mapping[str, Any]], *, within: float = 0.0) -> None:
        """Add rows durably: when this returns they survive the end of this process.

        Args:
            within: Seconds in which they are flushed to the disk, to survive a crash of the machine
                as well: at the latest with the next rows after so long, or when this is closed.
            rows: Rows of an oracle log, with at least ``example_id`` and ``scale``. A row for a
                pair that is already there replaces it.

        Raises:
            DataError: A row names no example or scale, or the disk is full; then nothing of
                this batch is kept and everything before it is.
        """
        if not rows:
            return
        for row in rows:
            key_of(row)
        self._write(write_line({"rows": [dict(row) for row in rows]}), within=within)
        for row in rows:
            self._keep(row, retry_errors=False)

    def close(self) -> None:
        """Close the file and let other processes have it; closing twice is fine."""
        if self._pending:
            with contextlib.suppress(OSError):  # the rows are written, and the process goes on
                os.fsync(self._descriptor)
            self._pending = False
        for name in ("_descriptor", "_lock"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)

    def __enter__(self) -> Journal:
        """Give the journal itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def renew(self, metadata: Mapping[str, Any]) -> None:
        """Record that the run goes on with other metadata; as it is, nothing is written.

        Raises:
            DataError: It cannot be written.
        """
        told = json.loads(json.dumps(metadata))
        if told != self._metadata:
            self._write(write_line({"metadata": told}))
            self._metadata = told

    def _resume(
        self, metadata: dict[str, Any], assumed: dict[str, Any], renewed: frozenset[str]
    ) -> None:
        """Read what is there, cut this file's torn tail, check its metadata or write them."""
        whole = 0
        self._metadata = metadata
        for path in journal_files(self.path.parent):
            first: dict[str, Any] | None = None
            there: dict[str, Any] = {}
            for offset, end, record in read_records(path):
                whole = end if path == self.path else whole
                if first is None:
                    first = there = _header(path, record)
                    continue
                there = record.get("metadata", there)
                for row in rows_of(record, path=path, offset=offset):
                    self._keep(row, retry_errors=self.retry_errors)
            if first is None:
                continue
            _check_metadata(path, there, metadata, assumed, renewed)
            if path == self.path:
                self._metadata = there
            # Where a run went on with other metadata, its first process alone recorded them.
            renewed |= {key for key in there if there[key] != first.get(key)}
        size = os.fstat(self._descriptor).st_size
        if whole < size:
            _log.warning("%s: dropping %d bytes torn at its end", self.path, size - whole)
            self._truncate(whole)
        if whole == 0:
            self._write(write_line({"journal": VERSION, "metadata": metadata}))

    def _keep(self, row: Mapping[str, Any], *, retry_errors: bool) -> None:
        """Remember that a row is done."""
        error = row.get("error")
        if retry_errors and error is not None and not is_waiting(error):
            return
        example, scale = key_of(row)
        scales = self._done.get(example, frozenset()) | {scale}
        self._done[example] = self._sets.setdefault(scales, scales)  # one object for all examples

    def _write(self, line: bytes, *, within: float = 0.0) -> None:
        """Append one line, flushed to the disk in time; on failure cut what was written of it."""
        if self._descriptor < 0:
            raise DataError(f"{self.path} is closed.")
        before = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._descriptor, view) :]
            self._pending = time.monotonic() - self._synced < within
            if not self._pending:
                os.fsync(self._descriptor)
                self._synced = time.monotonic()
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
            reason = error.strerror or str(error)
            if error.errno in FULL_DISK:
                raise DataError(
                    f"Disk full while writing {self.path} ({reason}). Nothing that was there is "
                    "lost: free some space and resume with the same command."
                ) from error
            raise DataError(
                f"{self.path} cannot be written: {reason}. Nothing that was there is lost: "
                "resume with the same command."
            ) from error

    def _truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor, size)
            os.fsync(self._descriptor)
        except OSError as error:
            raise DataError(
                f"The torn end of {self.path} cannot be cut: {error.strerror or error}."
            ) from error


def _name(file: str, rank: int) -> str:
    """``journal.jsonl`` or ``journal.3.jsonl``."""
    stem, suffix = file.split(".")
    return f"{stem}.{rank}.{suffix}" if rank else file


def _header(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a header.

    Raises:
        DataError: It is of another version.
    """
    version, there = record.get("journal"), record.get("metadata")
    if version != VERSION or not isinstance(there, dict):
        raise DataError(
            f"{path} starts with journal version {version!r}; this version reads {VERSION}. Use "
            "another --out folder, or the version that wrote it."
        )
    return there


def _check_metadata(
    path: Path,
    there: dict[str, Any],
    metadata: dict[str, Any],
    assumed: dict[str, Any],
    renewed: frozenset[str],
) -> None:
    """Refuse a journal that was started with something else."""
    there = {**assumed, **there}
    differing = [
        one
        for key in sorted((there.keys() | metadata.keys()) - renewed)
        for one in _differing(there.get(key), metadata.get(key), key, nested=key == NESTED)
    ]
    if differing:
        names = [key for key, _, _ in differing]
        if "model" in names and "revision" in names:
            names.remove("revision")  # another model is other weights
        other = dict.fromkeys(OTHER.get(key, f"another {key!r}") for key in names)
        sides = "; ".join(
            f"{key}: journal {_shortly(one)}, now {_shortly(now)}" for key, one, now in differing
        )
        raise MismatchError(
            f"{path} was started with other settings: {', '.join(other)}. Resume with the same "
            f"ones, or label into another folder. ({sides})"
        )


def _shortly(value: Any) -> str:
    """A value of a setting; of a hash its beginning."""
    return value[:12] if isinstance(value, str) and _HASH.fullmatch(value) else repr(value)


def _differing(there: Any, now: Any, path: str, *, nested: bool) -> list[tuple[str, Any, Any]]:
    """Where two JSON values differ, such as ``("deciding.low.longest_side", 64, 128)``."""
    if nested and isinstance(there, dict) and isinstance(now, dict):
        return [
            one
            for key in sorted(there.keys() | now.keys())
            for one in _differing(there.get(key), now.get(key), f"{path}.{key}", nested=True)
        ]
    return [] if there == now else [(path, there, now)]


def _check_free(folder: Path, *, except_for: Path) -> None:
    """Refuse a folder that further processes of an earlier launch still write to."""
    stem, suffix = LOCK.split(".")
    for path in folder.glob(f"{stem}.*.{suffix}"):
        if path != except_for:
            descriptor = os.open(path, os.O_RDWR)
            try:
                take_lock(descriptor, _busy(folder))
            finally:
                os.close(descriptor)


def _busy(folder: Path) -> str:
    return (
        f"{folder} is being labelled by another process (id {{holder}}). Wait for it or end "
        "it, or label into another folder."
    )
