"""From a request of the interface to a question for the backend, and from an answer back."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from PIL import Image

from m3router.m3core.matryoshka.sampling import Sampling
from m3router.router.inference.query import Query, Served
from m3router.router.inference.result import RoutedAnswer
from m3router.router.serve.errors import ApiError
from m3router.router.serve.http.schema import (
    QUESTION,
    ChatCompletion,
    ChatRequest,
    Choice,
    ImagePart,
    Message,
    Routing,
    SystemMessage,
    TextPart,
    Usage,
)
from m3router.router.serve.settings import FrontSettings, SystemText, Temperature
from m3router.router.text.familiarity import image_note

AUTO = "m3-auto"
WISHES = ("scale", "budget", "max_regret")


def model_names(served: Served) -> dict[str, int | None]:
    """What can be asked: name to scale, None for the routed one."""
    return {AUTO: None, **{f"m3-{scale}": scale for scale in served.scales}}


def asked_scale(request: ChatRequest, served: Served, *, detail: str | None = None) -> int | None:
    """The scale that the model's name, the request or the image's detail fixes; None to route.

    Args:
        request: What came.
        served: By the backend.
        detail: Of the image; it counts where nothing else says how to answer.

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
    if wishes or fixed is not None:
        return request.scale if fixed is None else fixed
    return {"low": served.scales[0], "high": served.scales[-1], "original": served.scales[-1]}.get(
        detail or ""
    )


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a request asks, and about which image.

    Attributes:
        text: The question, with the system text before it.
        url: Of the image.
        place: Of the address in the request, for errors.
        content: Place of the message's content, for errors.
        detail: How finely the image is asked to be seen; None for nothing said.
        has_system_text: Whether there is any.
    """

    text: str
    url: str
    place: str
    content: str
    detail: str | None
    has_system_text: bool


def asked_question(request: ChatRequest, settings: FrontSettings) -> Question:
    """The question and the image.

    Raises:
        ApiError: Unless there are exactly one image and some text, or for system text where the
            server does not take it.
    """
    system: list[str] = []
    asked: list[str] = []
    images: list[tuple[str, ImagePart]] = []
    content = ""
    for number, message in enumerate(request.messages):
        place = f"messages[{number}]"
        said = message.content
        parts = [] if isinstance(said, str) else said
        texts = [said] if isinstance(said, str) else _texts(parts)
        text = "\n".join(texts).strip()
        if not isinstance(message, SystemMessage):
            content = f"{place}.content"
            asked += [text] if text else []
            images += [
                (f"{content}[{part_number}].image_url", part)
                for part_number, part in enumerate(parts)
                if isinstance(part, ImagePart)
            ]
        elif text:  # an empty one says nothing
            if settings.system_text is SystemText.REFUSE:
                raise ApiError(
                    400,
                    f"{place}.role: This server was started without system text; the operator can "
                    "add --system-text prepend.",
                    param=f"{place}.role",
                    code="unsupported_value",
                )
            system.append(text)
    if len(images) != 1:
        raise ApiError(
            400,
            f"{content}: A question is about one image (a part of type image_url); this one has "
            f"{len(images) or 'none'}.",
            param=content,
        )
    if not asked:
        raise ApiError(400, f"{content}: The question is empty.", param=content)
    whole = "\n".join([*system, *asked])
    if len(whole) > QUESTION:
        raise ApiError(
            400,
            f"{content}: Question and system text are longer than {QUESTION} characters together.",
            param=content,
            code="string_above_max_length",
        )
    place, image = images[0]
    return Question(
        text=whole,
        url=image.image_url.url,
        place=f"{place}.url",
        content=content,
        detail=image.image_url.detail,
        has_system_text=bool(system),
    )


def let_go_of_images(request: ChatRequest) -> None:
    """Drop the addresses of images, of megabytes each, from a request whose image was read."""
    for message in request.messages:
        for part in () if isinstance(message.content, str) else message.content:
            if isinstance(part, ImagePart):
                part.image_url.url = ""


def _texts(parts: list[TextPart | ImagePart] | list[TextPart]) -> list[str]:
    return [part.text for part in parts if isinstance(part, TextPart)]


def asked_sampling(request: ChatRequest, settings: FrontSettings) -> Sampling | None:
    """How tokens are drawn; None for greedily.

    A request without a seed gets one of its own, so that what is asked of several replicas is
    answered alike.

    Raises:
        ApiError: 400 for a temperature where the server does not take it.
    """
    if not request.temperature or settings.temperature is Temperature.IGNORE:
        return None
    if settings.temperature is Temperature.REFUSE:
        raise ApiError(
            400,
            f"temperature: This server was started without sampling and answers greedily, as with "
            f"0, but {request.temperature:g} came; the operator can add --temperature ignore or "
            "--temperature honour.",
            param="temperature",
            code="unsupported_value",
        )
    seed = secrets.randbits(32) if request.seed is None else request.seed % 2**63
    top_p = 1.0 if request.top_p is None else request.top_p
    return Sampling(temperature=request.temperature, top_p=top_p, seed=seed)


def query_of(
    request: ChatRequest,
    question: Question,
    served: Served,
    *,
    id: str,
    image: Image.Image,
    seconds: float,
    settings: FrontSettings,
) -> Query:
    """The question for the backend.

    Args:
        request: What came.
        question: What it asks, see `asked_question`.
        served: By the backend.
        id: For the request.
        image: That the request is about, RGB.
        seconds: Within which it must be answered.
        settings: The server's own limits.

    Raises:
        ApiError: See `asked_scale` and `asked_sampling`.
    """
    url = question.url
    wished = request.max_completion_tokens or request.max_tokens
    limits = [one for one in (wished, settings.max_tokens) if one is not None]
    return Query(
        id=id,
        image=image,
        digest=hashlib.sha256(url.encode()).hexdigest() if url[:5].lower() == "data:" else "",
        question=question.text,
        scale=asked_scale(request, served, detail=question.detail),
        budget=request.budget,
        max_regret=request.max_regret,
        max_tokens=min(limits) if limits else None,
        stop=tuple(request.stop or ()),
        sampling=asked_sampling(request, settings),
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
        familiarity=routed.familiarity,
        note=image_note(routed.familiarity, outside=routed.outside),
    )


def headers_of(routed: RoutedAnswer) -> dict[str, str]:
    """What a whole answer's headers say: its option, and of its image what is known."""
    told = {"option": routed.option}
    if routed.familiarity is not None:
        told["familiarity"] = f"{routed.familiarity:.4f}"
    if note := image_note(routed.familiarity, outside=routed.outside):
        told["note"] = note
    return {f"x-m3router-{name}": value for name, value in told.items()}


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
