"""An id for every request: in its answer's headers, and for whatever is logged of it."""

from __future__ import annotations

import uuid
from contextvars import ContextVar

from m3router.router.serve.guard.request_guard import App, Message, Receive, Scope, Send

HEADER = "x-request-id"
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is being served; "" outside of one."""


class RequestIds:
    """Gives every request an id, and tells it in the answer, whatever answers.

    It stands before everything else, so that refusals have one, too. The id is in the scope's
    state as ``request_id``. An answer that names an id of its own keeps it.

    Args:
        app: What answers.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = id
        token = REQUEST_ID.set(id)

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                if not any(name.lower() == HEADER.encode() for name, _ in headers):
                    headers.append((HEADER.encode(), f"req-{id}".encode()))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self.app(scope, receive, with_id)
        finally:
            REQUEST_ID.reset(token)


def request_id(scope: Scope) -> str:
    """The id of a request: 32 hexadecimal digits, made up here where nothing did before."""
    state = scope.setdefault("state", {})
    return str(state.setdefault("request_id", uuid.uuid4().hex))
