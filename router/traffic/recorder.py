"""A server's recorder: a share of the served requests, written by a thread of its own."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime, timedelta

from m3router.data.errors import DataError
from m3router.data.paths import StrPath, as_path
from m3router.router.traffic.consent import FOLDER_BYTES
from m3router.router.traffic.consent import Consent as Consent
from m3router.router.traffic.feedback import Feedback
from m3router.router.traffic.folder import TrafficFolder
from m3router.router.traffic.records import LONGEST_TEXT, MadeBy, ServedRequest, record_of

WAITING = 64
"""Most requests that wait to be written."""
WAITING_PIXELS = 32_000_000
"""Most pixels of theirs, about 100 MB; a single larger image may wait alone."""
DAY = 86_400.0
SMALLEST_FOLDER = 1 << 20

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
        max_bytes: Most bytes of the folder: the oldest requests are deleted to make room for new
            ones.

    Raises:
        DataError: The share, the days or the bytes are out of range.
    """

    def __init__(
        self,
        folder: StrPath,
        *,
        share: float = 0.01,
        keep_days: float = 30,
        consent: Consent = Consent.OPT_OUT,
        max_bytes: int = FOLDER_BYTES,
    ) -> None:
        folder = as_path(folder)
        if not 0 <= share <= 1:
            raise DataError(f"The share of recorded requests must lie in [0, 1], got {share}.")
        if not 0 < keep_days <= 36_500:
            raise DataError(f"keep_days must be above 0 and at most 36500, got {keep_days}.")
        if max_bytes < SMALLEST_FOLDER:
            raise DataError(
                f"A folder of traffic needs at least {SMALLEST_FOLDER} bytes, got {max_bytes}."
            )
        self.folder = folder
        self.share = share
        self.keep_days = keep_days
        self.consent = Consent(consent)
        self.max_bytes = max_bytes
        self._counts = dict.fromkeys(
            ("offered", "declined", "sampled", "written", "dropped", "rotated"), 0
        )
        self._open: TrafficFolder | None = None
        self._made_by: MadeBy | None = None
        self._thread: threading.Thread | None = None
        self._queue: deque[tuple[ServedRequest, datetime]] = deque()
        self._pixels = 0
        self._stopping = False
        self._failing = False
        # Taken in this order: who writes or deletes, then who touches the queue.
        self._writing = threading.Lock()
        self._waiting = threading.Condition()

    def start(self, made_by: MadeBy) -> None:
        """Open the folder, delete what is too old and begin to write.

        Args:
            made_by: What answers; recorded with each request.

        Raises:
            DataError: The folder cannot be used, see `TrafficFolder.open`.
        """
        folder = TrafficFolder.open(self.folder, make=True, max_bytes=self.max_bytes)
        try:
            folder.purge(self._oldest())
        except DataError:
            folder.close()
            raise
        self._open, self._made_by = folder, made_by
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._thread.start()

    def offer(self, request: ServedRequest) -> bool:
        """Take an answered request, if it is sampled; never waits and never raises.

        Returns:
            Whether it will be written, as far as is known now.
        """
        with self._waiting:
            self._counts["offered"] += 1
            if not self.consent.allows(request.consented):
                self._counts["declined"] += 1
                return False
            if self._open is None or not is_sampled(request.id, self.share, self._open.key):
                return False
            self._counts["sampled"] += 1
            pixels = _pixels(request)
            long = max(len(request.question), len(request.answer)) >= LONGEST_TEXT
            full = self._queue and self._pixels + pixels > WAITING_PIXELS
            if self._stopping or long or full or len(self._queue) >= WAITING:
                self._counts["dropped"] += 1
                return False
            self._queue.append((request, datetime.now(UTC)))
            self._pixels += pixels
            self._waiting.notify()
            return True

    def would_take(self, id: str, consented: bool | None) -> bool:
        """Whether a request would be kept, as far as its id and its consent say; counts nothing."""
        with self._waiting:
            if self._open is None or self._stopping or not self.consent.allows(consented):
                return False
            return is_sampled(id, self.share, self._open.key)

    def forget(self, id: str, *, key: str | None = None) -> bool:
        """Delete a request for good, waiting or written; takes as long as rewriting the file.

        Args:
            id: Of the request, or of its answer where a key is given.
            key: Who wants that: a request that another key made stays, and nothing tells that it
                is there. None for whoever runs the server.

        Returns:
            Whether anything was there.

        Raises:
            DataError: It cannot be deleted now, such as on a full disk; or nothing is recorded.
        """
        with self._writing:
            folder = self._folder()
            self._write_first(id, key)
            return bool(folder.forget([id], key=key))

    def feedback(self, id: str, told: Feedback, *, key: str) -> bool:
        """Keep what is said of an answer durably; the last word counts.

        Args:
            id: Of the request or of its answer.
            told: What is said.
            key: Who says it: only the key that asked is heard.

        Returns:
            Whether the request is kept here and that key asked it.

        Raises:
            DataError: It cannot be written now, such as on a full disk; or nothing is recorded.
        """
        with self._writing:
            folder = self._folder()
            self._write_first(id, key)
            found = folder.find(id, key=key)
            if found is not None:
                folder.add_feedback(found, told)
            return found is not None

    def owner(self, token: str) -> str:
        """Whose requests those are that come with a key that is not this server's own.

        Args:
            token: The key, or what stands for it alone. It is not kept: the name is its hash
                under the folder's secret.

        Raises:
            DataError: Nothing is recorded.
        """
        digest = hashlib.blake2b(
            token.encode("utf-8", "surrogatepass"), key=self._folder().key, digest_size=16
        )
        return f"~{digest.hexdigest()}"  # no name of a key of ours begins so

    def purge(self, now: datetime | None = None) -> int:
        """Delete what is older than `keep_days`; returns how many requests that were.

        Raises:
            DataError: It cannot be deleted now, or nothing is recorded.
        """
        with self._writing:
            return self._folder().purge(self._oldest(now))

    def counts(self) -> dict[str, int]:
        """Requests since the start, for metrics.

        "offered", "declined" (no consent), "sampled", "written", "dropped": sampled, but the
        queue or the disk was full, or it cannot be an example; and "rotated": written, and deleted
        since because the folder was full.
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
                request, when = self._queue.popleft()
                self._pixels -= _pixels(request)
            self._record(request, when)

    def _write_first(self, id: str, key: str | None) -> None:
        """Write a request before those that wait longer; its key wants something of it."""
        with self._waiting:
            wanted = [
                one
                for one in self._queue
                if id in (one[0].id, one[0].answer_id) and key in (None, one[0].key)
            ]
            for one in wanted:
                self._queue.remove(one)
                self._pixels -= _pixels(one[0])
        for request, when in wanted:
            self._record(request, when)

    def _record(self, request: ServedRequest, when: datetime) -> None:
        """Write one request and count it; `_writing` is taken."""
        cause, gone = "", 0
        try:
            gone = self._write(request, when)
        except (DataError, OSError, ValueError, MemoryError) as error:
            cause = str(error)
        with self._waiting:
            self._counts["dropped" if cause else "written"] += 1
            self._counts["rotated"] += gone
        if cause and not self._failing:
            _log.warning("a request was not recorded, and later ones may not be: %s", cause)
        self._failing = bool(cause)

    def _write(self, request: ServedRequest, when: datetime) -> int:
        """Write one request; returns how many older ones went for it.

        Raises:
            DataError: It was not written, in words that hold nothing of it.
        """
        if self._open is None or self._made_by is None:
            raise DataError("the recorder was not started")
        try:
            record = record_of(request, self._made_by, time=when)
        except (DataError, ValueError):
            raise DataError("its id or question cannot be an example's") from None
        return self._open.add(record, request.image)

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


def _pixels(request: ServedRequest) -> int:
    return request.image.width * request.image.height
