"""Requests and answers of `/v1/chat/completions` and `/v1/models`, as OpenAI's clients have them.

What this server cannot do (tools, several answers, conversations) is refused by the schema itself,
and never silently ignored. A field that holds what a plain answer has anyway is taken. Nulls are
dropped, and errors become sentences, in :mod:`m3router.router.serve.http.reading`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from m3router.data.registry import nearest
from m3router.router.policies.knobs import told

QUESTION = 20_000
"""Most characters of a question; a model's context is usually much shorter."""
MOST_MESSAGES = 16
MOST_PARTS = 16
MOST_STOPS = 4
BRANCHES = frozenset({"<text>", "<image>", "<user>", "<system>", "<string>", "<parts>"})
"""What pydantic puts into the place of an error for the branch of a union that was taken."""

_EARLIER = ("assistant", "tool", "function")
_NOT_HERE = ("input_audio", "file", "refusal", "video_url", "audio_url", "input_video")


def problem(kind: str, sentence: str, *, at: str | int = "") -> PydanticCustomError:
    """An error with a sentence of its own.

    Args:
        kind: Its type, see :data:`m3router.router.serve.http.reading.CODES`.
        sentence: What the client is told.
        at: The field or place within what is being read; "" for itself.
    """
    # Half of a surrogate pair cannot be sent back, nor be kept by pydantic.
    told_of = sentence.encode("ascii", "backslashreplace").decode()
    place = at.encode("ascii", "backslashreplace").decode() if isinstance(at, str) else at
    return PydanticCustomError(
        "problem", "{sentence}", {"kind": kind, "sentence": told_of, "at": place}
    )


def shown(value: Any) -> str:
    """A value in words where it is short and cannot be an image; else only its kind."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) and abs(value) < 1e15:
        return str(value)
    if isinstance(value, str) and len(value) <= 40 and value.isascii() and value.isprintable():
        return repr(value)
    return _KINDS.get(type(value), "something else")


_KINDS = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def kind_of(value: Any) -> str:
    """The kind of a JSON value, such as ``a list``."""
    return _KINDS.get(type(value), "something else")


def _not_offered() -> PydanticCustomError:
    return problem("not_offered", "This server does not offer it; leave it out or send null.")


def _offered(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """Say in words that something is not available here, whatever was asked of it."""
    try:
        return read(value)
    except ValidationError:
        raise _not_offered() from None


def _no_bias(value: Any) -> Any:
    """A bias of nothing changes nothing."""
    if isinstance(value, dict) and all(bias == 0 for bias in value.values()):
        return {}
    return value


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
    # A null is dropped before it is read, whatever its name: it says nothing.
    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"additionalProperties": {"type": "null"}}
    )

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        """Refuse the first unknown field; pydantic would list every one of them."""
        if isinstance(given, dict):
            for name in given:
                if name not in cls.model_fields:
                    close = nearest(name, cls.model_fields)
                    hint = f"; did you mean {close!r}?" if close else "."
                    raise problem("unknown_field", f"There is no such field here{hint}", at=name)
        return given


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


def _has_scheme(url: str) -> str:
    """An address that is none at all is most often base64 whose beginning was forgotten."""
    if not url[:8].lower().startswith(("data:", "http://", "https://")):
        raise problem(
            "invalid_image_url",
            "It must begin with data:image/png;base64, (or another image type) and go on with the "
            "image in base64; an address of an image elsewhere begins with https://.",
        )
    return url


class ImageUrl(_Strict):
    """Where the image is: in the address itself, or on a host that the server allows."""

    url: Annotated[
        str,
        AfterValidator(_has_scheme),
        Field(description="A data URL such as data:image/png;base64,..."),
    ]
    detail: Annotated[
        Literal["auto", "low", "high", "original"] | None,
        Field(
            description="low answers at the coarsest scale, high and original at the finest; auto "
            "is routed. A model, scale, budget or regret that is asked for goes before it."
        ),
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


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise problem("dict_type", f"It must be an object, not {kind_of(value)}.")
    return value


def _part(value: Any) -> Any:
    """Say what is wrong with a part's type, whatever else it holds."""
    kind = _object(value).get("type")
    if kind is None:
        raise problem(
            "missing", "It is missing; parts are of the type text or image_url.", at="type"
        )
    if kind not in ("text", "image_url"):
        hint = "parts are of the type text or image_url"
        if kind in _NOT_HERE:
            told_of = f"Parts of the type {kind} are not offered here; {hint}."
        else:
            told_of = f"There is no such type ({shown(kind)}); {hint}."
        raise problem("unknown_part", told_of, at="type")
    return value


def _text_part(value: Any) -> Any:
    kind = _object(_part(value))["type"]
    if kind != "text":
        raise problem("unknown_part", "A system message holds text only.", at="type")
    return value


Part = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[ImagePart, Tag("<image>")],
    Discriminator(lambda value: "<text>" if value["type"] == "text" else "<image>"),
    BeforeValidator(_part),
]


def _content(value: Any) -> Any:
    """Say what is wrong with a content before its parts are read."""
    if not isinstance(value, str | list):
        raise problem(
            "string_type", f"It must be a string or a list of parts, not {kind_of(value)}."
        )
    if isinstance(value, list):
        if not value:
            raise problem("too_short", "It must not be empty.")
        if len(value) > MOST_PARTS:
            raise problem("too_long", f"It has more than {MOST_PARTS} parts.")
    elif len(value) > QUESTION:
        raise problem("string_too_long", f"It is longer than {QUESTION} characters.")
    return value


def _form(value: Any) -> str:
    return "<string>" if isinstance(value, str) else "<parts>"


_Text = Annotated[str, Field(max_length=QUESTION), Tag("<string>")]
_PARTS = Field(min_length=1, max_length=MOST_PARTS)


class UserMessage(_Strict):
    """One question about one image."""

    role: Literal["user"]
    content: Annotated[
        _Text | Annotated[list[Part], _PARTS, Tag("<parts>")],
        Discriminator(_form),
        BeforeValidator(_content),
        Field(description="Text and one image; text alone is refused."),
    ]
    name: str | None = None
    tool_calls: Nothing = None
    tool_call_id: NotGiven = None
    function_call: NotGiven = None
    audio: NotGiven = None
    refusal: NotGiven = None


class SystemMessage(_Strict):
    """What the operator of the client says of every answer."""

    role: Literal["system", "developer"]
    content: Annotated[
        _Text
        | Annotated[list[Annotated[TextPart, BeforeValidator(_text_part)]], _PARTS, Tag("<parts>")],
        Discriminator(_form),
        BeforeValidator(_content),
        Field(description="Stands before the question, where the server was started so."),
    ]
    name: str | None = None


def _one_question(value: Any) -> Any:
    """Name a conversation before any of its messages is read.

    Messages of the user alone are one question: some clients send the image in one of its own.
    """
    if not isinstance(value, list):
        return value  # which pydantic says
    for place, message in enumerate(value):
        if not isinstance(message, dict):
            raise problem(
                "dict_type", f"A message must be an object, not {kind_of(message)}.", at=place
            )
        role = message.get("role")
        if role in _EARLIER:
            raise problem(
                "history",
                f"Conversations are not offered here, and this is a message of the role {role}: "
                "send one question and its image.",
                at=place,
            )
    if len(value) > MOST_MESSAGES:
        raise problem("too_long", f"There are more than {MOST_MESSAGES} messages.")
    return value


def _message(value: Any) -> Any:
    """Say what is wrong with a message's role."""
    role = _object(value).get("role")
    known = ("user", "system", "developer")
    if role is None:
        raise problem("missing", "It is missing; a question has the role user.", at="role")
    if role not in known:
        close = nearest(role, known) if isinstance(role, str) else None
        hint = f"; did you mean {close!r}?" if close else "."
        raise problem("literal_error", f"There is no role {shown(role)} here{hint}", at="role")
    return value


def _asked(value: list[UserMessage | SystemMessage]) -> list[UserMessage | SystemMessage]:
    if not any(isinstance(one, UserMessage) for one in value):
        raise problem("missing", "There is no message of the role user, which asks the question.")
    return value


AnyMessage = Annotated[
    Annotated[UserMessage, Tag("<user>")] | Annotated[SystemMessage, Tag("<system>")],
    Discriminator(lambda value: "<user>" if value["role"] == "user" else "<system>"),
    BeforeValidator(_message),
]


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


def _text_alone(value: Any) -> Any:
    if isinstance(value, list) and value != ["text"]:
        raise problem("not_offered", 'Only text is written here: send ["text"] or leave it out.')
    return value


def _stops(value: Any) -> Any:
    """One string is a list of one, and an empty string stops nothing."""
    value = [value] if isinstance(value, str) else value
    return [one for one in value if one != ""] if isinstance(value, list) else value


class ChatRequest(_Strict):
    """A question. Answers are greedy, the likeliest token each time, unless the server samples."""

    model: Annotated[str, Field(max_length=200, examples=["m3-auto"])]
    messages: Annotated[
        list[AnyMessage],
        BeforeValidator(_one_question),
        AfterValidator(_asked),
        Field(
            min_length=1,
            max_length=MOST_MESSAGES,
            description="Of the user, about one image: conversations are not kept. System messages "
            "are taken where the server was started so.",
        ),
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
    temperature: Annotated[
        float | None,
        Field(ge=0, le=2, description="Above 0 only where the server was started so."),
    ] = None
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
        Annotated[dict[str, int], Field(max_length=0)] | None,
        WrapValidator(_offered),
        BeforeValidator(_no_bias),
    ] = None
    stop: Annotated[
        list[Annotated[str, Field(max_length=256)]] | None,
        Field(max_length=MOST_STOPS, description="The answer ends before the first of them."),
        BeforeValidator(_stops),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "maxLength": 256},
                    {
                        "type": "array",
                        "items": {"type": "string", "maxLength": 256},
                        "maxItems": MOST_STOPS,
                    },
                    {"type": "null"},
                ]
            }
        ),
    ] = None
    response_format: ResponseFormat | None = None
    modalities: Annotated[
        list[Literal["text"]] | None,
        Field(min_length=1, max_length=1, description="Text only."),
        BeforeValidator(_text_alone),
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
    service_tier: Annotated[
        Literal["auto", "default", "flex", "scale", "priority", "fast"] | None,
        Field(description="Taken and not used: there is one tier."),
    ] = None
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
    familiarity: Annotated[
        float | None,
        Field(
            description="A p-value: the share of the training images that look at least as unusual "
            "as this one; null where that is not known."
        ),
    ] = None
    note: Annotated[
        str,
        Field(
            description="That the image is unlike those of the training, or outside what the model "
            "can read, one sentence; empty where it is not known to be."
        ),
    ] = ""
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
