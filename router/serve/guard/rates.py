"""How often somebody may ask: a token bucket for each key, or each address where there are none."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from m3router.data.errors import DataError

MOST = 10_000
"""Buckets kept; those unused longest are dropped. NOTE: a dropped one starts anew with a burst."""


class Rates:
    """Token buckets: each holds `burst` requests and is refilled at a steady rate.

    In the time t at most ``burst + per_minute * t / 60`` requests are let in.

    Args:
        per_minute: Requests a minute; None for no limit but those of keys that have their own.
        burst: Requests that may come at once, at least 1.
        processes: How many share the limits; each lets in its part of them.
        most: Buckets kept at most.
        clock: Seconds, monotonic.

    Raises:
        DataError: If a number is out of range.
    """

    def __init__(
        self,
        per_minute: float | None,
        burst: int,
        *,
        processes: int = 1,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if per_minute is not None and not per_minute > 0:
            raise DataError(f"Requests per minute must be above 0, got {per_minute}.")
        if burst < 1 or most < 1:
            raise DataError(f"burst and most must be 1 or more, got {burst} and {most}.")
        self.per_minute = per_minute
        self.burst = math.ceil(burst / processes)
        self.processes = processes
        self.most = most
        self.clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str, per_minute: float | None = None) -> float:
        """Let a request in, or say how long to wait; what is refused costs nothing.

        Args:
            who: Name of a key, or :func:`neighbourhood` of an address.
            per_minute: This key's own rate instead of the server's.

        Returns:
            Seconds until a request would be let in; 0 if this one was.
        """
        rate = self.per_minute if per_minute is None else per_minute
        if rate is None:
            return 0.0
        rate /= self.processes
        now = self.clock()
        filled, at = self._buckets.pop(who, (float(self.burst), now))
        filled = min(float(self.burst), filled + (now - at) * rate / 60)
        wait = 0.0 if filled >= 1 else (1 - filled) * 60 / rate
        self._buckets[who] = (filled if wait else filled - 1, now)
        while len(self._buckets) > self.most:
            self._buckets.popitem(last=False)
        return wait

    def __len__(self) -> int:
        return len(self._buckets)


def neighbourhood(address: str) -> str:
    """Whom an address belongs to: IPv4 itself, of IPv6 the /64, which one customer has whole.

    >>> neighbourhood("2001:db8::1:2"), neighbourhood("::ffff:192.0.2.1"), neighbourhood("pipe")
    ('2001:db8::/64', '192.0.2.1', 'pipe')
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
