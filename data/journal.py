"""The journal of a labelling run: rows are appended durably, and a killed run is resumed.

File format, one JSON object a line: a header ``{"journal":1,"metadata":{...},"crc":"..."}``,
then batches ``{"rows":[...],"crc":"..."}``; ``crc`` is the CRC-32 of the bytes between the outer
brace and its own key. As in Optuna's ``storages/journal/_file.py`` a torn last line is dropped
and a torn line in the middle is an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from data.errors import DataError, MismatchError
from data.manifest import FULL_DISK, fsync_folder

JOURNAL = "journal.jsonl"
LOCK = "journal.lock"
VERSION = 1

_LINE = re.compile(rb'\{(.*),"crc":"([0-9a-f]{8})"\}', re.DOTALL)

_log = logging.getLogger(__name__)


class Journal:
    """An open journal; made by :meth:`open`, a context manager.

    Attributes:
        path: The file.
        rows: The latest row of every (example, scale) that is done, in order of first
            appearance; grows with :meth:`append`.
    """

    def __init__(self, path: Path, *, descriptor: int, lock: int) -> None:
        """Keep two open files; use :meth:`open` instead."""
        self.path = path
        self._descriptor = descriptor
        self._lock = lock
        self._done: dict[tuple[str, str], dict[str, Any]] = {}

    @classmethod
    def open(
        cls, folder: Path, metadata: Mapping[str, Any], *, retry_errors: bool = False
    ) -> Journal:
        """Start or resume the journal of a folder.

        Args:
            folder: The labelling run's folder; made when it is missing.
            metadata: What the rows depend on (model, grid, prompt version, ...); JSON values.
            retry_errors: Treat rows with an error as not done.

        Returns:
            The journal; its ``rows`` are done.

        Raises:
            DataError: Another process has it open, it is damaged, or it cannot be written.
            MismatchError: It was started with other metadata; the message names both sides.
        """
        path = folder / JOURNAL
        with contextlib.ExitStack() as undo:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
                undo.callback(os.close, lock)
                _take(lock, folder)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
                undo.callback(os.close, descriptor)
                fsync_folder(folder)
                content = path.read_bytes()
            except OSError as error:
                raise DataError(f"{path} cannot be opened: {error.strerror or error}.") from error
            journal = cls(path, descriptor=descriptor, lock=lock)
            journal._resume(content, json.loads(json.dumps(metadata)), retry_errors)
            undo.pop_all()
        return journal

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The latest row of every (example, scale) that is done; copies."""
        return [dict(row) for row in self._done.values()]

    @property
    def done(self) -> frozenset[tuple[str, str]]:
        """The (example id, scale) pairs that need no more labelling."""
        return frozenset(self._done)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows durably: when this returns they survive a crash.

        Args:
            rows: Rows of an oracle log, with at least ``example_id`` and ``scale``. A row for a
                pair that is already there replaces it.

        Raises:
            DataError: A row names no example or scale, or the disk is full; then nothing of
                this batch is kept and everything before it is.
        """
        if not rows:
            return
        for row in rows:
            _key(row)
        plain = [dict(row) for row in rows]
        self._write(_line({"rows": plain}))
        self._keep(plain)

    def close(self) -> None:
        """Close the file and let other processes have it; closing twice is fine."""
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

    def _resume(self, content: bytes, metadata: dict[str, Any], retry_errors: bool) -> None:
        """Read what is there, cut a torn tail, check the header or write it."""
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            _log.warning("%s: dropping %d bytes torn at its end", self.path, len(content) - whole)
            self._truncate(whole)
        if whole == 0:
            self._write(_line({"journal": VERSION, "metadata": metadata}))
            return
        offset = 0
        for line in content[:whole].splitlines(keepends=True):
            record = _parse(line, path=self.path, offset=offset)
            if offset == 0:
                self._check_header(record, metadata)
            else:
                self._keep(_rows_of(record, path=self.path, offset=offset))
            offset += len(line)
        if retry_errors:
            self._done = {k: row for k, row in self._done.items() if row.get("error") is None}

    def _check_header(self, header: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Refuse a journal that was started with something else."""
        version, there = header.get("journal"), header.get("metadata")
        if version != VERSION or not isinstance(there, dict):
            raise DataError(
                f"{self.path} starts with journal version {version!r}; this version reads "
                f"{VERSION}. Use another --out folder, or the version that wrote it."
            )
        differing = sorted(
            key for key in there.keys() | metadata.keys() if there.get(key) != metadata.get(key)
        )
        if differing:
            sides = "; ".join(
                f"{key}: journal {there.get(key)!r}, now {metadata.get(key)!r}" for key in differing
            )
            raise MismatchError(
                f"{self.path} was started with other settings ({sides}). Resume with the same "
                "ones, or label into another folder."
            )

    def _keep(self, rows: Iterable[dict[str, Any]]) -> None:
        """Remember rows as done, the latest one of each pair."""
        for row in rows:
            self._done[_key(row)] = row

    def _write(self, line: bytes) -> None:
        """Append one line, flushed to the disk; on failure cut what was written of it."""
        if self._descriptor < 0:
            raise DataError(f"{self.path} is closed.")
        before = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
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


def read_journal(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read a journal without opening it: nothing is locked or cut, it may be written meanwhile.

    Returns:
        The metadata that it was started with, and the latest row of every (example, scale).

    Raises:
        DataError: There is no journal, or it is damaged or of another version.
    """
    path = folder / JOURNAL
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    metadata: dict[str, Any] | None = None
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    offset = 0
    for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
        record = _parse(line, path=path, offset=offset)
        if metadata is None:
            metadata = record.get("metadata")
            if record.get("journal") != VERSION or not isinstance(metadata, dict):
                raise DataError(f"{path} is no journal of version {VERSION}.")
        else:
            rows |= {_key(row): row for row in _rows_of(record, path=path, offset=offset)}
        offset += len(line)
    if metadata is None:
        raise DataError(f"{path} is empty: no labelling run has begun there.")
    return metadata, list(rows.values())


def _take(lock: int, folder: Path) -> None:
    """Lock the folder for this process."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        raise DataError(
            f"{folder} is being labelled by another process (id {holder}). Wait for it or end "
            "it, or label into another folder."
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode("ascii"), 0)


def _line(record: Mapping[str, Any]) -> bytes:
    """Write one line with its checksum; NumPy numbers become plain ones."""
    text = json.dumps(record, separators=(",", ":"), default=_plain)
    payload = text[1:-1].encode("ascii")
    return b'{%b,"crc":"%08x"}\n' % (payload, zlib.crc32(payload))


def _plain(value: Any) -> Any:
    """Turn a NumPy scalar into a Python number."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value: {value!r}")


def _parse(line: bytes, *, path: Path, offset: int) -> dict[str, Any]:
    """Check the checksum of one whole line and read it."""
    match = _LINE.fullmatch(line.removesuffix(b"\n"))
    if match is None or zlib.crc32(match[1]) != int(match[2], 16):
        raise DataError(
            f"{path} is damaged at byte {offset} ({len(line)} bytes fail their checksum). Copy "
            f"it again, or cut it there (`truncate -s {offset}`): what follows is labelled again."
        )
    record: dict[str, Any] = json.loads(b"{" + match[1] + b"}")
    return record


def _rows_of(record: dict[str, Any], *, path: Path, offset: int) -> list[dict[str, Any]]:
    rows = record.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} has no rows at byte {offset}: it is not a journal of ours.")
    return rows


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    """Name the cell that a row is for."""
    try:
        return str(row["example_id"]), str(row["scale"])
    except KeyError as error:
        raise DataError(f"A journal row needs {error}: {dict(row)}.") from error
