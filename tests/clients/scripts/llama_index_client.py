"""LlamaIndex's OpenAILike, whose default is a temperature of 0.1.

Its class OpenAI refuses models that are not OpenAI's before it asks anybody.
"""

from __future__ import annotations

import base64
from typing import Any

from asking import SYSTEM, Asked, joined, run
from llama_index.core.llms import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def like(asked: Asked, **settings: Any) -> OpenAILike:
    return OpenAILike(
        api_base=asked["base_url"],
        api_key="none",
        model=asked["model"],
        is_chat_model=True,
        max_retries=0,
        **settings,
    )


def question(asked: Asked, images: int = 1) -> ChatMessage:
    data = base64.b64decode(asked["image"].partition(",")[2])
    blocks = [TextBlock(text=asked["question"]), *[ImageBlock(image=data)] * images]
    return ChatMessage(role=MessageRole.USER, blocks=blocks)


def system() -> ChatMessage:
    return ChatMessage(role=MessageRole.SYSTEM, content=SYSTEM)


def look(word: str) -> str:
    """Look somewhere."""
    return word


def called(asked: Asked, **how: Any) -> Any:
    llm = like(asked, temperature=0.0, is_function_calling_model=True)
    tool = FunctionTool.from_defaults(look)
    return llm.chat_with_tools([tool], chat_history=[question(asked)], **how)


def call(asked: Asked) -> dict[str, Any]:
    llm = like(asked, is_function_calling_model=True)
    (found,) = llm.get_tool_calls_from_response(called(asked, tool_required=True))
    return {"text": f"{found.tool_name} {found.tool_kwargs}"}


def answer(response: Any) -> dict[str, Any]:
    return {"text": response.message.content}


run(
    {
        "whole": lambda asked: answer(like(asked).chat([question(asked)])),
        "streamed": lambda asked: joined(
            [one.delta for one in like(asked).stream_chat([question(asked)])]
        ),
        "greedy": lambda asked: answer(like(asked, temperature=0.0).chat([question(asked)])),
        "system": lambda asked: answer(
            like(asked, temperature=0.0).chat([system(), question(asked)])
        ),
        "temperature": lambda asked: answer(like(asked, temperature=0.7).chat([question(asked)])),
        "stop": lambda asked: answer(
            like(asked, temperature=0.0).chat([question(asked)], stop=[asked["stop"]])
        ),
        "tools": lambda asked: answer(called(asked)),
        "tool": call,
        "images": lambda asked: answer(like(asked).chat([question(asked, images=2)])),
        "words": lambda asked: {"text": like(asked).complete("What is two and two?").text},
        "history": lambda asked: answer(
            like(asked, temperature=0.0).chat(
                [
                    question(asked),
                    ChatMessage(role=MessageRole.ASSISTANT, content="3"),
                    ChatMessage(role=MessageRole.USER, content="And the other?"),
                ]
            )
        ),
    }
)
