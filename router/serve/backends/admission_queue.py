"""Who is being answered and who waits, for backends that hand questions on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from m3router.router.serve.backends.backend import BusyError, OverdueError, UnavailableError

MEMORY = 0.9
"""Share of the older ones in the running mean of seconds per question."""


class AdmissionQueue:
    """A queue with so many places, before so many questions that are answered at once.

    Args:
        running: Most questions that are answered at once.
        waiting: Most questions that wait for that.
    """

    def __init__(self, *, running: int, waiting: int) -> None:
        self._running = running
        self._waiting = waiting
        self._inside = 0
        self._answered = 0
        self._seconds = 1.0
        self._free = asyncio.Semaphore(running)
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    @contextlib.asynccontextmanager
    async def taken(self, deadline: float) -> AsyncIterator[float]:
        """Wait for a place and hold it; gives the seconds that were waited.

        Args:
            deadline: By :func:`time.monotonic`.

        Raises:
            BusyError: If nobody else may wait.
            OverdueError: If the time is over before there is a place.
            UnavailableError: If nothing new is taken.
        """
        if self._closed:
            raise UnavailableError("the server is stopping; try another server")
        if self._inside >= self._running + self._waiting:
            behind = max(1, self._inside - self._running + 1)
            raise BusyError(
                f"{self._inside} questions are being answered or are waiting; try again later",
                retry_after=max(1.0, self._seconds * behind / self._running),
            )
        self._inside += 1
        self._empty.clear()
        arrived = time.monotonic()
        try:
            try:
                async with asyncio.timeout(max(0.0, deadline - arrived)):
                    await self._free.acquire()
            except TimeoutError as error:
                raise OverdueError("the queue stayed full for too long; try again later") from error
            begun = time.monotonic()
            self._answered += 1
            try:
                yield begun - arrived
            finally:
                self._answered -= 1
                self._free.release()
                spent = time.monotonic() - begun
                self._seconds = MEMORY * self._seconds + (1 - MEMORY) * spent
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @property
    def inside(self) -> int:
        """How many are being answered or wait."""
        return self._inside

    def load(self) -> dict[str, Any]:
        """How busy it is: questions queued and running, and the queue's capacity."""
        return {
            "queued": self._inside - self._answered,
            "running": self._answered,
            "capacity": self._waiting,
        }

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True

    async def empty(self, seconds: float) -> bool:
        """Wait at most so long until nobody is left; whether that is so."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
