"""An HTTP protocol that does not wait for ever: slow headers, slow readers, too many at once.

uvicorn has a time for idle connections between requests, but none for a request's line and
headers, none for a client that does not read its answer, and counts connections only to answer
503 on them (``uvicorn/protocols/http/h11_impl.py`` of 0.54). h11 is taken instead of httptools
because it also limits the length of headers and is the stricter parser.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True)
class ConnectionTimeouts:
    """How long and how often a client is waited for.

    Attributes:
        header_seconds: From the first byte of a request (or the connection's beginning) until its
            headers are whole.
        write_seconds: That a client may leave its answer unread while more is to be sent.
        connections: Open at once.
        per_address: Of these from one address; 0 for no limit. The machine's own addresses have
            none, since a proxy may stand there.
    """

    header_seconds: float = 10.0
    write_seconds: float = 30.0
    connections: int = 512
    per_address: int = 128


def protocol_of(timeouts: ConnectionTimeouts) -> type[H11Protocol]:
    """The protocol class for a server: uvicorn makes one object for each connection.

    Args:
        timeouts: Its limits; counts are shared by all connections of the class.

    Returns:
        What ``uvicorn.Config(http=...)`` takes.
    """
    counts: Counter[str] = Counter()

    class TimedProtocol(H11Protocol):
        """Closes connections that keep it waiting."""

        _headers_due: asyncio.TimerHandle | None = None
        _reading_due: asyncio.TimerHandle | None = None
        _address = ""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Take a connection, unless there are too many."""
            super().connection_made(transport)
            self._address = self.client[0] if self.client else ""
            counts[self._address] += 1
            crowded = len(self.connections) > timeouts.connections
            if crowded or _too_many(self._address, counts, timeouts.per_address):
                transport.abort()
                return
            self._headers_due = self.loop.call_later(timeouts.header_seconds, self._give_up)

        def data_received(self, data: bytes) -> None:
            """Take bytes; the time for headers runs from their first byte, whatever follows."""
            super().data_received(data)
            waiting = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
            if not waiting:
                self._stop_waiting()
            elif self._headers_due is None:
                self._headers_due = self.loop.call_later(timeouts.header_seconds, self._give_up)

        def pause_writing(self) -> None:
            """The client reads slower than it is answered: it has so long to catch up."""
            super().pause_writing()
            if self._reading_due is None:
                self._reading_due = self.loop.call_later(
                    timeouts.write_seconds, self.transport.abort
                )

        def resume_writing(self) -> None:
            """The client caught up."""
            if self._reading_due is not None:
                self._reading_due.cancel()
                self._reading_due = None
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection."""
            self._stop_waiting()
            counts[self._address] -= 1
            if counts[self._address] <= 0:
                del counts[self._address]
            super().connection_lost(exc)

        def _stop_waiting(self) -> None:
            if self._headers_due is not None:
                self._headers_due.cancel()
                self._headers_due = None

        def _give_up(self) -> None:
            """Close the connection without an answer: no request was ever complete."""
            self._headers_due = None
            self.transport.abort()

    return TimedProtocol


class ObservedServer(uvicorn.Server):
    """A server that says when it is asked to stop.

    Args:
        config: As uvicorn takes it.
        on_stop: Called at the first signal, within its handler; None for nobody.
    """

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self.on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop."""
        if self.on_stop is not None and not self.should_exit:
            self.on_stop()
        super().handle_exit(sig, frame)


def _too_many(address: str, counts: Counter[str], most: int) -> bool:
    if not most or counts[address] <= most:
        return False
    try:
        parsed: Any = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return not cast(bool, (mapped or parsed).is_loopback)
