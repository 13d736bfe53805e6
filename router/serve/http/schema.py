"""Requests and answers of `/v1/chat/completions` and `/v1/models`, as OpenAI's clients have them.

What this server cannot do (sampling, tools, several answers, conversations) is refused by the
schema itself, and never silently ignored. Clients write whole objects, though: a field of OpenAI's
schema that is null was not given, and neither was one that holds what a plain answer has anyway.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from m3router.router.policies.knobs import told

QUESTION = 20_000
"""Most characters of a question; a model's context is usually much shorter."""


def _offered(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """Say in words that something is not available here, whatever was asked of it."""
    try:
        return read(value)
    except ValidationError:
        raise PydanticCustomError(
            "not_offered", "This server does not offer it; leave it out or send null"
        ) from None


NotGiven = Annotated[
    None, WrapValidator(_offered), Field(description="Not offered: null or left out.")
]
Nothing = Annotated[
    Annotated[list[Any], Field(max_length=0)] | None,
    WrapValidator(_offered),
    Field(description="Not offered: empty, null or left out."),
]
Label = Annotated[str | None, Field(max_length=512, description="Taken and not used.")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CacheBreakpoint(_Strict):
    """Where a prompt may be cached: taken and not used."""

    mode: Literal["explicit"]
    ttl: str | None = None


class TextPart(_Strict):
    """A part of the question."""

    type: Literal["text"]
    text: Annotated[str, Field(max_length=QUESTION)]
    prompt_cache_breakpoint: CacheBreakpoint | None = None
    image_url: NotGiven = None
    input_audio: NotGiven = None
    file: NotGiven = None
    refusal: NotGiven = None


class ImageUrl(_Strict):
    """Where the image is: in the address itself, or on a host that the server allows."""

    url: Annotated[str, Field(description="A data URL such as data:image/png;base64,...")]
    detail: Annotated[
        Literal["auto", "low", "high", "original"] | None,
        Field(description="Taken and not used: the scale decides what is seen."),
    ] = None


class ImagePart(_Strict):
    """The image."""

    type: Literal["image_url"]
    image_url: ImageUrl
    prompt_cache_breakpoint: CacheBreakpoint | None = None
    text: NotGiven = None
    input_audio: NotGiven = None
    file: NotGiven = None
    refusal: NotGiven = None


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class UserMessage(_Strict):
    """One question about one image."""

    role: Literal["user"]
    content: Annotated[
        str | Annotated[list[Part], Field(min_length=1, max_length=16)],
        Field(description="Text and one image; text alone is refused."),
    ]
    name: str | None = None
    tool_calls: Nothing = None
    tool_call_id: NotGiven = None
    function_call: NotGiven = None
    audio: NotGiven = None
    refusal: NotGiven = None


class StreamOptions(_Strict):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[
        bool | None, Field(description="Taken and not used: a stream is not padded.")
    ] = None


class ResponseFormat(_Strict):
    """Plain text is all there is."""

    type: Literal["text"]
    json_schema: NotGiven = None


class CacheOptions(_Strict):
    """How prompts are cached: taken and not used."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: str | None = None


class ChatRequest(_Strict):
    """A question. Answers are greedy: the likeliest token each time."""

    model: Annotated[str, Field(max_length=200, examples=["m3-auto"])]
    messages: Annotated[
        list[UserMessage],
        Field(min_length=1, max_length=1, description="One message: conversations are not kept."),
    ]
    scale: Annotated[
        int | None, Field(ge=1, description="Answer at this scale instead of routing.")
    ] = None
    budget: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description=told("budget")),
    ] = None
    max_regret: Annotated[
        float | None,
        Field(gt=0, lt=1, description=told("max_regret")),
    ] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    store: Annotated[
        bool | None, Field(description="Whether the question may be kept, where the server asks.")
    ] = None
    temperature: Annotated[float | None, Field(ge=0, le=0, description="Greedy only.")] = None
    top_p: Annotated[
        float | None, Field(ge=0, le=1, description="Changes nothing in a greedy answer.")
    ] = None
    seed: Annotated[int | None, Field(description="Changes nothing in a greedy answer.")] = None
    n: Annotated[int | None, Field(ge=1, le=1)] = None
    presence_penalty: Annotated[float | None, Field(ge=0, le=0)] = None
    frequency_penalty: Annotated[float | None, Field(ge=0, le=0)] = None
    logprobs: Literal[False] | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=0)] = None
    logit_bias: Annotated[
        Annotated[dict[str, int], Field(max_length=0)] | None, WrapValidator(_offered)
    ] = None
    stop: Nothing = None
    response_format: ResponseFormat | None = None
    modalities: Annotated[
        list[Literal["text"]] | None, Field(min_length=1, max_length=1, description="Text only.")
    ] = None
    audio: NotGiven = None
    prediction: NotGiven = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    tools: Nothing = None
    tool_choice: Annotated[
        Literal["none", "auto"] | None, Field(description="There are no tools to choose from.")
    ] = None
    parallel_tool_calls: Annotated[
        bool | None, Field(description="There are no tools to call.")
    ] = None
    functions: Nothing = None
    function_call: Annotated[
        Literal["none", "auto"] | None, Field(description="There are no functions to call.")
    ] = None
    web_search_options: NotGiven = None
    moderation: NotGiven = None
    service_tier: Literal["auto", "default"] | None = None
    prompt_cache_key: Label = None
    prompt_cache_options: CacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    safety_identifier: Label = None
    user: Label = None
    metadata: Annotated[dict[str, str] | None, Field(max_length=16)] = None


# --- answers -----------------------------------------------------------------------------------


class Usage(BaseModel):
    """What the language model read and wrote, for everything that was tried."""

    prompt_tokens: Annotated[int, Field(description="Text and visual tokens that were read.")]
    completion_tokens: int
    total_tokens: int
    visual_tokens: Annotated[
        int, Field(description="Visual tokens among those read, for all that was tried.")
    ]


class Routing(BaseModel):
    """How the question was routed."""

    scale: Annotated[int, Field(description="Of the answer.")]
    sufficiency: Annotated[
        dict[str, float],
        Field(description="Scale to P(right); empty where the scale was given."),
    ]
    escalated: Annotated[bool, Field(description="Whether a coarser answer looked wrong.")]
    earlier: Annotated[list[str], Field(description="Those coarser answers.")]
    visual_tokens: Annotated[int, Field(description="Of the answer alone.")]
    milliseconds: Annotated[
        dict[str, float], Field(description="By stage, from letting in to the last token.")
    ]
    gflops: Annotated[dict[str, float], Field(description="Operations by part of the model.")]
    fallback: Annotated[
        str, Field(description="Why the reference scale was used, where no policy met the wish.")
    ]
    guarantee: Annotated[
        str,
        Field(description="What is certified about answers that are routed so; empty without."),
    ] = ""


class Message(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The only choice."""

    index: Literal[0] = 0
    message: Message
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    m3: Routing


class ModelCard(BaseModel):
    """A name that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["m3router"] = "m3router"
    scale: Annotated[int | None, Field(description="None for the routed one.")]
    guarantee: Annotated[
        str, Field(description="What is certified about the routed one; empty without.")
    ] = ""


class ModelList(BaseModel):
    """All names."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """An error as OpenAI's clients expect it."""

    error: ErrorBody


def chunk(
    id: str,
    created: int,
    model: str,
    *,
    delta: dict[str, Any] | None,
    reason: str | None = None,
    usage: Usage | None = None,
    m3: Routing | None = None,
    tells_usage: bool = False,
) -> dict[str, Any]:
    """One `chat.completion.chunk` of a stream.

    Args:
        id: Of the completion.
        created: Unix time.
        model: As asked.
        delta: Of the only choice; None for a chunk without choices.
        reason: Why the answer ends here.
        usage: Of the whole.
        m3: How the question was routed.
        tells_usage: Whether the stream ends with its usage; other chunks then say null, as
            OpenAI's do.
    """
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
    body: dict[str, Any] = {
        "id": id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [] if delta is None else [choice],
    }
    if tells_usage:
        body["usage"] = None if usage is None else usage.model_dump()
    if m3 is not None:
        body["m3"] = m3.model_dump()
    return body
