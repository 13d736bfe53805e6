"""The server's front: routes, who may use them, and what clients learn of errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import FastAPI
from PIL import Image

from m3router.data.errors import M3RouterError
from m3router.router.inference.query import Served
from m3router.router.serve.backends.backend import Backend
from m3router.router.serve.guard.admission import OPEN, admission
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.guard.request_guard import RequestGuard
from m3router.router.serve.http.chat import Chat
from m3router.router.serve.http.description import describe
from m3router.router.serve.http.error_answers import tell_errors
from m3router.router.serve.http.lifespan import Lifespan
from m3router.router.serve.http.metrics import Metrics
from m3router.router.serve.http.recording import made_by
from m3router.router.serve.http.request_ids import RequestIds
from m3router.router.serve.http.routes import (
    chat_routes,
    health_routes,
    metrics_routes,
    model_routes,
    traffic_routes,
)
from m3router.router.serve.images.workers import ImageWorkers
from m3router.router.serve.settings import FrontSettings
from m3router.router.traffic.recorder import Recorder
from m3router.router.version import __version__


@dataclass(frozen=True, kw_only=True)
class Front:
    """What the front is made of.

    Attributes:
        backend: Answers.
        image: From an address to an RGB image; raises ApiError.
        workers: What decodes images for `image`, started and stopped with the server; None where
            nothing needs that.
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
    workers: ImageWorkers | None = None
    recorder: Recorder | None = None
    hosts: frozenset[str] | None = None


def create_app(front: Front, *, on_ready: Callable[[Served], None] | None = None) -> Lifespan:
    """The whole ASGI application.

    Args:
        front: What it is made of.
        on_ready: Called with what is served once questions are taken.
    """
    settings, recorder = front.settings, front.recorder

    async def start() -> None:
        workers = front.workers
        if workers is not None:
            await workers.start()
        try:
            await front.backend.start()
            if recorder is not None:
                try:
                    recorder.start(made_by(front.backend.served()))
                except M3RouterError:
                    await front.backend.stop(seconds=settings.shutdown_timeout)
                    raise
        except M3RouterError:
            if workers is not None:
                await workers.stop()
            raise
        if on_ready is not None:
            on_ready(front.backend.served())

    async def stop() -> None:
        await front.backend.stop(seconds=settings.shutdown_timeout)
        if front.workers is not None:
            await front.workers.stop()
        if recorder is not None:
            recorder.stop()

    guard = RequestGuard(
        routes(front),
        max_bytes=settings.max_bytes,
        body_seconds=settings.body_seconds,
        max_depth=settings.max_depth,
        hosts=front.hosts,
        admit=admission(front.keys, front.rates),
    )
    return Lifespan(RequestIds(guard), start=start, stop=stop)


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
        traffic_routes(front.recorder),
    ]
    app = FastAPI(title="m3router", version=__version__, docs_url=None, redoc_url=None)
    for group in groups:
        app.include_router(group)
    tell_errors(app)
    describe(app, front.backend, keys=front.keys.needed, open_paths=OPEN)
    return app
