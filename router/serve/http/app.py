"""The server's front: routes, who may use them, and what clients learn of errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI
from PIL import Image

from m3router.data.errors import M3RouterError
from m3router.router.inference.query import Served
from m3router.router.serve.backends.backend import Backend
from m3router.router.serve.errors import ApiError
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates, neighbourhood
from m3router.router.serve.guard.request_guard import App, Receive, RequestGuard, Scope, Send
from m3router.router.serve.http.chat import Chat
from m3router.router.serve.http.description import describe
from m3router.router.serve.http.error_answers import tell_errors
from m3router.router.serve.http.metrics import Metrics
from m3router.router.serve.http.request_ids import RequestIds
from m3router.router.serve.http.routes import (
    chat_routes,
    health_routes,
    metrics_routes,
    model_routes,
    traffic_routes,
)
from m3router.router.serve.settings import FrontSettings
from m3router.router.traffic.recorder import Recorder
from m3router.router.version import __version__

OPEN = frozenset({"/health", "/ready", "/openapi.json"})
"""Paths that need no key: they tell nothing of what is asked."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """What the front is made of.

    Attributes:
        backend: Answers.
        image: From an address to an RGB image; raises ApiError.
        keys: Who may ask.
        rates: How often.
        settings: Limits of single requests.
        recorder: Keeps a share of the traffic; None for none.
        hosts: Names that the server goes by; None for any.
    """

    backend: Backend
    image: Callable[[str], Awaitable[Image.Image]]
    keys: KeyRing
    rates: Rates
    settings: FrontSettings
    recorder: Recorder | None = None
    hosts: frozenset[str] | None = None


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


def create_app(front: Front, *, on_ready: Callable[[Served], None] | None = None) -> Lifespan:
    """The whole ASGI application.

    Args:
        front: What it is made of.
        on_ready: Called with what is served once questions are taken.
    """
    settings, recorder = front.settings, front.recorder

    async def start() -> None:
        await front.backend.start()
        if recorder is not None:
            try:
                recorder.start(front.backend.served())
            except M3RouterError:
                await front.backend.stop(seconds=settings.shutdown_timeout)
                raise
        if on_ready is not None:
            on_ready(front.backend.served())

    async def stop() -> None:
        await front.backend.stop(seconds=settings.shutdown_timeout)
        if recorder is not None:
            recorder.stop()

    guard = RequestGuard(
        routes(front),
        max_bytes=settings.max_bytes,
        body_seconds=settings.body_seconds,
        max_depth=settings.max_depth,
        hosts=front.hosts,
        admit=partial(admit, front.keys, front.rates),
    )
    return Lifespan(RequestIds(guard), start=start, stop=stop)


def admit(keys: KeyRing, rates: Rates, scope: MutableMapping[str, Any]) -> None:
    """Let a request in by its key and its rate, before its body is read.

    Raises:
        ApiError: 401 without a valid key, 429 where requests come too fast.
    """
    if scope["path"] in OPEN:
        return
    client = scope.get("client") or ("unknown", 0)
    who, own_rate = neighbourhood(str(client[0])), None
    if keys.needed:
        key = keys.authenticate(_token(scope))
        if key is None:
            raise ApiError(
                401,
                "A valid API key is needed: Authorization: Bearer <key>.",
                kind="authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        scope.setdefault("state", {})["key"] = key.name
        who, own_rate = f"key {key.name}", key.requests_per_minute
    if scope["path"] == "/metrics":
        return
    wait = rates.take(who, own_rate)
    if wait > 0:
        raise ApiError(
            429,
            f"Too many requests; the next one is let in after {wait:.1f} s.",
            kind="rate_limit_error",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(max(1, round(wait + 0.5)))},
        )


def _token(scope: MutableMapping[str, Any]) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if kind.lower() == "bearer" else ""
    return ""


def routes(front: Front) -> FastAPI:
    """The routes alone, without the guard in front."""
    metrics = Metrics(front.backend.load)
    if front.recorder is not None:
        metrics.of_traffic(front.recorder.counts)
    chat = Chat(
        backend=front.backend,
        settings=front.settings,
        image=front.image,
        metrics=metrics,
        recorder=front.recorder,
    )
    groups = [
        chat_routes(chat),
        model_routes(front.backend),
        health_routes(front.backend),
        metrics_routes(metrics),
    ]
    if front.recorder is not None:
        groups.append(traffic_routes(front.recorder))
    app = FastAPI(title="m3router", version=__version__, docs_url=None, redoc_url=None)
    for group in groups:
        app.include_router(group)
    tell_errors(app)
    describe(app, front.backend, keys=front.keys.needed, open_paths=OPEN)
    return app
