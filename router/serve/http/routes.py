"""What the model server answers, one function for each group of addresses."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from m3router.router.serve.backends.backend import Backend
from m3router.router.serve.errors import ApiError
from m3router.router.serve.http.chat import Chat
from m3router.router.serve.http.convert import model_names
from m3router.router.serve.http.description import BODY, CHAT
from m3router.router.serve.http.feedback import FEEDBACK, FORGET, TrafficRoutes
from m3router.router.serve.http.metrics import Metrics
from m3router.router.serve.http.reading import chat_request
from m3router.router.serve.http.schema import (
    ChatCompletion,
    ChatRequest,
    ErrorAnswer,
    ModelCard,
    ModelList,
)
from m3router.router.serve.in_turn import LONG, in_turn
from m3router.router.traffic.recorder import Recorder


def chat_routes(chat: Chat) -> APIRouter:
    """`/v1/chat/completions`."""
    router = APIRouter()

    @router.post(
        CHAT, responses=_problems(400, 404, 408, 413, 415, 429, 503, 504), openapi_extra=BODY
    )
    async def chat_completions(http: Request) -> ChatCompletion:
        """Answer one question about one image, at the scale that suffices."""
        # Nothing here keeps the body, most of which is an image, while it is answered.
        return await chat.answer(await _asked(http), http)  # type: ignore[return-value]

    return router


async def _asked(http: Request) -> ChatRequest:
    body = b"".join([part async for part in http.stream()])
    return await in_turn(chat_request, body) if len(body) > LONG else chat_request(body)


def model_routes(backend: Backend) -> APIRouter:
    """`/v1/models`, and each of them."""
    router = APIRouter()
    started = int(time.time())

    def card(name: str, scale: int | None) -> ModelCard:
        certified = backend.served().guarantee if scale is None else ""
        return ModelCard(id=name, created=started, scale=scale, guarantee=certified)

    @router.get("/v1/models", responses=_problems(429))
    async def models() -> ModelList:
        """The routed model, and one for each scale."""
        named = model_names(backend.served())
        return ModelList(data=[card(name, scale) for name, scale in named.items()])

    @router.get("/v1/models/{name}", responses=_problems(404, 429))
    async def model(name: str) -> ModelCard:
        """One of the models."""
        named = model_names(backend.served())
        if name not in named:
            raise ApiError(
                404,
                f"There is no such model; there are {', '.join(named)}.",
                param="model",
                code="model_not_found",
            )
        return card(name, named[name])

    return router


def health_routes(backend: Backend) -> APIRouter:
    """`/health` and `/ready`."""
    router = APIRouter()

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "ok"}

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready", responses=_problems(503))
    async def ready() -> dict[str, str]:
        """Whether questions are taken."""
        if not backend.ready():
            raise ApiError(503, "Not ready.", kind="server_error", code="unavailable")
        return {"status": "ready"}

    return router


def metrics_routes(metrics: Metrics) -> APIRouter:
    """`/metrics`."""
    router = APIRouter()

    @router.get("/metrics", response_class=Response)
    async def metrics_page() -> Response:
        """Counts and times in Prometheus' text format."""
        return Response(metrics.page(), media_type="text/plain; version=0.0.4")

    return router


def traffic_routes(recorder: Recorder | None) -> APIRouter:
    """`/v1/traffic/{id}` and `/v1/feedback`; without a recorder they say so."""
    router = APIRouter()
    kept, described = TrafficRoutes(recorder), recorder is not None
    router.delete(
        "/v1/traffic/{id}",
        responses=_problems(404, 429, 503),
        openapi_extra=FORGET,
        include_in_schema=described,
    )(kept.forget)
    router.post(
        "/v1/feedback",
        responses=_problems(400, 404, 413, 429, 503),
        openapi_extra=FEEDBACK,
        include_in_schema=described,
    )(kept.feedback)
    return router


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer} for status in statuses}
