"""LangChain's ChatOpenAI."""

from __future__ import annotations

from typing import Any

from asking import SYSTEM, Asked, joined, parts, run
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


def model(asked: Asked, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=asked["base_url"], api_key="none", model=asked["model"], max_retries=0, **settings
    )


def question(asked: Asked) -> HumanMessage:
    return HumanMessage(content=parts(asked))


def own_block(asked: Asked) -> HumanMessage:
    """An image as LangChain's own standard block, which it translates."""
    kind, _, data = asked["image"].removeprefix("data:").partition(";base64,")
    block = {"type": "image", "base64": data, "mime_type": kind}
    return HumanMessage(content=[{"type": "text", "text": asked["question"]}, block])


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return where


def answer(message: Any) -> dict[str, Any]:
    tokens = (message.usage_metadata or {}).get("total_tokens")
    return {"text": message.content, "tokens": tokens}


run(
    {
        "whole": lambda asked: answer(model(asked).invoke([question(asked)])),
        "streamed": lambda asked: joined(
            [one.content for one in model(asked).stream([question(asked)])]
        ),
        "own block": lambda asked: answer(model(asked).invoke([own_block(asked)])),
        "at once": lambda asked: answer(model(asked).batch([[question(asked)]] * 3)[2]),
        "system": lambda asked: answer(
            model(asked).invoke([SystemMessage(SYSTEM), question(asked)])
        ),
        "greedy": lambda asked: answer(model(asked, temperature=0).invoke([question(asked)])),
        "temperature": lambda asked: answer(
            model(asked, temperature=0.7).invoke([question(asked)])
        ),
        "stop": lambda asked: answer(model(asked).invoke([question(asked)], stop=[asked["stop"]])),
        "history": lambda asked: answer(
            model(asked).invoke([question(asked), AIMessage("3"), HumanMessage("And the other?")])
        ),
        "tools": lambda asked: answer(model(asked).bind_tools([look]).invoke([question(asked)])),
    }
)
