"""The files of a folder of recorded traffic: JSON objects with a checksum each, for one user alone.

Whatever the process's umask, files get the permissions 0600 and folders 0700.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError
from m3router.data.json_files import values_of
from m3router.data.log.journal import ChecksumError, read_records, write_line
from m3router.data.manifest import atomic_write_bytes, write_failure

Record = dict[str, Any]
FILE, FOLDER = 0o600, 0o700
"""Permissions: whoever runs the server may read and write, nobody else may anything."""


def make_folder(path: Path) -> None:
    """Make a folder of one's own where there is none, and keep others out of one that is there.

    Raises:
        OSError: It cannot be made, or is somebody else's.
    """
    path.mkdir(mode=FOLDER, parents=True, exist_ok=True)
    restrict(path, FOLDER)


def restrict(path: Path, mode: int) -> None:
    """Take what others may from a file or folder.

    Raises:
        OSError: It is somebody else's.
    """
    if path.stat().st_mode & 0o777 != mode:
        path.chmod(mode)


def read_lines(path: Path) -> Iterator[Record]:
    """The lines of a file of such a folder; none where there is no file.

    Raises:
        DataError: It cannot be read, or a whole line was damaged or edited.
    """
    for _, record in placed_lines(path):
        yield record


def using(path: Path) -> AbstractContextManager[None]:
    """Within it the values of a file's lines are used; one that does not fit is told.

    Raises:
        DataError: Something else wrote the file.
    """
    return values_of(path, redo="Something else wrote it: put the file back as it was.")


def placed_lines(path: Path) -> Iterator[tuple[int, Record]]:
    """The byte behind each line, and the line; a torn last one is left out.

    Raises:
        DataError: As :func:`read_lines`.
    """
    place = 0
    try:
        for _, place, record in read_records(path):
            if not isinstance(record.get("id"), str):
                raise DataError(
                    f"{path} has a line without an id before byte {place}: something else wrote "
                    "it. Put the file back as it was, or take that line out."
                )
            yield place, record
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ChecksumError as error:
        raise DataError(
            f"{path} is damaged at byte {place}: a line fails its checksum, or was edited by hand. "
            "Put the file back as it was, or take that line out."
        ) from error


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a file anew, whole or not at all; checksums are made again."""
    try:
        make_folder(path.parent)
    except OSError as error:
        raise DataError(write_failure(path, error)) from error
    atomic_write_bytes(path, b"".join(write_line(line) for line in lines), mode=FILE)


def append_line(path: Path, line: bytes) -> None:
    """Append a line, flushed to the disk; on failure cut what was written of it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE)
        try:
            os.fchmod(descriptor, FILE)
            before = os.fstat(descriptor).st_size
            try:
                view = memoryview(line)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DataError(write_failure(path, error)) from error
