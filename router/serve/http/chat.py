"""`/v1/chat/completions`: one question, answered whole or as it grows."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image

from m3router.data.errors import DataError, M3RouterError, MismatchError
from m3router.router.inference.query import Query
from m3router.router.inference.result import RoutedAnswer
from m3router.router.serve.backends.backend import (
    Backend,
    BusyError,
    OverdueError,
    UnavailableError,
)
from m3router.router.serve.errors import ApiError, where
from m3router.router.serve.http.convert import (
    WISHES,
    Question,
    asked_question,
    asked_sampling,
    asked_scale,
    completion,
    headers_of,
    let_go_of_images,
    query_of,
    routing_of,
    usage_of,
)
from m3router.router.serve.http.metrics import Metrics
from m3router.router.serve.http.recording import served_request
from m3router.router.serve.http.request_ids import PREFIX, request_id
from m3router.router.serve.http.schema import ChatRequest, chunk
from m3router.router.serve.settings import FrontSettings
from m3router.router.traffic.recorder import Recorder

LEFT = 499
"""Status in logs and metrics of a request whose client left, as nginx has it."""

LONGEST_ERROR = 500
"""Characters: a number of thousands of digits is not repeated."""

Found = TypeVar("Found")
logger = logging.getLogger(__name__)


class _ClientLeft(Exception):
    """Nobody waits for the answer any more."""


@dataclass(kw_only=True)
class RequestContext:
    """One request on its way.

    Attributes:
        id: Of the completion; traffic is deleted by it.
        request: What came.
        key: Name of its API key, "" without one.
        as_certified: Whether what is certified about routed answers is about this one.
        model: What is asked; "?" until it is known to be there, so that nobody can fill logs and
            metrics with names of their own.
        started: By `time.perf_counter`.
        opening: Milliseconds that reading the image took.
    """

    id: str
    request: ChatRequest
    key: str
    started: float
    opening: float = 0.0
    as_certified: bool = True
    model: str = "?"

    @property
    def seconds(self) -> float:
        """Since it came."""
        return time.perf_counter() - self.started


class Chat:
    """Answers requests.

    Args:
        backend: Answers questions.
        settings: Limits.
        image: From an address to an RGB image; raises ApiError.
        metrics: Told of everything.
        recorder: Keeps a share of the traffic; None for none.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        settings: FrontSettings,
        image: Callable[[str], Awaitable[Image.Image]],
        metrics: Metrics,
        recorder: Recorder | None,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._image = image
        self._metrics = metrics
        self._recorder = recorder

    async def answer(self, request: ChatRequest, http: Request) -> Response:
        """Answer one request; errors are raised as ApiError.

        Args:
            request: Its body.
            http: The request itself, to see whether the client is still there.
        """
        one = RequestContext(
            id=f"chatcmpl-{request_id().removeprefix(PREFIX) or uuid.uuid4().hex}",
            request=request,
            key=getattr(http.state, "key", ""),
            started=time.perf_counter(),
        )
        try:
            query = await self._query(one)
            events = self._backend.ask(query)
            if request.stream:
                # The first event is waited for, so that a refusal still has a status of its own.
                first = await _unless_left(http, anext(events))
                return StreamingResponse(
                    self._told(one, query, first, events),
                    media_type="text/event-stream",
                    headers={"x-request-id": one.id},
                )
            routed = await _unless_left(http, _end_of(events))
        except _ClientLeft:
            self._log(one, LEFT)
            return Response(status_code=LEFT)
        except (ApiError, M3RouterError) as error:
            problem = api_error(error)
            problem.headers["x-request-id"] = one.id
            self._log(one, problem.status)
            raise problem from error
        except Exception:  # the edge: it is counted here, and told where errors are told
            self._log(one, 500)
            raise
        routed = self._answered(one, query, routed)
        body = completion(
            routed, id=one.id, created=_now(), model=request.model, opening=one.opening
        )
        told = {"x-request-id": one.id, **headers_of(routed)}
        return JSONResponse(body.model_dump(), headers=told)

    async def _query(self, one: RequestContext) -> Query:
        """Check what can be checked without the image first: that is cheap."""
        if not self._backend.ready():
            raise UnavailableError("The server is starting or stopping.")
        served = self._backend.served()
        load = self._backend.load()
        if load["queued"] >= load["capacity"]:
            wait = float(load.get("retry_after", 1.0))
            raise BusyError("The queue is full. Try again later.", retry_after=wait)
        asked_scale(one.request, served)
        one.model = one.request.model
        asked_sampling(one.request, self._settings)
        question = asked_question(one.request, self._settings)
        image = await self._read(question)
        let_go_of_images(one.request)
        one.opening = one.seconds * 1000
        query = query_of(
            one.request,
            question,
            served,
            id=one.id,
            image=image,
            seconds=self._settings.request_timeout - one.seconds,
            settings=self._settings,
        )
        # What is certified is greedy answers to questions as they were asked.
        one.as_certified = query.sampling is None and not question.has_system_text
        await self._check(one.request, query, question)
        return query

    async def _check(self, request: ChatRequest, query: Query, question: Question) -> None:
        """Let the backend refuse what could never be answered, and name the field."""
        try:
            await asyncio.to_thread(self._backend.check, query)
        except (DataError, MismatchError) as error:
            wish = next((name for name in WISHES if getattr(request, name) is not None), None)
            place = question.content
            if wish is not None:
                plain = replace(query, scale=None, budget=None, max_regret=None)
                try:
                    await asyncio.to_thread(self._backend.check, plain)
                except (DataError, MismatchError):
                    pass  # the question itself
                else:
                    place = wish
            raise ApiError(400, f"{place}: {error}"[:LONGEST_ERROR], param=place) from error

    async def _read(self, question: Question) -> Image.Image:
        try:
            return await self._image(question.url)
        except ApiError as error:
            error.param = error.param or question.place
            raise

    async def _told(
        self,
        one: RequestContext,
        query: Query,
        first: str | RoutedAnswer,
        events: AsyncIterator[str | RoutedAnswer],
    ) -> AsyncIterator[str]:
        """The stream's events, as text."""
        created, model = _now(), one.request.model
        options = one.request.stream_options
        usage = options is not None and bool(options.include_usage)

        def line(**fields: Any) -> str:
            return _sse(chunk(one.id, created, model, tells_usage=usage, **fields))

        routed: RoutedAnswer | None = None
        try:
            self._metrics.first.observe(one.seconds)
            yield line(delta={"role": "assistant", "content": ""})
            event = first
            while not isinstance(event, RoutedAnswer):
                yield line(delta={"content": event})
                following = await anext(events, None)
                if following is None:
                    raise UnavailableError("The answer broke off.")
                event = following
            routed = self._answered(one, query, event)
            m3 = routing_of(routed, opening=one.opening)
            yield line(delta={}, reason=routed.reason, m3=m3)
            if usage:
                yield line(delta=None, usage=usage_of(routed))
            yield "data: [DONE]\n\n"
        except M3RouterError as error:
            # The status was sent long ago; the client sees that the answer is not whole.
            problem = api_error(error)
            self._log(one, problem.status)
            yield _sse(problem.body())
        except Exception as error:  # the edge, as in the guard: the status was sent long ago
            logger.error("%s failed: %s", one.id, where(error))
            self._log(one, 500)
            yield _sse(failed(one.id).body())
        except (asyncio.CancelledError, GeneratorExit):
            if routed is None:
                self._log(one, LEFT)
            raise
        finally:
            await _close(events)

    def _answered(self, one: RequestContext, query: Query, routed: RoutedAnswer) -> RoutedAnswer:
        """Count and keep an answer; gives it with what is certified about it."""
        if not one.as_certified:
            routed = replace(routed, guarantee="")
        self._metrics.answered(routed, self._backend.served(), seconds=one.seconds)
        if self._recorder is not None:
            consented = one.request.store
            self._recorder.offer(served_request(query, routed, key=one.key, consented=consented))
        self._log(one, 200, scale=routed.scale)
        return routed

    def _log(self, one: RequestContext, status: int, *, scale: int | None = None) -> None:
        self._metrics.requests.labels(one.model, str(status)).inc()
        told = "" if scale is None else f" scale {scale}"
        logger.info("%s %s%s %d in %.0f ms", one.id, one.model, told, status, one.seconds * 1000)


def api_error(error: Exception) -> ApiError:
    """What a client is told of an error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        seconds = {"Retry-After": str(max(1, round(error.retry_after)))}
        return ApiError(
            429, str(error), kind="rate_limit_error", code="queue_full", headers=seconds
        )
    if isinstance(error, OverdueError):
        return ApiError(504, str(error), kind="server_error", code="timeout")
    if isinstance(error, UnavailableError):
        seconds = {"Retry-After": "5"}
        return ApiError(503, str(error), kind="server_error", code="unavailable", headers=seconds)
    if isinstance(error, DataError | MismatchError):
        return ApiError(400, str(error))
    return ApiError(500, "The server failed to answer.", kind="server_error")


def failed(id: str) -> ApiError:
    """What a client is told where something went wrong that nobody foresaw."""
    return ApiError(
        500,
        f"The server failed to answer; its operator finds the request in the log as {id}.",
        kind="server_error",
    )


async def _unless_left(http: Request, work: Awaitable[Found]) -> Found:
    """Wait for something, and give it up when the client leaves.

    Raises:
        _ClientLeft: If it did.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(http))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _ClientLeft
        return task.result()
    finally:
        for one in (task, left):
            one.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _end_of(events: AsyncIterator[str | RoutedAnswer]) -> RoutedAnswer:
    try:
        async for event in events:
            if isinstance(event, RoutedAnswer):
                return event
        raise UnavailableError("The answer broke off.")
    finally:
        await _close(events)


async def _close(events: AsyncIterator[Any]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()


def _now() -> int:
    return int(time.time())


def _sse(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
