"""A folder of recorded traffic: lines are added and deleted for good, whenever a process dies.

::

    traffic/
        examples.jsonl   one line a request, see `m3router.router.traffic.records`; `label` reads it
        answered.jsonl   those that people told right answers of, with these
        feedback.jsonl   what those who asked say of their answers; the last line of an id counts
        sets/NAME.jsonl  what was written out to be labelled
        images/          PNG files, named by their pixels
        sampling.key     decides which requests are sampled; says that this folder is ours
        traffic.lock     held by the process that writes

`examples.jsonl` is what counts. An image is written before its line, and deleted after it; opening
the folder cuts a torn last line and lets go of all that no line needs: images, lines of the other
files, temporary files. So whatever a killed process had begun to delete is gone after that.

Everything is for the user alone who runs the server: a folder that others could read is closed to
them when it is opened, and refused where that is not possible.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.locks import take_lock
from m3router.data.log.journal import write_line
from m3router.data.manifest import atomic_write_bytes, fsync_folder, write_failure
from m3router.data.paths import StrPath, as_path
from m3router.data.plain_files import read_bytes
from m3router.router.traffic.feedback import Feedback
from m3router.router.traffic.files import (
    FILE,
    FOLDER,
    Record,
    append_line,
    make_folder,
    placed_lines,
    read_lines,
    restrict,
    using,
    write_lines,
)
from m3router.router.traffic.records import encoded, upgraded

EXAMPLES, ANSWERED, SETS, IMAGES = "examples.jsonl", "answered.jsonl", "sets", "images"
FEEDBACK = "feedback.jsonl"
LOCK, KEY = "traffic.lock", "sampling.key"
KEY_BYTES = 32
ROOM = 0.9
"""Share of the bytes that are kept when the oldest records go, so that they go seldom."""
FEW = 8
"""Deleted records that are looked for in a file before it is read line by line."""
REPEATS = 64
"""Lines of feedback that later ones have replaced, beyond which the file is written anew."""

_IMAGE = re.compile(r"[0-9a-f]{32}\.png")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is remembered of a record: its image, when it came, who asked, and its line's bytes."""

    image: str
    time: datetime
    key: str
    answer_id: str
    bytes: int

    @classmethod
    def of(cls, record: Record, bytes: int) -> _Kept:
        answer_id = record.get("served", {}).get("answer_id", "")
        when = datetime.fromisoformat(record["time"])
        if when.tzinfo is None:
            raise ValueError(f"{record['time']} names no zone")
        return cls(record["image"], when, record.get("key", ""), answer_id, bytes)


class TrafficFolder:
    """An open folder; made by :meth:`open`, a context manager. Not for several threads at once.

    Attributes:
        root: The folder.
        key: Of the hash that decides which requests are sampled, 32 bytes.
        max_bytes: Most bytes of all files; None for any number.
    """

    def __init__(self, root: StrPath, *, lock: int, max_bytes: int | None = None) -> None:
        """Keep the locked folder; use :meth:`open` instead."""
        root = as_path(root)
        self.root = root
        self.key = b""
        self.max_bytes = max_bytes
        self._lock = lock
        self._kept: dict[str, _Kept] = {}
        self._by_answer: dict[tuple[str, str], str] = {}
        self._texts: dict[Path, int] = {}
        self._images: dict[str, int] = {}
        self._with_feedback: set[str] = set()
        self._feedback_lines = 0
        self._unswept = True

    @classmethod
    def open(
        cls, root: StrPath, *, make: bool = False, max_bytes: int | None = None
    ) -> TrafficFolder:
        """Open a folder for this process alone, and finish what a killed one left.

        Args:
            root: The folder.
            make: Make one where there is none, or an empty folder.
            max_bytes: Most bytes of all files; the oldest records go where there are more. None for
                any number.

        Raises:
            DataError: There is none, it is somebody else's, others can read it and that cannot be
                changed, another process has it open, it is damaged, or it cannot be written.
        """
        root = as_path(root)
        with contextlib.ExitStack() as undo:
            try:
                _check_ours(root, make=make)
                make_folder(root)
                lock = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, FILE)
                undo.callback(os.close, lock)
                take_lock(
                    lock,
                    f"{root} is in use by another process (id {{holder}}), such as a server. Ask "
                    "that one, or wait until it has ended.",
                )
                if not (root / KEY).exists():
                    atomic_write_bytes(root / KEY, secrets.token_bytes(KEY_BYTES), mode=FILE)
                make_folder(root / IMAGES)
                (root / EXAMPLES).touch(mode=FILE)
                _close_to_others(root)
                fsync_folder(root)
                folder = cls(root, lock=lock, max_bytes=max_bytes)
                folder.key = read_bytes(root / KEY)
                if len(folder.key) != KEY_BYTES:
                    raise DataError(
                        f"{root / KEY} is damaged: it has {len(folder.key)} bytes, not "
                        f"{KEY_BYTES}. Put it back, or remove it: then other requests are sampled."
                    )
                folder._mend()
                folder._make_room(0)
            except PermissionError as error:
                raise DataError(
                    f"{root} cannot be opened: {error.strerror} ({error.filename}). Requests are "
                    "kept where their owner alone can read them: give a folder that belongs to the "
                    "user who runs this."
                ) from error
            except OSError as error:
                raise DataError(f"{root} cannot be opened: {error.strerror or error}.") from error
            undo.pop_all()
        return folder

    def __len__(self) -> int:
        """Count the records."""
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Of all files that requests are kept in; known without looking at the disk."""
        return sum(self._texts.values()) + sum(self._images.values())

    def add(self, record: Record, image: Image.Image) -> int:
        """Add a request durably: when this returns it survives a crash.

        Args:
            record: See `m3router.router.traffic.records.record_of`.
            image: Its image.

        Returns:
            How many of the oldest records went to make room for it.

        Raises:
            DataError: There is a record of this id, it alone is larger than the folder may be, or
                the disk is full; nothing of it is kept then.
        """
        self._check_open()
        name, identity, line = record["image"], record["id"], write_line(record)
        if identity in self._kept:
            raise DataError(f"{self.root} has a record of {identity!r} already: ids must differ.")
        gone = self._make_room(len(line))
        file = self.root / IMAGES / name
        fresh = name not in self._images
        content = encoded(image) if fresh else b""
        gone += self._make_room(len(line) + len(content))
        try:
            if fresh:
                atomic_write_bytes(file, content, mode=FILE)
            append_line(self.root / EXAMPLES, line)
        except DataError:
            if fresh:
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)
            raise
        if fresh:
            self._images[name] = len(content)
        self._grow(EXAMPLES, len(line))
        self._keep(identity, _Kept.of(record, len(line)))
        return gone

    def find(self, id: str, *, key: str | None) -> str | None:
        """The record of a request, by its own id or that of its answer.

        Args:
            id: Of either.
            key: Who asks for it; None for whoever runs this.

        Returns:
            The record's id; None where there is none, or where another key asked.
        """
        there = self._kept.get(id)
        if there is not None and key in (None, there.key):
            return id
        return None if key is None else self._by_answer.get((key, id))

    def forget(self, ids: Collection[str], *, key: str | None = None) -> int:
        """Delete records for good: lines, images that no other record has, and copies.

        Args:
            ids: Of the requests, or of their answers where a key is given.
            key: Who wants that: requests of others stay. None for whoever runs this.

        Returns:
            How many of them were there.

        Raises:
            DataError: The disk is full or a file damaged. Then some of it may still be there: call
                again.
        """
        self._check_open()
        return self._drop({found for id in ids if (found := self.find(id, key=key)) is not None})

    def add_feedback(self, id: str, told: Feedback) -> None:
        """Keep what is said of an answer durably, instead of what was said before.

        Args:
            id: Of a record, see :meth:`find`.
            told: What is said.

        Raises:
            DataError: There is no such record, or the disk is full.
        """
        self._check_open()
        if id not in self._kept:
            raise DataError(f"{self.root} has no record of {id!r}.")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        kept = {"id": id, "score": told.score, **({"answer": told.answer} if told.answer else {})}
        line = write_line({**kept, "time": now})
        self._make_room(len(line), spare=id)
        append_line(self.root / FEEDBACK, line)
        self._grow(FEEDBACK, len(line))
        self._feedback_lines += 1
        self._with_feedback.add(id)
        if self._feedback_lines > 2 * len(self._with_feedback) + REPEATS:
            self._compact_feedback()

    def purge(self, before: datetime) -> int:
        """Delete what is older, as :meth:`forget` does; returns how many records that were."""
        self._check_open()
        return self._drop({name for name, kept in self._kept.items() if kept.time < before})

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
        self._write(self.root / ANSWERED, lines.values())
        return len(lines)

    def write_set(self, name: str, references: Mapping[str, Example] | None = None) -> int:
        """Write `sets/NAME.jsonl`, which stays as it is while other requests come.

        Args:
            name: Of the set.
            references: Right answers by the ids of the records: only these are written, with them.
                None for all that is there now, without any.

        Returns:
            How many were written.

        Raises:
            DataError: The name is not a plain one, or taken, or there is nothing to write.
        """
        self._check_open()
        path = self.root / SETS / f"{name}.jsonl"
        if not _NAME.fullmatch(name):
            raise DataError(
                f"A set's name must be letters, digits, '-', '_' and '.', not {name!r}."
            )
        if path.exists():
            raise DataError(f"{path} exists. Choose another name.")
        lines = _records(self.root / EXAMPLES)
        if references is not None:
            lines = [
                {**line, **references[line["id"]].to_dict()}
                for line in lines
                if line["id"] in references
            ]
        if not lines:
            what = "records" if references is None else "feedback that tells a right answer"
            raise DataError(f"{self.root} has no {what}: nothing was written.")
        self._write(path, lines)
        return len(lines)

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
        for folder in (self.root, self.root / IMAGES, self.root / SETS):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
        path, whole = self.root / EXAMPLES, 0
        for end, record in placed_lines(path):
            with using(path):
                self._keep(record["id"], _Kept.of(upgraded(record), end - whole))
            whole = end
        _cut(path, whole)
        feedback, whole = self.root / FEEDBACK, 0
        for end, line in placed_lines(feedback):
            whole = end
            self._with_feedback.add(line["id"])
            self._feedback_lines += 1
        _cut(feedback, whole)
        for text in (path, feedback, self.root / ANSWERED, *(self.root / SETS).glob("*.jsonl")):
            if text.exists():
                self._texts[text] = text.stat().st_size
        with os.scandir(self.root / IMAGES) as images:
            self._images = {one.name: one.stat().st_size for one in images if _is_image(one.name)}
        self._sweep()

    def _keep(self, id: str, kept: _Kept) -> None:
        self._kept[id] = kept
        if kept.answer_id:
            self._by_answer[kept.key, kept.answer_id] = id

    def _drop(self, gone: Collection[str]) -> int:
        """Delete records."""
        swept = not self._unswept
        try:
            if gone:
                self._rewrite_without(gone)
                self._unswept = True
                for name in gone:
                    kept = self._kept.pop(name)
                    if self._by_answer.get((kept.key, kept.answer_id)) == name:
                        del self._by_answer[kept.key, kept.answer_id]
            if self._unswept:
                self._sweep(gone if swept else ())
        except OSError as error:
            raise DataError(write_failure(self.root, error)) from error
        return len(gone)

    def _rewrite_without(self, gone: Collection[str]) -> None:
        """Write the records anew, without reading what is in them: a client can ask for it."""
        path = self.root / EXAMPLES
        content = memoryview(path.read_bytes())
        if sum(kept.bytes for kept in self._kept.values()) != len(content):  # somebody's edit
            self._write(path, (line for line in read_lines(path) if line["id"] not in gone))
            return
        left, place = [], 0
        for name, kept in self._kept.items():  # in the order of the file
            if name not in gone:
                left.append(content[place : place + kept.bytes])
            place += kept.bytes
        atomic_write_bytes(path, b"".join(left), mode=FILE)
        self._texts[path] = sum(map(len, left))

    def _sweep(self, gone: Collection[str] = ()) -> None:
        """Let go of all that no record needs.

        Args:
            gone: The records that are gone since the last time; none where that is not known.
        """
        for path in [one for one in self._texts if one != self.root / EXAMPLES]:
            if 0 < len(gone) <= FEW and not _names_any(path, gone):
                continue
            lines = list(read_lines(path))
            kept = [line for line in lines if line["id"] in self._kept]
            if len(kept) < len(lines):
                self._write(path, kept)
                if path == self.root / FEEDBACK:
                    self._feedback_lines = len(kept)
        self._with_feedback &= self._kept.keys()
        needed = {kept.image for kept in self._kept.values()}
        for image in self._images.keys() - needed:
            (self.root / IMAGES / image).unlink(missing_ok=True)
            del self._images[image]
        fsync_folder(self.root / IMAGES)
        self._unswept = False

    def _make_room(self, more: int, *, spare: str = "") -> int:
        """Delete the oldest records until so many bytes more have room; returns how many went.

        Raises:
            DataError: There cannot be that much room.
        """
        most = self.max_bytes
        if most is None or self.bytes + more <= most:
            return 0
        if more > most:
            raise DataError(
                f"a record of {more} bytes is larger than {self.root} may be ({most} bytes)."
            )
        uses = Counter(kept.image for kept in self._kept.values())
        total = 0
        while self.bytes + more > most:
            left, gone = self.bytes + more, set[str]()
            for name in sorted(self._kept, key=lambda name: self._kept[name].time):
                if left <= ROOM * most:
                    break
                if name == spare:
                    continue
                kept = self._kept[name]
                gone.add(name)
                uses[kept.image] -= 1
                left -= kept.bytes + (0 if uses[kept.image] else self._images.get(kept.image, 0))
            if not gone:
                raise DataError(f"{self.root} is full ({most} bytes).")
            total += self._drop(gone)
        return total

    def _compact_feedback(self) -> None:
        path = self.root / FEEDBACK
        last = {line["id"]: line for line in read_lines(path)}
        self._write(path, last.values())
        self._feedback_lines = len(last)

    def _write(self, path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
        write_lines(path, lines)
        self._texts[path] = path.stat().st_size

    def _grow(self, name: str, bytes: int) -> None:
        path = self.root / name
        self._texts[path] = self._texts.get(path, 0) + bytes

    def _check_open(self) -> None:
        if self._lock < 0:
            raise DataError(f"{self.root} is closed.")


def read_traffic(root: StrPath) -> list[Record]:
    """The records of a folder, oldest first; another process may be writing it.

    Records of earlier versions come as this one writes them.

    Raises:
        DataError: It is not such a folder, or it is damaged.
    """
    root = as_path(root)
    _check_ours(root, make=False)
    return _records(root / EXAMPLES)


def read_feedback(root: StrPath) -> dict[str, Feedback]:
    """What those who asked say of their answers, by the ids of the records.

    Raises:
        DataError: It is not such a folder, or it is damaged.
    """
    root = as_path(root)
    _check_ours(root, make=False)
    path = root / FEEDBACK
    with using(path):
        return {line["id"]: Feedback.of(line) for line in read_lines(path)}


def _records(path: Path) -> list[Record]:
    with using(path):
        return [upgraded(line) for line in read_lines(path)]


def _cut(path: Path, whole: int) -> None:
    """Take a torn last line away."""
    if path.exists() and whole < path.stat().st_size:
        _log.warning("%s: dropping a line torn at its end", path)
        os.truncate(path, whole)


def _names_any(path: Path, ids: Collection[str]) -> bool:
    """Whether any of the ids is in a file, maybe as a part of something else."""
    content = path.read_bytes() if path.exists() else b""
    return any(json.dumps(id).encode("ascii") in content for id in ids)


def _is_image(name: str) -> bool:
    return _IMAGE.fullmatch(name) is not None


def _close_to_others(root: Path) -> None:
    """Take from others what they may of a folder that was there already."""
    for folder in (root, root / IMAGES, root / SETS):
        if not folder.is_dir():
            continue
        restrict(folder, FOLDER)
        with os.scandir(folder) as entries:
            for one in entries:
                if one.is_file(follow_symlinks=False):
                    restrict(Path(one.path), FILE)


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
