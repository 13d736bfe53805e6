"""LangChain's ChatOpenAI."""

from __future__ import annotations

from typing import Any

from asking import SCHEMA, SYSTEM, Asked, joined, parts, run, two_images, words
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
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


def called(message: Any) -> dict[str, Any]:
    (call,) = message.tool_calls
    return {"text": f"{call['name']} {call['args']}"}


def after_a_tool(asked: Asked) -> list[Any]:
    call = {"name": "look", "args": {"where": "left"}, "id": "call_9"}
    result = ToolMessage("Nothing is there.", tool_call_id="call_9")
    return [question(asked), AIMessage("", tool_calls=[call]), result]


def structured(asked: Asked, **how: Any) -> dict[str, Any]:
    asks = model(asked).with_structured_output({"title": "seen", **SCHEMA}, **how)
    return {"text": str(asks.invoke([question(asked)]))}


def logprobs(asked: Asked) -> dict[str, Any]:
    made = model(asked, logprobs=True).invoke([question(asked)])
    told = made.response_metadata["logprobs"]["content"]
    return {"text": "".join(one["token"] for one in told)}


def several(asked: Asked) -> dict[str, Any]:
    (found,) = model(asked, n=2, temperature=0.7).generate([[question(asked)]]).generations
    return {"text": " ".join(one.text for one in found)}


def response(asked: Asked) -> dict[str, Any]:
    made = model(asked, use_responses_api=True).invoke([question(asked)])
    return {"text": "".join(one["text"] for one in made.content)}


def response_in_pieces(asked: Asked) -> dict[str, Any]:
    pieces = model(asked, use_responses_api=True).stream([question(asked)])
    blocks = [block for one in pieces for block in one.content]
    return joined([block.get("text") for block in blocks])


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
        "tool": lambda asked: called(
            model(asked).bind_tools([look], tool_choice="look").invoke([question(asked)])
        ),
        "structured by a tool": lambda asked: structured(asked, method="function_calling"),
        "tool result": lambda asked: answer(
            model(asked).bind_tools([look]).invoke(after_a_tool(asked))
        ),
        "schema": structured,
        "n": several,
        "logprobs": logprobs,
        "images": lambda asked: answer(
            model(asked).invoke([HumanMessage(content=two_images(asked)["content"])])
        ),
        "words": lambda asked: answer(model(asked).invoke(words()["content"])),
        "responses": response,
        "responses streamed": response_in_pieces,
    }
)
