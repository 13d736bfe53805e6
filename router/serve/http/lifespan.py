"""An ASGI application with its beginning and its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from m3router.data.errors import M3RouterError
from m3router.router.serve.guard.request_guard import App, Receive, Scope, Send


class Lifespan:
    """An ASGI application with its beginning and its end.

    An error of this project at the start is kept, not logged with a traceback: it is for whoever
    starts the server, who finds it in :attr:`error`.

    Attributes:
        error: Why it did not start; None where it did.

    Args:
        app: Serves requests in between.
        start: Awaited before the first.
        stop: Awaited after the last, where the start succeeded.
    """

    def __init__(
        self, app: App, *, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]
    ) -> None:
        self.app = app
        self.error: M3RouterError | None = None
        self._start = start
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or follow the server through its life."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        await receive()
        try:
            await self._start()
        except M3RouterError as error:
            self.error = error
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})
