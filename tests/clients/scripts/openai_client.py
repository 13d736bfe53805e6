"""The official Python client."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from asking import Asked, joined, run, system, user


def create(asked: Asked, *messages: dict[str, Any], **fields: Any) -> Any:
    client = openai.OpenAI(base_url=asked["base_url"], api_key="none", max_retries=0)
    said = list(messages) or [user(asked)]
    return client.chat.completions.create(model=asked["model"], messages=said, **fields)


def answer(completion: Any) -> dict[str, Any]:
    return {
        "text": completion.choices[0].message.content,
        "finish_reason": completion.choices[0].finish_reason,
        "tokens": completion.usage.total_tokens,
    }


def streamed(asked: Asked) -> dict[str, Any]:
    stream = create(asked, stream=True, stream_options={"include_usage": True})
    return joined([one.choices[0].delta.content for one in stream if one.choices])


def asynchronous(asked: Asked) -> dict[str, Any]:
    async def main() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=asked["base_url"], api_key="none") as client:
            wanted = [
                client.chat.completions.create(model=asked["model"], messages=[user(asked)])
                for _ in range(4)
            ]
            return await asyncio.gather(*wanted)

    return answer(asyncio.run(main())[-1])


def history(asked: Asked) -> dict[str, Any]:
    said = [user(asked), {"role": "assistant", "content": "3"}]
    return answer(create(asked, *said, {"role": "user", "content": "And the other?"}))


def detail(asked: Asked) -> dict[str, Any]:
    message = user(asked)
    message["content"][1]["image_url"]["detail"] = "low"
    return answer(create(asked, message))


def models(asked: Asked) -> dict[str, Any]:
    client = openai.OpenAI(base_url=asked["base_url"], api_key="none")
    return {"text": " ".join(one.id for one in client.models.list())}


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

run(
    {
        "whole": lambda asked: answer(create(asked)),
        "streamed": streamed,
        "at once": asynchronous,
        "models": models,
        "system": lambda asked: answer(create(asked, system(), user(asked))),
        "greedy": lambda asked: answer(create(asked, temperature=0)),
        "temperature": lambda asked: answer(create(asked, temperature=0.7, seed=1)),
        "stop": lambda asked: answer(create(asked, stop=asked["stop"])),
        "detail": detail,
        "history": history,
        "tools": lambda asked: answer(create(asked, tools=[TOOL])),
    }
)
