"""When a request is sent again: exponential backoff with full jitter, and what servers ask for."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

from m3router.data.errors import DataError

AGAIN = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which the same request may succeed."""


def may_succeed_later(status: int) -> bool:
    """Whether a status stands for something that passes.

    NOTE: 501 and 505 say that the server can never do it.
    """
    return status in AGAIN or (status >= 500 and status not in (501, 505))


def retry_after_seconds(header: str | None, *, now: float) -> float | None:
    """Seconds to wait by a ``Retry-After`` header (RFC 9110, section 10.2.3).

    >>> retry_after_seconds("7", now=0.0)
    7.0
    >>> retry_after_seconds("Thu, 01 Jan 1970 00:01:00 GMT", now=45.0)
    15.0

    Args:
        header: Seconds, or a date of HTTP; fractions of seconds are taken too.
        now: Seconds since the epoch.

    Returns:
        At least 0; None where there is no header that can be read.
    """
    if header is None:
        return None
    text = header.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
            when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
            seconds = when.timestamp() - now
        except (ValueError, OverflowError, IndexError, TypeError):
            return None
        return max(0.0, seconds)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and when a request is sent again.

    Attributes:
        attempts: Most requests for one answer, the first one included.
        first: Seconds of the longest wait before the second attempt; doubled for each further one.
        longest: Seconds of the longest wait that is chosen here.
        longest_asked: Seconds of the longest wait that a server's ``Retry-After`` is granted.
        draw: Gives numbers from [0, 1); replaced where waits must be known.
        wait: Replaces waiting, for tests; None for real time.
    """

    attempts: int = 6
    first: float = 0.5
    longest: float = 30.0
    longest_asked: float = 120.0
    draw: Callable[[], float] = field(default=random.random, repr=False)
    wait: Callable[[float], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            DataError: If there is no attempt, or a time is negative.
        """
        if self.attempts < 1:
            raise DataError(f"there must be at least 1 attempt, not {self.attempts}")
        if min(self.first, self.longest, self.longest_asked) < 0:
            raise DataError("times to wait must be from 0 seconds upwards")

    def pause(self, sent: int, asked: float | None = None) -> float:
        """Seconds to wait before the next attempt.

        "Full jitter" of M. Brooker, *Exponential Backoff and Jitter* (AWS Architecture Blog, 2015):
        uniform between 0 and the exponential bound. What a server asks for is a least wait, and
        the jitter of a first attempt is added to it, so that waiting requests do not all come at
        once.

        Args:
            sent: Attempts so far, at least 1.
            asked: Seconds of ``Retry-After``; None where the server names none.
        """
        if asked is not None:
            return min(asked, self.longest_asked) + self.first * self.draw()
        return self.draw() * min(self.longest, self.first * 2.0 ** min(sent - 1, 60))
