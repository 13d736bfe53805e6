"""From a request of the interface to a question for the backend, and from an answer back."""

from __future__ import annotations

import hashlib

from PIL import Image

from m3router.router.inference.query import Query, Served
from m3router.router.inference.result import RoutedAnswer
from m3router.router.serve.errors import ApiError
from m3router.router.serve.http.schema import (
    ChatCompletion,
    ChatRequest,
    Choice,
    ImagePart,
    Message,
    Routing,
    TextPart,
    Usage,
)

AUTO = "m3-auto"
WISHES = ("scale", "budget", "max_regret")


def model_names(served: Served) -> dict[str, int | None]:
    """What can be asked: name to scale, None for the routed one."""
    return {AUTO: None, **{f"m3-{scale}": scale for scale in served.scales}}


def asked_scale(request: ChatRequest, served: Served) -> int | None:
    """The scale that the model's name or the request fixes; None to route.

    Raises:
        ApiError: 404 for an unknown model, 400 where wishes contradict each other.
    """
    names = model_names(served)
    if request.model not in names:
        raise ApiError(
            404,
            f"There is no model {request.model[:80]!r}; there are {', '.join(names)}.",
            param="model",
            code="model_not_found",
        )
    fixed = names[request.model]
    wishes = [name for name in WISHES if getattr(request, name) is not None]
    if fixed is not None and wishes:
        raise ApiError(
            400,
            f"The model {request.model} has a fixed scale; give {wishes[0]} with {AUTO} only.",
            param=wishes[0],
        )
    if len(wishes) > 1:
        raise ApiError(400, f"Give at most one of {', '.join(WISHES)}.", param=wishes[1])
    return request.scale if fixed is None else fixed


def asked_parts(request: ChatRequest) -> tuple[str, str]:
    """The address of the image, and the question.

    Raises:
        ApiError: Unless there are exactly one image and some text.
    """
    content = request.messages[0].content
    parts = [] if isinstance(content, str) else content
    images = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
    question = "\n".join(part.text for part in parts if isinstance(part, TextPart)).strip()
    if len(images) != 1:
        raise ApiError(
            400,
            f"A question is about one image (a part of type image_url); this one has "
            f"{len(images) or 'none'}.",
            param="messages.0.content",
        )
    if not question:
        raise ApiError(400, "The question is empty.", param="messages.0.content")
    return images[0], question


def query_of(
    request: ChatRequest,
    served: Served,
    *,
    id: str,
    image: Image.Image,
    seconds: float,
    max_tokens: int | None,
) -> Query:
    """The question for the backend.

    Args:
        request: What came.
        served: By the backend.
        id: For the request.
        image: That the request is about, RGB.
        seconds: Within which it must be answered.
        max_tokens: The server's own limit, None for the model's.

    Raises:
        ApiError: See `asked_scale` and `asked_parts`.
    """
    url, question = asked_parts(request)
    wished = request.max_completion_tokens or request.max_tokens
    limits = [one for one in (wished, max_tokens) if one is not None]
    return Query(
        id=id,
        image=image,
        digest=hashlib.sha256(url.encode()).hexdigest() if url.startswith("data:") else "",
        question=question,
        scale=asked_scale(request, served),
        budget=request.budget,
        max_regret=request.max_regret,
        max_tokens=min(limits) if limits else None,
        seconds=seconds,
    )


def usage_of(routed: RoutedAnswer) -> Usage:
    """Tokens of everything that was tried."""
    tries = [routed.answer, *routed.earlier]
    read = routed.spent_tokens + routed.spent_text_tokens
    written = sum(one.answer_tokens for one in tries)
    return Usage(
        prompt_tokens=read,
        completion_tokens=written,
        total_tokens=read + written,
        visual_tokens=routed.spent_tokens,
    )


def routing_of(routed: RoutedAnswer, *, opening: float) -> Routing:
    """The `m3` object.

    Args:
        routed: The answer.
        opening: Milliseconds that reading the image took.
    """
    milliseconds = {"picture": opening, **routed.milliseconds}
    return Routing(
        scale=routed.scale,
        sufficiency={str(scale): p for scale, p in routed.sufficiency.items()},
        escalated=bool(routed.earlier),
        earlier=[one.text for one in routed.earlier],
        visual_tokens=routed.answer.visual_tokens,
        milliseconds={stage: round(spent, 3) for stage, spent in milliseconds.items()},
        gflops={part: round(flops / 1e9, 6) for part, flops in routed.flops.items()},
        fallback=routed.fallback,
        guarantee=routed.guarantee,
    )


def completion(
    routed: RoutedAnswer, *, id: str, created: int, model: str, opening: float
) -> ChatCompletion:
    """A whole answer; `opening` as for `routing_of`."""
    choice = Choice(message=Message(content=routed.answer.text), finish_reason=routed.reason)
    return ChatCompletion(
        id=id,
        created=created,
        model=model,
        choices=[choice],
        usage=usage_of(routed),
        m3=routing_of(routed, opening=opening),
    )
