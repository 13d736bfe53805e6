"""What the workers of an engine share: who waits, and the cores of the processor."""

from __future__ import annotations

import threading
from collections import deque

import torch

from router.serve.jobs import Job

IDLE = 0.5
"""Seconds after which an idle worker looks for questions whose time is over."""


class Waiting:
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


class Cores:
    """Threads of the processor, shared out among the workers that have something to do.

    One question alone is answered by all cores together. Where many wait, each worker keeps to its
    own: cores that work on one small tensor together spend much of their time on waiting for each
    other.

    Args:
        threads: To be shared.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._busy: set[int] = set()
        self._own = threading.local()

    def enter(self) -> None:
        """This thread has something to do: give it its share."""
        me = threading.get_ident()
        self._busy.add(me)
        share = max(1, self._threads // len(self._busy))
        if getattr(self._own, "share", None) != share:
            torch.set_num_threads(share)  # of this thread, with OpenMP
            self._own.share = share

    def leave(self) -> None:
        """This thread has nothing to do."""
        self._busy.discard(threading.get_ident())
