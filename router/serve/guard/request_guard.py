"""What stands before the application: bodies that are too much, and answers that say too much.

A pure ASGI middleware. A body is read here, whole and within limits of size and time, and judged
before anything parses it; what the application raises by mistake becomes an answer that tells
nothing of the inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from m3router.data.errors import DataError
from m3router.router.serve.errors import ApiError, where
from m3router.router.serve.guard.json_limits import looking, too_deep
from m3router.router.serve.guard.refusals import HEADERS, REFUSAL_SECONDS, refusal_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_MARKS = 10_000
"""Values in a JSON body, about, where nothing else is said: parsed within some 2 ms."""

AT_ONCE = 64 << 10
"""Bytes of a body that are judged without a thought of others."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?")
_log = logging.getLogger(__name__)


class RequestGuard:
    """Refuses bodies cheaply, keeps the inside inside.

    Args:
        app: What is guarded.
        max_bytes: Longest body. A longer one is refused by its Content-Length with nothing read,
            or as soon as more has come.
        body_seconds: Within which a body must have come whole.
        max_depth: Lists and objects within each other.
        max_marks: Values in a body, about.
        max_marks_at: The same for single paths that take another number.
        total_bytes: Of all bodies being received at once; beyond it requests are told to come
            again. None for 16 bodies of the longest kind.
        hosts: What the Host header may say, without the port; None for anything. Where no keys
            are asked for, it keeps web pages from reaching a server of this machine by a name
            of theirs (DNS rebinding).
        admit: Called with the scope before anything of the body is read; raises ApiError to
            refuse, or returns the seconds that the request waits, if any. Keys and rates belong
            here: strangers then cannot make the server read.

    Raises:
        DataError: If a limit is below 1.
    """

    def __init__(
        self,
        app: App,
        max_bytes: int,
        body_seconds: float,
        max_depth: int,
        *,
        max_marks: int = MAX_MARKS,
        max_marks_at: Mapping[str, int] | None = None,
        total_bytes: int | None = None,
        hosts: frozenset[str] | None = None,
        admit: Callable[[Scope], float | None] | None = None,
    ) -> None:
        if max_bytes < 1 or max_depth < 1 or not body_seconds > 0:
            raise DataError(
                "max_bytes, max_depth and body_seconds must be above 0, got "
                f"{max_bytes}, {max_depth} and {body_seconds}."
            )
        self.app = app
        self.max_bytes = max_bytes
        self.body_seconds = body_seconds
        self.max_depth = max_depth
        self.max_marks = max_marks
        self.max_marks_at = max_marks_at or {}
        self.total_bytes = 16 * max_bytes if total_bytes is None else total_bytes
        self.hosts = hosts
        self.admit = admit
        self.held = 0
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await self._serve(scope, receive, answer)
        except ApiError as error:
            if answer.closes:
                with contextlib.suppress(asyncio.CancelledError):  # stopping: at once, then
                    await asyncio.sleep(REFUSAL_SECONDS)
            await answer.fail(error)
        except Exception as error:
            # The edge: whatever it is, the client learns nothing of it, and the log learns where
            # it happened but not the message, which may quote what was asked.
            _log.error("%s %s failed: %s", scope["method"], _route(scope), where(error))
            await answer.fail(ApiError(500, "The server failed to answer.", kind="server_error"))
        except asyncio.CancelledError:
            # uvicorn cancels what runs when its time to drain is over; nothing is behind this.
            await answer.fail(
                ApiError(
                    503,
                    "The server stopped before the answer was whole.",
                    kind="server_error",
                    code="unavailable",
                    headers={"Retry-After": "5"},
                )
            )

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = scope["headers"]
        self._check_host(headers)
        if self.admit is not None and (wait := self.admit(scope)):
            await asyncio.sleep(wait)
        length = _value(headers, b"content-length")
        if length in (None, b"0") and _value(headers, b"transfer-encoding") is None:
            answer.closes = False
            await self.app(scope, receive, answer.send)
            return
        _check_kind(headers)
        if length is not None and (not length.isdigit() or len(length) > 18):
            raise ApiError(400, "Content-Length must be a number.", code="invalid_content_length")
        if length is not None and int(length) > self.max_bytes:
            raise self._too_large()
        body = await self._receive(receive)
        if body is None:
            return
        answer.closes = False
        if b"\0" in body:
            raise ApiError(400, "The body must be JSON in UTF-8.", code="invalid_json")
        most = self.max_marks_at.get(scope["path"], self.max_marks)
        if await self._too_deep(body, most):
            raise ApiError(
                400,
                f"The body is nested deeper than {self.max_depth} or has more than {most} values.",
                code="json_too_deep",
            )
        again = _replay(body, receive)
        del body  # whoever reads it may let go of it
        await self.app(scope, again, answer.send)

    async def _receive(self, receive: Receive) -> bytes | None:
        """Read a body; None where the client left before its end."""
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    more = message.get("body", b"")
                    if size + len(more) > self.max_bytes:
                        raise self._too_large()
                    if self.held + len(more) > self.total_bytes:
                        raise ApiError(
                            503,
                            "The server is receiving too much at once. Try again in a moment.",
                            kind="server_error",
                            code="overloaded",
                            headers={"Retry-After": "1"},
                        )
                    pieces.append(more)
                    size += len(more)
                    self.held += len(more)
                    if not message.get("more_body", False):
                        return b"".join(pieces)
        except TimeoutError:
            raise ApiError(
                408,
                f"The body did not come within {self.body_seconds:g} seconds.",
                code="request_timeout",
            ) from None
        finally:
            self.held -= size

    async def _too_deep(self, body: bytes, most: int) -> bool:
        """Judge a body; a long one in turns with other long ones, so that nobody waits for it."""
        if len(body) <= AT_ONCE:
            return too_deep(body, self.max_depth, most)
        look = looking(body, self.max_depth, most)
        while True:
            async with self._turn:
                try:
                    next(look)
                except StopIteration as end:
                    return bool(end.value)
            await asyncio.sleep(0)

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"The body is longer than {self.max_bytes} bytes.", code="request_too_large"
        )

    def _check_host(self, headers: list[tuple[bytes, bytes]]) -> None:
        if self.hosts is None:
            return
        host = _HOST.fullmatch((_value(headers, b"host") or b"").decode("latin-1").lower())
        if host is None or host.group(1) not in self.hosts:
            raise ApiError(421, "This server has another host name.", code="misdirected_request")


class _Answer:
    """The way out: adds headers, and knows whether an answer has begun.

    Attributes:
        begun: Whether it has.
        closes: Whether the connection ends with the answer: as long as the body is not read
            whole, since whatever is left of it would be read for ever.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.closes = True

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = list(message.get("headers", []))
            named = {name.lower() for name, _ in headers}
            if self.closes and b"connection" not in named:
                headers.append((b"connection", b"close"))
            headers += [(name, value) for name, value in HEADERS.items() if name not in named]
            message = {**message, "headers": headers}
        await self._send(message)

    async def fail(self, error: ApiError) -> None:
        """Answer with an error. An answer that has begun is left unfinished: it is cut off."""
        if self.begun:
            return
        headers, body = refusal_of(error)
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _check_kind(headers: list[tuple[bytes, bytes]]) -> None:
    """Let in plain JSON only: nothing packed, and nothing that a web page may send unasked."""
    if (_value(headers, b"content-encoding") or b"identity").strip().lower() != b"identity":
        raise ApiError(
            415, "Bodies must not be compressed (Content-Encoding).", code="unsupported_encoding"
        )
    kind = (_value(headers, b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise ApiError(
            415,
            "The body must be JSON, Content-Type: application/json.",
            code="unsupported_media_type",
        )


def _value(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, whole; then what comes after it."""
    rest = [body]
    del body

    async def again() -> Message:
        if not rest:
            return await receive()
        return {"type": "http.request", "body": rest.pop(), "more_body": False}

    return again


def _route(scope: Scope) -> str:
    """The route's own pattern where one matched: a path may hold what was asked."""
    return str(getattr(scope.get("route"), "path", "an unknown path"))
