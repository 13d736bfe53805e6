"""A folder of recorded traffic: lines are added and deleted for good, whenever a process dies.

::

    traffic/
        examples.jsonl   one line a request, see `m3router.router.traffic.records`; `label` reads it
        answered.jsonl   those that people told right answers of, with these
        sets/NAME.jsonl  what was written out to be labelled
        images/          PNG files, named by their pixels
        sampling.key     decides which requests are sampled; says that this folder is ours
        traffic.lock     held by the process that writes

`examples.jsonl` is what counts. An image is written before its line, and deleted after it; opening
the folder cuts a torn last line and lets go of all that no line needs: images, lines of the other
files, temporary files. So whatever a killed process had begun to delete is gone after that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.locks import take_lock
from m3router.data.manifest import atomic_write_bytes, fsync_folder, write_failure
from m3router.router.traffic.files import (
    Record,
    append_line,
    placed_lines,
    read_lines,
    write_lines,
)
from m3router.router.traffic.records import encoded

EXAMPLES, ANSWERED, SETS, IMAGES = "examples.jsonl", "answered.jsonl", "sets", "images"
LOCK, KEY = "traffic.lock", "sampling.key"

_IMAGE = re.compile(r"[0-9a-f]{32}\.png")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_log = logging.getLogger(__name__)


class TrafficFolder:
    """An open folder; made by :meth:`open`, a context manager. Not for several threads at once.

    Attributes:
        root: The folder.
        key: Of the hash that decides which requests are sampled, 32 bytes.
    """

    def __init__(self, root: Path, *, lock: int) -> None:
        """Keep the locked folder; use :meth:`open` instead."""
        self.root = root
        self.key = b""
        self._lock = lock
        self._kept: dict[str, tuple[str, datetime]] = {}

    @classmethod
    def open(cls, root: Path, *, make: bool = False) -> TrafficFolder:
        """Open a folder for this process alone, and finish what a killed one left.

        Args:
            root: The folder.
            make: Make one where there is none, or an empty folder.

        Raises:
            DataError: There is none, it is somebody else's, another process has it open, it is
                damaged, or it cannot be written.
        """
        with contextlib.ExitStack() as undo:
            try:
                _check_ours(root, make=make)
                root.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
                undo.callback(os.close, lock)
                take_lock(
                    lock,
                    f"{root} is in use by another process (id {{holder}}), such as a server. Ask "
                    "that one, or wait until it has ended.",
                )
                if not (root / KEY).exists():
                    atomic_write_bytes(root / KEY, secrets.token_bytes(32))
                (root / IMAGES).mkdir(exist_ok=True)
                (root / EXAMPLES).touch(mode=0o600)
                fsync_folder(root)
                folder = cls(root, lock=lock)
                folder.key = (root / KEY).read_bytes()
                folder._mend()
            except OSError as error:
                raise DataError(f"{root} cannot be opened: {error.strerror or error}.") from error
            undo.pop_all()
        return folder

    def __len__(self) -> int:
        """Count the records."""
        return len(self._kept)

    def add(self, record: Record, image: Image.Image) -> None:
        """Add a request durably: when this returns it survives a crash.

        Args:
            record: See `m3router.router.traffic.records.record_of`.
            image: Its image.

        Raises:
            DataError: There is a record of this id, or the disk is full; nothing is kept then.
        """
        self._check_open()
        name, identity = record["image"], record["id"]
        if identity in self._kept:
            raise DataError(f"{self.root} has a record of {identity!r} already: ids must differ.")
        file = self.root / IMAGES / name
        fresh = not file.exists()
        try:
            if fresh:
                atomic_write_bytes(file, encoded(image))
            append_line(self.root / EXAMPLES, record)
        except DataError:
            if fresh:
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)
            raise
        self._kept[identity] = (name, _time_of(record))

    def forget(self, ids: Collection[str]) -> int:
        """Delete records for good: lines, images that no other record has, and copies.

        Args:
            ids: Of the requests.

        Returns:
            How many of them were there.

        Raises:
            DataError: The disk is full or a file damaged. Then some of it may still be there: call
                again.
        """
        self._check_open()
        return self._drop(lambda name: name in ids)

    def purge(self, before: datetime) -> int:
        """Delete what is older, as :meth:`forget` does; returns how many records that were."""
        self._check_open()
        return self._drop(lambda name: self._kept[name][1] < before)

    def answer(self, told: Sequence[Example]) -> int:
        """Keep right answers that people told; later ones replace earlier ones.

        Args:
            told: The examples with their right answers and metric.

        Returns:
            How many records have right answers now.

        Raises:
            DataError: An id is unknown; nothing is taken then.
        """
        self._check_open()
        unknown = [one.id for one in told if one.id not in self._kept]
        if unknown:
            raise DataError(
                f"{self.root} has no record of {len(unknown)} of the {len(told)} answered "
                f"questions, such as {unknown[0]!r}; no answer was taken. It may have been "
                "deleted: leave it out."
            )
        lines = {line["id"]: line for line in read_lines(self.root / ANSWERED)}
        lines |= {one.id: one.to_dict() for one in told}
        write_lines(self.root / ANSWERED, lines.values())
        return len(lines)

    def write_set(self, name: str) -> Path:
        """Write what is there now to a file of its own, which stays as it is while others come.

        Raises:
            DataError: The name is not a plain one, or taken, or there are no records.
        """
        self._check_open()
        path = self.root / SETS / f"{name}.jsonl"
        if not _NAME.fullmatch(name):
            raise DataError(
                f"A set's name must be letters, digits, '-', '_' and '.', not {name!r}."
            )
        if path.exists():
            raise DataError(f"{path} exists. Choose another name.")
        if not self._kept:
            raise DataError(f"{self.root} has no records: nothing was written.")
        write_lines(path, read_lines(self.root / EXAMPLES))
        return path

    def close(self) -> None:
        """Let other processes have the folder; closing twice is fine."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> TrafficFolder:
        """Give the folder itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _mend(self) -> None:
        """Cut a torn last line, read what is there, and finish deletions."""
        path = self.root / EXAMPLES
        whole = 0
        for end, record in placed_lines(path):
            whole = end
            self._kept[record["id"]] = (record["image"], _time_of(record))
        if path.exists() and whole < path.stat().st_size:
            _log.warning("%s: dropping a line torn at its end", path)
            os.truncate(path, whole)
        for folder in (self.root, self.root / IMAGES, self.root / SETS):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
        self._sweep()

    def _drop(self, unwanted: Callable[[str], bool]) -> int:
        """Delete the records whose ids are unwanted."""
        gone = {name for name in self._kept if unwanted(name)}
        try:
            if gone:
                path = self.root / EXAMPLES
                write_lines(path, (line for line in read_lines(path) if line["id"] not in gone))
                for name in gone:
                    del self._kept[name]
            self._sweep()
        except OSError as error:
            raise DataError(write_failure(self.root, error)) from error
        return len(gone)

    def _sweep(self) -> None:
        """Let go of all that no record needs."""
        for path in (self.root / ANSWERED, *sorted((self.root / SETS).glob("*.jsonl"))):
            lines = list(read_lines(path))
            kept = [line for line in lines if line["id"] in self._kept]
            if len(kept) < len(lines):
                write_lines(path, kept)
        needed, images = {name for name, _ in self._kept.values()}, self.root / IMAGES
        for image in os.listdir(images):
            if _IMAGE.fullmatch(image) and image not in needed:
                (images / image).unlink()
        fsync_folder(images)

    def _check_open(self) -> None:
        if self._lock < 0:
            raise DataError(f"{self.root} is closed.")


def read_traffic(root: Path) -> list[Record]:
    """The records of a folder, oldest first; another process may be writing it.

    Raises:
        DataError: It is not such a folder, or it is damaged.
    """
    _check_ours(root, make=False)
    return list(read_lines(root / EXAMPLES))


def _time_of(record: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(record["time"])


def _check_ours(root: Path, *, make: bool) -> None:
    """Refuse a folder with other things in it: images that no line names are deleted."""
    if (root / KEY).is_file():
        return
    if not make:
        raise DataError(
            f"{root} is not a folder of recorded traffic: it has no {KEY}. Check the path, or "
            "record some with `m3router serve`."
        )
    others = [name for name in os.listdir(root) if not _begun(name)] if root.exists() else []
    if others:
        raise DataError(
            f"{root} is not empty and holds no recorded traffic, but {others[0]!r}. Give a folder "
            "of its own."
        )


def _begun(name: str) -> bool:
    """Whether a file is there before the key is."""
    return name == LOCK or (name.startswith(".") and name.endswith(".tmp"))
