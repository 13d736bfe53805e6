"""`POST /v1/feedback` and `DELETE /v1/traffic/{id}`: what who asked may do with what was kept.

Both servers mount :meth:`TrafficRoutes.routes`. A request that was never kept, was deleted, or that
another key made, is answered alike: nobody learns which of these it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from m3router.data.errors import DataError
from m3router.data.json_files import once
from m3router.data.registry import unknown_name
from m3router.router.serve.errors import ApiError
from m3router.router.traffic.feedback import LONGEST_ANSWER, Feedback
from m3router.router.traffic.recorder import Recorder

LONGEST_BODY = 16 << 10
LONGEST_ID = 256
FIELDS = ("id", "score", "right", "answer")
GRACE = 0.3
"""Seconds after which a request that is not known is looked for once more: an answer may have come
to its client just before it came to the recorder."""
THREADS = 2
"""At once, so that a slow disk holds up nobody else."""

FORGET = {
    "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
}
FEEDBACK = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["id"],
                    "additionalProperties": False,
                    "properties": {
                        "id": {"type": "string", "minLength": 1, "maxLength": LONGEST_ID},
                        "score": {"type": "number", "minimum": 0, "maximum": 1},
                        "right": {"type": "boolean"},
                        "answer": {"type": "string", "maxLength": LONGEST_ANSWER},
                    },
                    "oneOf": [{"required": ["score"]}, {"required": ["right"]}],
                }
            }
        },
    }
}
"""What the two take, for a description of the server (OpenAPI)."""

Found = TypeVar("Found")


class TrafficRoutes:
    """Handlers of feedback and deletion.

    Args:
        recorder: Where requests are kept; None where none are.
        who: From a request to what records have as its `key`; None for the name of its API key.
    """

    def __init__(
        self, recorder: Recorder | None, *, who: Callable[[Request], str] | None = None
    ) -> None:
        self._recorder = recorder
        self._who = _key_name if who is None else who
        self._limiter: anyio.CapacityLimiter | None = None

    def routes(self) -> list[Route]:
        """Both, to be mounted in an application of Starlette's."""
        return [
            Route("/v1/feedback", self.feedback, methods=["POST"]),
            Route("/v1/traffic/{id}", self.forget, methods=["DELETE"]),
        ]

    async def feedback(self, request: Request) -> Response:
        """Take what is said of an answer."""
        try:
            id, told = parse_feedback(await _body(request))
            recorder, key = self._kept_by(), self._who(request)
            found = await self._in_thread(lambda: recorder.feedback(id, told, key=key))
            if not found:
                await asyncio.sleep(GRACE)
                found = await self._in_thread(lambda: recorder.feedback(id, told, key=key))
            if not found:
                raise ApiError(
                    404,
                    "Nothing is kept of this request: it was not sampled, was deleted, or did not "
                    "come with this key.",
                    param="id",
                    code="not_found",
                )
            return JSONResponse({"object": "feedback", "id": id, "score": told.score})
        except ApiError as error:
            return _answer(error)

    async def forget(self, request: Request) -> Response:
        """Delete what was kept of a request, by the id of its answer."""
        try:
            id, recorder, key = request.path_params["id"], self._kept_by(), self._who(request)
            if not await self._in_thread(lambda: recorder.forget(id, key=key)):
                raise ApiError(404, "No such request is kept here.", code="not_found")
            return JSONResponse({"id": id, "deleted": True})
        except ApiError as error:
            return _answer(error)

    def _kept_by(self) -> Recorder:
        if self._recorder is None:
            raise ApiError(404, "This server keeps no requests.", code="not_found")
        return self._recorder

    async def _in_thread(self, work: Callable[[], Found]) -> Found:
        """Do what waits for the disk.

        Raises:
            ApiError: 503 where the disk is full, or the server is stopping.
        """
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(THREADS)
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        except DataError as error:  # names the folder; most likely the disk is full
            raise ApiError(
                503,
                "It could not be written just now. Try again.",
                kind="server_error",
                code="unavailable",
                headers={"Retry-After": "5"},
            ) from error


def parse_feedback(body: bytes) -> tuple[str, Feedback]:
    """The id of an answer, and what is said of it.

    >>> parse_feedback(b'{"id": "chatcmpl-1", "right": false, "answer": "a dog"}')
    ('chatcmpl-1', Feedback(score=0.0, answer='a dog'))

    Raises:
        ApiError: 400; the message names the field that is wrong.
    """
    try:
        values = json.loads(body, object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise ApiError(
            400, "The body is not valid JSON with each field once.", code="invalid_json"
        ) from None
    if not isinstance(values, dict):
        raise ApiError(400, 'The body must be a JSON object, such as {"id": "…", "right": true}.')
    values = {name: value for name, value in values.items() if value is not None}
    unknown = next((name for name in values if name not in FIELDS), None)
    if unknown is not None:
        raise ApiError(400, unknown_name("field", unknown[:80], FIELDS), param=unknown[:80])
    id, answer = values.get("id"), values.get("answer", "")
    if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID:
        raise ApiError(400, "id must be the id of an answer, a text.", param="id")
    if not isinstance(answer, str) or len(answer) > LONGEST_ANSWER:
        raise ApiError(
            400,
            f"answer must be the right answer, a text of at most {LONGEST_ANSWER} characters.",
            param="answer",
        )
    try:
        return id, Feedback(score=_score(values), answer=answer.strip())
    except DataError as error:
        raise ApiError(400, str(error), param="answer") from error


def _score(values: dict[str, Any]) -> float:
    given = [name for name in ("score", "right") if name in values]
    if len(given) != 1:
        raise ApiError(
            400,
            "Give either score, a number in [0, 1], or right, true or false.",
            param=given[1] if given else None,
        )
    value = values[given[0]]
    if given == ["right"]:
        if not isinstance(value, bool):
            raise ApiError(400, "right must be true or false.", param="right")
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ApiError(400, "score must be a number in [0, 1].", param="score")
    return float(value)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            raise ApiError(
                413, f"The body is longer than {LONGEST_BODY} bytes.", code="request_too_large"
            )
    return bytes(body)


def _answer(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


def _key_name(request: Request) -> str:
    return str(getattr(request.state, "key", ""))
