"""A server's recorder: a share of the served requests, written by a thread of its own."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from m3router.data.errors import DataError
from m3router.router.traffic.consent import Consent as Consent
from m3router.router.traffic.folder import TrafficFolder
from m3router.router.traffic.records import record_of

if TYPE_CHECKING:
    from m3router.router.inference.query import Query, Served
    from m3router.router.inference.result import RoutedAnswer

WAITING = 64
"""Most requests that wait to be written."""
WAITING_PIXELS = 32_000_000
"""Most pixels of theirs, about 100 MB; a single larger image may wait alone."""
DAY = 86_400.0

_log = logging.getLogger(__name__)


class Recorder:
    """Keeps a share of what is served in a folder; every method may be called by any thread.

    Args:
        folder: Where to; see `m3router.router.traffic.folder`. Nothing is recorded without one:
            whoever names it consents.
        share: Of the requests, in [0, 1]. Whether one is sampled follows from a keyed hash of its
            id: every request with the same probability, whatever it holds.
        keep_days: What is older is deleted, at the start and every day.
        consent: Whose word counts.

    Raises:
        DataError: The share or the days are out of range.
    """

    def __init__(
        self,
        folder: Path,
        *,
        share: float = 0.01,
        keep_days: float = 30,
        consent: Consent = Consent.OPT_OUT,
    ) -> None:
        if not 0 <= share <= 1:
            raise DataError(f"The share of recorded requests must lie in [0, 1], got {share}.")
        if not 0 < keep_days <= 36_500:
            raise DataError(f"keep_days must be above 0 and at most 36500, got {keep_days}.")
        self.folder = folder
        self.share = share
        self.keep_days = keep_days
        self.consent = Consent(consent)
        self._counts = dict.fromkeys(("offered", "declined", "sampled", "written", "dropped"), 0)
        self._open: TrafficFolder | None = None
        self._served: Served | None = None
        self._thread: threading.Thread | None = None
        self._queue: deque[tuple[Query, RoutedAnswer, str, datetime]] = deque()
        self._pixels = 0
        self._stopping = False
        self._failing = False
        # Taken in this order: who writes or deletes, then who touches the queue.
        self._writing = threading.Lock()
        self._waiting = threading.Condition()

    def start(self, served: Served) -> None:
        """Open the folder, delete what is too old and begin to write.

        Args:
            served: What answers; recorded with each request.

        Raises:
            DataError: The folder cannot be used, see `TrafficFolder.open`.
        """
        folder = TrafficFolder.open(self.folder, make=True)
        try:
            folder.purge(self._oldest())
        except DataError:
            folder.close()
            raise
        self._open, self._served = folder, served
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._thread.start()

    def offer(
        self, query: Query, routed: RoutedAnswer, *, key: str = "", consented: bool | None = None
    ) -> bool:
        """Take an answered request, if it is sampled; never waits and never raises.

        Args:
            query: The request.
            routed: Its answer.
            key: Name of the API key that it came with, not the key itself.
            consented: What the request says about being recorded; None for nothing.

        Returns:
            Whether it will be written, as far as is known now.
        """
        with self._waiting:
            self._counts["offered"] += 1
            if not self.consent.allows(consented):
                self._counts["declined"] += 1
                return False
            if self._open is None or not is_sampled(query.id, self.share, self._open.key):
                return False
            self._counts["sampled"] += 1
            pixels = query.image.width * query.image.height
            full = self._queue and self._pixels + pixels > WAITING_PIXELS
            if self._stopping or full or len(self._queue) >= WAITING:
                self._counts["dropped"] += 1
                return False
            kept = replace(routed, encoding=None)  # megabytes that nobody writes
            self._queue.append((query, kept, key, datetime.now(UTC)))
            self._pixels += pixels
            self._waiting.notify()
            return True

    def forget(self, id: str) -> bool:
        """Delete a request for good, waiting or written; takes as long as rewriting the file.

        Returns:
            Whether anything was there.

        Raises:
            DataError: It cannot be deleted now, such as on a full disk; or nothing is recorded.
        """
        with self._writing:
            with self._waiting:
                left = deque(one for one in self._queue if one[0].id != id)
                waited = len(left) < len(self._queue)
                self._queue, self._pixels = left, sum(_pixels(one[0]) for one in left)
            return bool(self._folder().forget([id])) or waited

    def purge(self, now: datetime | None = None) -> int:
        """Delete what is older than `keep_days`; returns how many requests that were.

        Raises:
            DataError: It cannot be deleted now, or nothing is recorded.
        """
        with self._writing:
            return self._folder().purge(self._oldest(now))

    def counts(self) -> dict[str, int]:
        """Requests since the start, for metrics.

        "offered", "declined" (no consent), "sampled", "written", and "dropped": sampled, but the
        queue or the disk was full, or it cannot be an example.
        """
        with self._waiting:
            return dict(self._counts)

    def stop(self, *, seconds: float = 5.0) -> None:
        """Write what waits, for at most so many seconds, and let go of the folder."""
        with self._waiting:
            self._stopping = True
            self._waiting.notify()
        if self._thread is not None:
            self._thread.join(seconds)
        with self._waiting:
            self._counts["dropped"] += len(self._queue)
            self._queue.clear()
        with self._writing:
            if self._open is not None:
                self._open.close()

    def _run(self) -> None:
        """The thread: writes what waits, deletes once a day."""
        purged = time.monotonic()
        while True:
            with self._waiting:
                while not self._queue and not self._stopping:
                    if not self._waiting.wait(max(0.0, purged + DAY - time.monotonic())):
                        break
                if self._stopping and not self._queue:
                    return
            if time.monotonic() >= purged + DAY:
                purged = time.monotonic()
                self._purge_daily()
            self._write_one()

    def _write_one(self) -> None:
        with self._writing:
            with self._waiting:
                if not self._queue:
                    return
                query, routed, key, when = self._queue.popleft()
                self._pixels -= _pixels(query)
            cause = self._write(query, routed, key, when)
        with self._waiting:
            self._counts["dropped" if cause else "written"] += 1
        if cause and not self._failing:
            _log.warning("a request was not recorded, and later ones may not be: %s", cause)
        self._failing = bool(cause)

    def _write(self, query: Query, routed: RoutedAnswer, key: str, when: datetime) -> str:
        """Write one request; returns why not, in words that hold nothing of it."""
        if self._open is None or self._served is None:
            return "the recorder was not started"
        try:
            record = record_of(query, routed, self._served, key=key, time=when)
        except (DataError, ValueError):
            return "its id or question cannot be an example's"
        try:
            self._open.add(record, query.image)
        except (DataError, OSError, ValueError, MemoryError) as error:
            return str(error)
        return ""

    def _purge_daily(self) -> None:
        try:
            self.purge()
        except DataError as error:
            _log.warning("what is too old was not deleted: %s", error)

    def _oldest(self, now: datetime | None = None) -> datetime:
        return (now or datetime.now(UTC)) - timedelta(days=self.keep_days)

    def _folder(self) -> TrafficFolder:
        if self._open is None:
            raise DataError(f"Nothing is recorded to {self.folder} yet: start the recorder first.")
        return self._open


def is_sampled(id: str, share: float, key: bytes) -> bool:
    """Whether a request belongs to the share: its keyed hash, read as a number in [0, 1), says.

    Args:
        id: Of the request.
        share: In [0, 1].
        key: At most 64 bytes.
    """
    digest = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), key=key, digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _pixels(query: Query) -> int:
    return query.image.width * query.image.height
