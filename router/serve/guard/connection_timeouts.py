"""An HTTP protocol that waits for nobody for ever, and works for nobody out of turn.

uvicorn has a time for idle connections between requests, but none for a request's line and
headers, none for a client that does not read its answer, and counts connections only to answer
503 on them (``uvicorn/protocols/http/h11_impl.py`` of 0.54). h11 is taken instead of httptools
because it is the stricter parser; that it parses in Python is why it is given no more at once than
is bounded here:

- a head is judged as bytes first (:mod:`~m3router.router.serve.guard.request_head`);
- of a body nothing is parsed until the application asks for it, so that whoever is refused by key
  or rate has cost one small head;
- chunks are taken apart by :mod:`~m3router.router.serve.guard.chunked_body`, which bounds them;
- a connection that sends byte by byte is read in pauses, in which the system collects the bytes;
- a request that comes before the answer to the one before it waits its turn.
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
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from m3router.router.serve.errors import ApiError
from m3router.router.serve.guard.chunked_body import ChunkedBody
from m3router.router.serve.guard.refusals import HEADERS, REFUSAL_SECONDS, refusal_of
from m3router.router.serve.guard.request_head import check_framing, end_of_head

HELD_BYTES = 64 << 10
"""That are kept of what nobody has asked for; then the connection is not read."""
SMALL_READ, FREE_READS, NAP_SECONDS = 1024, 16, 0.05
"""A read of fewer bytes than this, beyond so many in a message, is followed by such a pause."""
TURN_SECONDS = 0.01
"""Until a request is looked at that came before the answer to the one before it."""


@dataclass(frozen=True)
class ConnectionTimeouts:
    """How long and how often a client is waited for.

    Attributes:
        header_seconds: From the first byte of a request (or the connection's beginning) until its
            headers are whole.
        write_seconds: That a client may leave its answer unread while more is to be sent.
        connections: Open at once; beyond it, one that waits for a request gives way to a new one.
        per_address: Of these from one address; 0 for no limit. The machine's own addresses have
            none, since a proxy may stand there.
    """

    header_seconds: float = 10.0
    write_seconds: float = 30.0
    connections: int = 512
    per_address: int = 128


class _Reading(FlowControl):
    """Whether a connection is read: not while somebody holds it back, nor during a nap.

    Args:
        transport: The connection.
        loop: For naps.
        wanted: Called when the application asks for more of a body.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        wanted: Callable[[], None],
    ) -> None:
        super().__init__(transport)
        self._loop = loop
        self._wanted = wanted
        self._held = False
        self._nap: asyncio.TimerHandle | None = None

    def pause_reading(self) -> None:
        """Hold the connection back until somebody wants more."""
        self._held = True
        self._settle()

    def resume_reading(self) -> None:
        """Read on, as far as it is not napping."""
        self._held = False
        self._wanted()
        self._settle()

    def nap(self, seconds: float) -> None:
        """Read nothing for a while."""
        if self._nap is None:
            self._nap = self._loop.call_later(seconds, self._wake)
            self._settle()

    def end(self) -> None:
        """Forget the nap."""
        if self._nap is not None:
            self._nap.cancel()
            self._nap = None

    def _wake(self) -> None:
        self._nap = None
        self._settle()

    def _settle(self) -> None:
        if self._transport.is_closing():
            return
        if self._held or self._nap is not None:
            super().pause_reading()
        else:
            super().resume_reading()


def protocol_of(timeouts: ConnectionTimeouts) -> type[H11Protocol]:
    """The protocol class for a server: uvicorn makes one object for each connection.

    Args:
        timeouts: Its limits; counts are shared by all connections of the class.

    Returns:
        What ``uvicorn.Config(http=...)`` takes.
    """
    counts: Counter[str] = Counter()
    # Connections that wait for a request, those first that have done so longest: where there are
    # too many, they go, so that nobody keeps others out by holding connections open.
    silent: dict[H11Protocol, None] = {}
    rested: dict[H11Protocol, None] = {}

    class GuardedProtocol(H11Protocol):
        """Closes connections that keep it waiting, and parses what is wanted only."""

        _address = ""
        _reading: _Reading
        _headers_due: asyncio.TimerHandle | None = None
        _answer_due: asyncio.TimerHandle | None = None
        _next_turn: asyncio.TimerHandle | None = None
        _refusal: asyncio.TimerHandle | None = None
        _looked = 0  # bytes of a head without an end
        _small = 0  # reads of few bytes in this message
        _wanted = False  # by the application, of this message's body
        _chunks: ChunkedBody | None = None
        _length = 0  # of the body, what has still to come

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Take a connection, unless there are too many."""
            super().connection_made(transport)
            self._came = bytearray()
            self._reading = _Reading(transport, self.loop, self._want)
            self.flow = self._reading
            self._address = self.client[0] if self.client else ""
            counts[self._address] += 1
            if _too_many(self._address, counts, timeouts.per_address):
                transport.abort()
                return
            if len(self.connections) > timeouts.connections:
                gives_way = next(iter(silent), None) or next(iter(rested), self)
                silent.pop(gives_way, None)
                rested.pop(gives_way, None)
                gives_way.transport.abort()
                if gives_way is self:
                    return
            silent[self] = None
            self._wait_for_headers()

        def data_received(self, data: bytes) -> None:
            """Take bytes, and go as far as somebody wants."""
            if self._refusal is not None:
                return
            self._unset_keepalive_if_required()
            self._came += data
            if self._next_turn is None:
                self._go_on()
            if len(self._came) > HELD_BYTES:
                self.flow.pause_reading()
            if len(data) < SMALL_READ and self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
                self._small += 1
                if self._small > FREE_READS:
                    self._reading.nap(NAP_SECONDS)

        def on_response_complete(self) -> None:
            """Let go of a body that was not read; else see to the next request."""
            if self.conn.their_state is h11.SEND_BODY:
                self.transport.close()
            rested[self] = None
            super().on_response_complete()
            if self._came and not self.transport.is_closing():
                self._next_turn = self.loop.call_later(TURN_SECONDS, self._turn)

        def send_400_response(self, msg: str) -> None:
            """Refuse what h11 could not read."""
            self._refuse(ApiError(400, msg, code="invalid_http"))

        def pause_writing(self) -> None:
            """The client reads slower than it is answered: it has so long to catch up."""
            super().pause_writing()
            if self._answer_due is None:
                self._answer_due = self.loop.call_later(
                    timeouts.write_seconds, self.transport.abort
                )

        def resume_writing(self) -> None:
            """The client caught up."""
            if self._answer_due is not None:
                self._answer_due.cancel()
                self._answer_due = None
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection."""
            self._stop_waiting()
            silent.pop(self, None)
            rested.pop(self, None)
            self._reading.end()
            for timer in (self._next_turn, self._refusal):
                if timer is not None:
                    timer.cancel()
            counts[self._address] -= 1
            if counts[self._address] <= 0:
                del counts[self._address]
            super().connection_lost(exc)

        def _go_on(self) -> None:
            try:
                if self.conn.their_state is h11.IDLE:
                    self._take_head()
                elif self.conn.their_state is h11.SEND_BODY and self._wanted:
                    self._take_body()
            except ApiError as error:
                self._refuse(error)

        def _take_head(self) -> None:
            """Parse a request's line and headers, once they are whole and within limits."""
            end = end_of_head(self._came, self._looked)
            if end is None:
                self._looked = len(self._came)
                self._wait_for_headers()
                return
            self._stop_waiting()
            silent.pop(self, None)
            rested.pop(self, None)
            head = bytes(self._came[:end])
            del self._came[:end]
            check_framing(head)
            self._looked, self._small, self._wanted = 0, 0, False
            self.conn.receive_data(head)
            self.handle_events()
            if self.conn.their_state is h11.SEND_BODY:
                told = dict(self.headers)
                self._length = int(told.get(b"content-length", 0))
                self._chunks = ChunkedBody() if b"transfer-encoding" in told else None

        def _take_body(self) -> None:
            """Parse what came of a body. Of chunks h11 sees large ones, whatever they were."""
            if self._chunks is None:
                part = bytes(self._came[: self._length])
                self._length -= len(part)
                del self._came[: len(part)]
            else:
                part = self._chunks.take(self._came)
                part = b"%x\r\n%b\r\n" % (len(part), part) if part else b""
                part += b"0\r\n\r\n" if self._chunks.done else b""
            if part:
                self.conn.receive_data(part)
                self.handle_events()

        def _want(self) -> None:
            """The application asks for the body, or is done with it."""
            self._wanted = True
            if self._next_turn is None and self._refusal is None:
                self._go_on()

        def _turn(self) -> None:
            self._next_turn = None
            self._go_on()

        def _refuse(self, error: ApiError) -> None:
            """Answer with an error, a moment later, and close."""
            self._stop_waiting()
            self._refusal = self.loop.call_later(REFUSAL_SECONDS, self._tell, error)
            self.flow.pause_reading()

        def _tell(self, error: ApiError) -> None:
            if self.transport.is_closing():
                return
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                headers, body = refusal_of(error)
                events: list[Any] = [
                    h11.Response(
                        status_code=error.status,
                        headers=[*headers, (b"connection", b"close"), *HEADERS.items()],
                        reason=STATUS_PHRASES[error.status],
                    ),
                    h11.Data(data=body),
                    h11.EndOfMessage(),
                ]
                self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
            self.transport.close()

        def _wait_for_headers(self) -> None:
            """From a request's first byte on, however many follow."""
            if self._headers_due is None:
                self._headers_due = self.loop.call_later(timeouts.header_seconds, self._give_up)

        def _stop_waiting(self) -> None:
            if self._headers_due is not None:
                self._headers_due.cancel()
                self._headers_due = None

        def _give_up(self) -> None:
            """Close the connection without an answer: no request was ever complete."""
            self._headers_due = None
            self.transport.abort()

    return GuardedProtocol


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
