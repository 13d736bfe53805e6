"""Answers of `/v1/chat/completions` and `/v1/models`, as OpenAI's clients read them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field


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
