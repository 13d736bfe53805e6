"""Bytes of images that exist at one time, counted and bounded."""

from __future__ import annotations

import asyncio
from collections import deque

from m3router.router.serve.images.waiting import until


class BytesInFlight:
    """Bytes that are taken and given back, of which there are only so many.

    What fits is let in, in the order of coming; a large image that does not fit yet holds up no
    small one. All of it happens on one event loop.

    Args:
        total: All there are. What asks for more gets all of them, once they are free.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    async def take(self, count: int, deadline: float) -> int:
        """Wait until there are so many bytes, and take them.

        Args:
            count: How many.
            deadline: As of :func:`time.monotonic`.

        Returns:
            How many are to be given back.

        Raises:
            TimeoutError: If they did not get free in time.
        """
        count = min(count, self.total)
        if self.taken + count <= self.total:
            self.taken += count
            return count
        ready = asyncio.get_running_loop().create_future()
        self._waiting.append((ready, count))
        try:
            async with until(deadline):
                await ready
        except BaseException:
            if ready.done() and not ready.cancelled():
                self.give(count)
            raise
        return count

    def give(self, count: int) -> None:
        """Give bytes back."""
        self.taken -= count
        for ready, wanted in list(self._waiting):
            if ready.done():
                self._waiting.remove((ready, wanted))
            elif self.taken + wanted <= self.total:
                self._waiting.remove((ready, wanted))
                self.taken += wanted
                ready.set_result(None)
