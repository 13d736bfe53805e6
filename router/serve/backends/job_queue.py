"""Questions that wait for a worker, and what a worker knows of each."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from m3router.data.errors import M3RouterError
from m3router.m3core.matryoshka.base import IncrementalAnswer
from m3router.m3core.matryoshka.sampling import Sampling
from m3router.router.inference.query import Query
from m3router.router.inference.result import RoutedAnswer
from m3router.router.inference.session import Session
from m3router.router.policies.policy import Policy
from m3router.router.serve.backends.backend import OverdueError
from m3router.router.serve.backends.stop_strings import StopStrings

Event = str | RoutedAnswer | M3RouterError
"""What a client is told of a question: texts, then one end."""

IDLE = 0.5
"""Seconds after which an idle worker looks for questions whose time is over."""


@dataclass(kw_only=True, eq=False)
class Job(Session):
    """A session that somebody waits for.

    Attributes:
        tell: Called in the worker's thread with texts and one end; must not block or raise.
        seconds: Within which it must be answered.
        max_tokens: Longest answer in tokens; None for the model's own limit.
        stop: Where the answer ends, beside where the model ends it.
        sampling: How its tokens are drawn; None for the likeliest ones.
        gone: Set by anybody to give the question up; nothing is told any more.
        entered: When it was let in, by `time.perf_counter`.
        row: The answer that is being written.
        streams: Whether the answer is told as it grows.
        said: What was told of the answer.
        since: When its scale was decided, by `time.perf_counter`.
    """

    tell: Callable[[Event], None]
    seconds: float = 60.0
    max_tokens: int | None = None
    stop: StopStrings = StopStrings()
    sampling: Sampling | None = None
    gone: bool = False
    entered: float = field(default_factory=time.perf_counter)
    row: IncrementalAnswer | None = None
    streams: bool = False
    said: str = ""
    since: float = 0.0

    @classmethod
    def of(cls, query: Query, *, rule: int | Policy | None, tell: Callable[[Event], None]) -> Job:
        """The job of a question that comes in now, to be routed by a rule."""
        return cls(
            image=query.image,
            question=query.question,
            digest=query.digest,
            rule=rule,
            tell=tell,
            seconds=query.seconds,
            max_tokens=query.max_tokens,
            stop=StopStrings(query.stop),
            sampling=query.sampling,
        )

    @property
    def overdue(self) -> bool:
        """Whether its time is over."""
        return time.perf_counter() - self.entered > self.seconds

    def too_late(self) -> OverdueError:
        """What is told when its time is over."""
        return OverdueError(f"The question was not answered within {self.seconds:.3g} s.")


class JobQueue:
    """Questions that no worker has taken yet; any thread may call any method.

    Args:
        workers: That take from here.
    """

    def __init__(self, workers: int) -> None:
        self._jobs: deque[Job] = deque()
        self._arrived = threading.Condition()
        self._workers = workers
        self._idle = 0
        self._stopped = False

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def stopped(self) -> bool:
        """Whether workers shall end."""
        return self._stopped

    def put(self, job: Job) -> None:
        """Let a question in."""
        with self._arrived:
            self._jobs.append(job)
            self._arrived.notify()

    def take(self, most: int) -> list[Job]:
        """Some of those who waited longest, leaving idle workers their share."""
        with self._arrived:
            share = -(-len(self._jobs) // (self._idle + 1))
            return [self._jobs.popleft() for _ in range(max(0, min(most, share)))]

    def lost(self) -> list[Job]:
        """Take out those who left or whose time is over."""
        with self._arrived:
            lost = [job for job in self._jobs if job.gone or job.overdue]
            if lost:  # asked once: time goes on, and whoever is taken out must be told
                gone = set(lost)
                self._jobs = deque(job for job in self._jobs if job not in gone)
            return lost

    def wait(self) -> None:
        """Wait until somebody comes, for a moment at most."""
        with self._arrived:
            if not self._jobs and not self._stopped:
                self._idle += 1
                try:
                    self._arrived.wait(IDLE)
                finally:
                    self._idle -= 1

    def stop(self) -> None:
        """Let the workers end after their turn."""
        with self._arrived:
            self._stopped = True
            self._arrived.notify_all()


class Pace:
    """How fast questions end, as a running mean over the time in which there were any.

    Times are by any one clock, in seconds.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._gap = 0.0

    def began(self, now: float) -> None:
        """The first question came after a time without any."""
        self._since = now

    def ended(self, now: float) -> None:
        """A question was answered."""
        gap, self._since = now - self._since, now
        self._gap = 0.95 * self._gap + 0.05 * gap if self._gap else gap

    def seconds_for(self, questions: float) -> float:
        """In which so many are likely to be answered; 0 where nothing is known yet."""
        return self._gap * questions
