"""Every request has an id, which its client is told and its log lines have; and one line itself.

The line has who asked, the method, the path without its query, the status and the time it took.
Nothing of a question, an image or a key: keys and questions are put into queries by mistake.
"""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from urllib.parse import quote
from uuid import uuid4

from m3router.router.serve.guard.request_guard import App, Message, Receive, Scope, Send

HEADER = b"x-request-id"
PREFIX = "req-"
LEFT = 499  # the status of a client that left before any answer, as nginx calls it
LONGEST_PATH = 200  # characters that are logged
logger = logging.getLogger("m3router.access")
_current: ContextVar[str] = ContextVar("request_id", default="")


def request_id() -> str:
    """The id of the request that is being served here; "" outside of any.

    Tasks, and threads of ``asyncio.to_thread``, that were begun while it is served have it too.
    """
    return _current.get()


class RequestIds:
    """Gives each request an id and logs it once it is over; around everything else.

    The id is in the scope's state as ``request_id``, too. An answer that has an ``x-request-id``
    already keeps it, and its line has that one. Of two around each other the outer one counts.

    Args:
        app: Serves the requests.
        log: Whether to write the lines.
    """

    def __init__(self, app: App, *, log: bool = True) -> None:
        self._app = app
        if log:  # whatever the root's level
            logger.setLevel(logging.INFO)
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        state = scope.setdefault("state", {}) if scope["type"] == "http" else {"request_id": ""}
        if "request_id" in state:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        told = state["request_id"] = f"{PREFIX}{uuid4().hex}"
        _current.set(told)
        status = LEFT

        async def with_id(message: Message) -> None:
            nonlocal told, status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                given = [value for name, value in headers if name.lower() == HEADER]
                if given:
                    told = given[0].decode("latin-1")
                    _current.set(told)
                else:
                    message = {**message, "headers": [*headers, (HEADER, told.encode())]}
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        finally:
            if self._log:
                _write(scope, status, (time.perf_counter() - began) * 1000, told)


def _write(scope: Scope, status: int, milliseconds: float, told: str) -> None:
    host, port = scope.get("client") or ("", 0)
    fields = {
        "client": f"{host}:{port}",
        "method": scope["method"],
        "path": quote(scope["path"])[:LONGEST_PATH],
        "status": status,
        "ms": round(milliseconds, 1),
    }
    version = scope.get("http_version", "1.1")
    text = f'{{client}} "{{method}} {{path}} HTTP/{version}" {{status}} in {{ms}} ms'
    text = text.format(**fields)
    logger.info(text, extra={"fields": fields, "request_id": told})
