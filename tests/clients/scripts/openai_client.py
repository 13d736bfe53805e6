"""The official Python client."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from asking import (
    CHOSEN,
    FORM,
    SCHEMA,
    TOOL,
    Asked,
    after_a_tool,
    called,
    joined,
    run,
    system,
    two_images,
    user,
    words,
)


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


def logprobs(asked: Asked) -> dict[str, Any]:
    made = create(asked, logprobs=True, top_logprobs=2)
    return {"text": "".join(one.token for one in made.choices[0].logprobs.content)}


def several(asked: Asked) -> dict[str, Any]:
    made = create(asked, n=2, temperature=0.7)
    return {"text": " ".join(f"{one.index}={one.message.content}" for one in made.choices)}


def called_in_pieces(asked: Asked) -> dict[str, Any]:
    stream = create(asked, stream=True, tools=[TOOL], tool_choice="required")
    calls = [call for one in stream for call in one.choices[0].delta.tool_calls or ()]
    return joined([f"{call.function.name or ''}{call.function.arguments}" for call in calls])


def respond(asked: Asked, **fields: Any) -> Any:
    client = openai.OpenAI(base_url=asked["base_url"], api_key="none", max_retries=0)
    parts = [
        {"type": "input_text", "text": asked["question"]},
        {"type": "input_image", "image_url": asked["image"], "detail": "auto"},
    ]
    said = [{"role": "user", "content": parts}]
    return client.responses.create(model=asked["model"], input=said, **fields)


def response(asked: Asked) -> dict[str, Any]:
    wanted = {"type": "json_schema", "name": "seen", "schema": SCHEMA, "strict": True}
    made = respond(asked, instructions="Be short.", text={"format": wanted})
    return {"text": made.output_text, "tokens": made.usage.total_tokens}


def response_in_pieces(asked: Asked) -> dict[str, Any]:
    events = respond(asked, stream=True)
    return joined([one.delta for one in events if one.type == "response.output_text.delta"])


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
        "tool": lambda asked: called(
            create(asked, tools=[TOOL], tool_choice=CHOSEN, parallel_tool_calls=False).choices[0]
        ),
        "tool streamed": called_in_pieces,
        "tool result": lambda asked: answer(create(asked, *after_a_tool(asked), tools=[TOOL])),
        "schema": lambda asked: answer(create(asked, response_format=FORM)),
        "n": several,
        "logprobs": logprobs,
        "images": lambda asked: answer(create(asked, two_images(asked))),
        "words": lambda asked: answer(create(asked, words())),
        "responses": response,
        "responses streamed": response_in_pieces,
    }
)
