"""`POST /v1/route`: which option to ask and how, without asking it; for other gateways.

A body is one of `/v1/chat/completions`, or `{"image": URL, "question": TEXT}` with the same wishes
beside. What cannot be judged is told the finest option and why, as when it is relayed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from m3router.data.errors import DataError, MismatchError
from m3router.data.registry import unknown_name
from m3router.m3core.endpoint.endpoint_options import EndpointOption
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.deciding.decider import Judged
from m3router.router.serve.errors import ApiError
from m3router.router.serve.gateway.bodies import Json, parsed
from m3router.router.serve.in_turn import in_turn

IN_A_THREAD = 256 << 10
"""Bytes of a body from which on it is read beside the event loop."""
SHORT = ("image", "question", "m3router", "model")
"""Fields of a body that is no chat."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What became of a body.

    Attributes:
        judged: What was decided; None where the body cannot be judged.
        option: The option to ask: what was decided, or the finest.
        reason: Why, one or two sentences.
        guarantee: What is certified about requests that are routed so; "" without.
        image: Makes a data URL of the body's image as that option sends it; it gives None where
            that is as it came. None where nothing can make one.
    """

    judged: Judged | None
    option: str
    reason: str
    guarantee: str = ""
    image: Callable[[], Awaitable[str | None]] | None = None


class Judge(Protocol):
    """Judges bodies; the gateway's own way from a body to a decision."""

    async def __call__(self, body: Json, request: Request) -> Judgement:
        """Judge a chat body; wishes may stand in the request's headers.

        Raises:
            ApiError: If the body or a wish in it is wrong, or the router failed and the gateway is
                to refuse then.
            DataError: If a wish cannot be met or calibrated here.
            MismatchError: If there is no such option or policy.
            UnavailableError: If what decides is gone.
        """
        ...


class RouteApi:
    """The handler of `/v1/route`.

    Args:
        judge: Judges bodies.
        options: Gives how each option is asked, from the coarsest to the finest; called at each
            request, since options may be completed when a server starts.
    """

    def __init__(self, judge: Judge, options: Callable[[], Mapping[str, EndpointOption]]) -> None:
        self._judge = judge
        self._options = options

    def routes(self) -> list[Route]:
        """To be mounted in an application of Starlette's."""
        return [Route("/v1/route", self.route, methods=["POST"])]

    async def route(self, request: Request) -> Response:
        """Say which option to ask and how; with `?image=true` also the image as it is sent."""
        try:
            raw = await request.body()
            large = len(raw) > IN_A_THREAD
            body = await in_turn(chat_body, raw) if large else chat_body(raw)
            try:
                found = await self._judge(body, request)
            except (DataError, MismatchError) as error:
                raise ApiError(400, str(error)) from error
            except UnavailableError as error:
                raise ApiError(
                    503,
                    str(error),
                    kind="server_error",
                    code="unavailable",
                    headers={"Retry-After": "5"},
                ) from error
            url = None
            if found.image is not None and _wanted(request):
                url = await found.image()
            return JSONResponse(route_answer(found, self._options(), image=url))
        except ApiError as error:
            return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


def route_answer(
    found: Judgement, options: Mapping[str, EndpointOption], *, image: str | None = None
) -> Json:
    """The answer's body.

    Args:
        found: What became of the request.
        options: How each option is asked, from the coarsest to the finest.
        image: A data URL of the image as the option sends it; None for as it came.
    """
    option = options[found.option]
    answer: Json = {
        "object": "route",
        "option": found.option,
        "judged": found.judged is not None,
        "reason": found.reason,
        "ask": {**option.deciding(), "length_field": option.length_field},
    }
    if image is not None:
        answer["image"] = image
    if found.judged is None:
        return answer
    told = asdict(found.judged.decision)
    finest = told["costs"].get(list(options)[-1])
    own = told["costs"].get(found.option)
    saved = None if finest is None or own is None else finest - own
    names = ("estimates", "costs", "cost_unit", "familiarity", "fallback")
    return {
        **answer,
        **{name: told[name] for name in names},
        "saved": saved,
        "guarantee": found.guarantee,
        "milliseconds": told["milliseconds"],
    }


def chat_body(raw: bytes) -> Json:
    """The body of a chat, also where an image and a question were given alone.

    >>> chat_body(b'{"image": "data:,", "question": "What is it?"}')["messages"][0]["content"][1]
    {'type': 'text', 'text': 'What is it?'}

    Raises:
        ApiError: 400 if it is no JSON object, or has neither.
    """
    body = parsed(raw)
    if body.get("messages") is not None:
        if not isinstance(body["messages"], list):
            raise ApiError(400, "messages must be a list.", param="messages")
        return body
    given = {name: value for name, value in body.items() if value is not None}
    unknown = next((name for name in given if name not in SHORT and name != "messages"), None)
    if unknown is not None and "question" in given:
        raise ApiError(400, unknown_name("field", unknown[:80], SHORT), param=unknown[:80])
    question, image = given.get("question"), given.get("image")
    if not isinstance(question, str) or not question.strip():
        raise ApiError(
            400,
            "Give messages as for /v1/chat/completions, or image (its URL) and question.",
            param="messages" if question is None else "question",
        )
    if image is not None and not isinstance(image, str):
        raise ApiError(400, "image must be the URL of an image, such as data:...", param="image")
    content: list[Json] = [{"type": "text", "text": question}]
    if image is not None:
        content.insert(0, {"type": "image_url", "image_url": {"url": image}})
    rest: Json = {name: given[name] for name in ("m3router", "model") if name in given}
    return {**rest, "messages": [{"role": "user", "content": content}]}


def _wanted(request: Request) -> bool:
    return request.query_params.get("image", "").lower() in ("1", "true", "yes")
