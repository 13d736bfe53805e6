"""The server's front: routes, who may use them, and what clients learn of errors."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from PIL import Image
from starlette.exceptions import HTTPException

from m3router.data.errors import M3RouterError
from m3router.router.inference.query import Served
from m3router.router.serve.backends.backend import Backend
from m3router.router.serve.errors import ApiError
from m3router.router.serve.guard.admission import OPEN, admit
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.guard.request_guard import RequestGuard
from m3router.router.serve.http.chat import Chat, api_error
from m3router.router.serve.http.convert import model_names
from m3router.router.serve.http.feedback import FEEDBACK, FORGET, TrafficRoutes
from m3router.router.serve.http.lifespan import Lifespan
from m3router.router.serve.http.metrics import Metrics
from m3router.router.serve.http.recording import made_by
from m3router.router.serve.http.schema import (
    ChatCompletion,
    ChatRequest,
    ErrorAnswer,
    ModelCard,
    ModelList,
)
from m3router.router.serve.images.workers import ImageWorkers
from m3router.router.serve.settings import FrontSettings
from m3router.router.traffic.recorder import Recorder
from m3router.router.version import __version__

LONGEST_PLACE = 200
"""Characters of a wrong field's name that are shown: the client may have made it up."""


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
        admit=partial(admit, front.keys, front.rates),
    )
    return Lifespan(guard, start=start, stop=stop)


def routes(front: Front) -> FastAPI:
    """The routes alone, without the guard in front."""
    backend = front.backend
    metrics = Metrics(backend.load)
    if front.recorder is not None:
        metrics.of_traffic(front.recorder.counts)
    chat = Chat(
        backend=backend,
        settings=front.settings,
        image=front.image,
        metrics=metrics,
        recorder=front.recorder,
    )

    app = FastAPI(title="m3router", version=__version__, docs_url=None, redoc_url=None)
    started = int(time.time())

    def card(name: str, scale: int | None) -> ModelCard:
        certified = backend.served().guarantee if scale is None else ""
        return ModelCard(id=name, created=started, scale=scale, guarantee=certified)

    @app.post("/v1/chat/completions", responses=_problems(400, 404, 408, 413, 415, 429, 503, 504))
    async def chat_completions(body: ChatRequest, http: Request) -> ChatCompletion:
        """Answer one question about one image, at the scale that suffices."""
        return await chat.answer(body, http)  # type: ignore[return-value]

    @app.get("/v1/models", responses=_problems(429))
    async def models() -> ModelList:
        """The routed model, and one for each scale."""
        named = model_names(backend.served())
        return ModelList(data=[card(name, scale) for name, scale in named.items()])

    @app.get("/v1/models/{name}", responses=_problems(404, 429))
    async def model(name: str) -> ModelCard:
        """One of the models."""
        named = model_names(backend.served())
        if name not in named:
            raise ApiError(404, "There is no such model.", code="model_not_found")
        return card(name, named[name])

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "ok"}

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", responses=_problems(503))
    async def ready() -> dict[str, str]:
        """Whether questions are taken."""
        if not backend.ready():
            raise ApiError(503, "Not ready.", kind="server_error", code="unavailable")
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response)
    async def metrics_page() -> Response:
        """Counts and times in Prometheus' text format."""
        return Response(metrics.page(), media_type="text/plain; version=0.0.4")

    kept, described = TrafficRoutes(front.recorder), front.recorder is not None
    app.delete(
        "/v1/traffic/{id}",
        responses=_problems(404, 429, 503),
        openapi_extra=FORGET,
        include_in_schema=described,
    )(kept.forget)
    app.post(
        "/v1/feedback",
        responses=_problems(400, 404, 413, 429, 503),
        openapi_extra=FEEDBACK,
        include_in_schema=described,
    )(kept.feedback)

    _tell_errors(app)
    _describe(app, front)
    return app


def _tell_errors(app: FastAPI) -> None:
    """Every error in the shape that OpenAI's clients read."""

    def answer(error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), status_code=error.status, headers=error.headers)

    @app.exception_handler(ApiError)
    async def told(_: Request, error: ApiError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(M3RouterError)
    async def failed(_: Request, error: M3RouterError) -> JSONResponse:
        return answer(api_error(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # What came is not repeated: it may be an image.
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return answer(ApiError(400, "The body is not valid JSON.", code="invalid_json"))
        place = ".".join(str(part) for part in first["loc"][1:])[:LONGEST_PLACE] or None
        return answer(ApiError(400, f"{place or 'The body'}: {first['msg']}.", param=place))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        told = ApiError(error.status_code, str(error.detail), headers=error.headers)
        return answer(told)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer} for status in statuses}


def _describe(app: FastAPI, front: Front) -> None:
    """The schema as the server is, not as FastAPI supposes: 400 for 422, streams, keys."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            if front.keys.needed:
                schemes = {"bearer": {"type": "http", "scheme": "bearer"}}
                schema["components"]["securitySchemes"] = schemes
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    if front.keys.needed and path not in OPEN:
                        operation["security"] = [{"bearer": []}]
                        operation["responses"]["401"] = operation["responses"].get(
                            "429", {"description": "No valid key"}
                        )
            answered = schema["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]
            answered["content"]["text/event-stream"] = {"schema": {"type": "string"}}
            if front.backend.ready():
                names = list(model_names(front.backend.served()))
                schema["components"]["schemas"]["ChatRequest"]["properties"]["model"]["enum"] = (
                    names
                )
                app.openapi_schema = schema
            return schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
