"""What is let through to Gradio: what the page itself asks for, and nothing else.

Gradio answers many more addresses than a page needs; some make the server fetch others' addresses
or record things. None of them is reachable here, and the browser is told to contact nobody else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]

_READ = re.compile(
    r"/|/favicon\.ico|/theme\.css|/(assets|static)/.*"
    r"|/gradio_api/(heartbeat/\w+|queue/data|upload_progress|file=/.*)"
)
_EVENTS = re.compile(r"/gradio_api/(queue/join|run/predict|cancel|reset)/?")
_UPLOAD = "/gradio_api/upload"
_LARGEST_EVENT = 256 * 1024  # bytes; a question is far smaller
_FORM = 64 * 1024  # bytes of an upload's form beside the file

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's templates are scripts
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Gate:
    """An ASGI application in front of another one.

    Args:
        app: What answers what is let through.
        uploads: Folder of uploads; an event may name no file elsewhere.
        largest: Bytes of an upload.
    """

    def __init__(self, app: App, *, uploads: Path, largest: int) -> None:
        self._app = app
        self._uploads = uploads
        self._largest = largest

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer, or refuse with a status and one sentence."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page opens no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD") and _READ.fullmatch(path):
            await self._app(scope, receive, _with_headers(send))
        elif method == "POST" and path == _UPLOAD:
            await self._upload(scope, receive, send)
        elif method == "POST" and _EVENTS.fullmatch(path):
            await self._event(scope, receive, send)
        else:
            await _refuse(send, 404, "There is nothing here.")

    async def _upload(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        length = _length(scope)
        if length is None:
            await _refuse(send, 411, "An upload must say how long it is.")
        elif length > self._largest + _FORM:
            await _refuse(send, 413, f"Uploads have {self._largest // 2**20} MiB at most.")
        else:
            await self._app(scope, receive, _with_headers(send))

    async def _event(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > _LARGEST_EVENT:
                await _refuse(send, 413, "This is too long to be a question.")
                return
            if not message.get("more_body"):
                break
        try:
            known = self._names_only_uploads(json.loads(bytes(body)))
        except (ValueError, RecursionError):
            known = False
        if not known:
            await _refuse(send, 400, "Only files that were uploaded here can be asked about.")
            return
        whole = iter([{"type": "http.request", "body": bytes(body), "more_body": False}])

        async def replay() -> Message:
            return next(whole, None) or await receive()

        await self._app(scope, replay, _with_headers(send))

    def _names_only_uploads(self, value: Any) -> bool:
        """Whether every file that an event names, however deep, is an upload."""
        if isinstance(value, list):
            return all(self._names_only_uploads(one) for one in value)
        if not isinstance(value, dict):
            return True
        path = value.get("path")
        if path is not None and not (
            isinstance(path, str) and Path(path).resolve().is_relative_to(self._uploads.resolve())
        ):
            return False
        return all(self._names_only_uploads(one) for one in value.values())


def _length(scope: Mapping[str, Any]) -> int | None:
    """The length that a request states of itself, in bytes; None without a sensible one."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def _with_headers(send: Send) -> Send:
    """Add what tells the browser to contact nobody else."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_HEADERS]
        await send(message)

    return sent


async def _refuse(send: Send, status: int, words: str) -> None:
    body = json.dumps({"detail": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 413:
        headers.append((b"connection", b"close"))  # the rest of it is not read
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
