"""LiteLLM as a library."""

from __future__ import annotations

from typing import Any

import litellm
from asking import (
    CHOSEN,
    FORM,
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

litellm.suppress_debug_info = True


def create(asked: Asked, *messages: dict[str, Any], **fields: Any) -> Any:
    return litellm.completion(
        model=f"openai/{asked['model']}",
        api_base=asked["base_url"],
        api_key="none",
        messages=list(messages) or [user(asked)],
        num_retries=0,
        max_retries=0,
        **fields,
    )


def answer(completion: Any) -> dict[str, Any]:
    return {
        "text": completion.choices[0].message.content,
        "finish_reason": completion.choices[0].finish_reason,
        "tokens": completion.usage.total_tokens,
    }


def several(asked: Asked) -> dict[str, Any]:
    made = create(asked, n=2, temperature=0.7)
    return {"text": " ".join(f"{one.index}={one.message.content}" for one in made.choices)}


def logprobs(asked: Asked) -> dict[str, Any]:
    made = create(asked, logprobs=True, top_logprobs=2)
    return {"text": "".join(one.token for one in made.choices[0].logprobs.content)}


def response(asked: Asked) -> dict[str, Any]:
    parts = [
        {"type": "input_text", "text": asked["question"]},
        {"type": "input_image", "image_url": asked["image"]},
    ]
    made = litellm.responses(
        model=f"openai/{asked['model']}",
        api_base=asked["base_url"],
        api_key="none",
        input=[{"role": "user", "content": parts}],
        max_retries=0,
    )
    return {"text": made.output[0].content[0].text}


run(
    {
        "whole": lambda asked: answer(create(asked)),
        "streamed": lambda asked: joined(
            [one.choices[0].delta.content for one in create(asked, stream=True) if one.choices]
        ),
        "system": lambda asked: answer(create(asked, system(), user(asked))),
        "greedy": lambda asked: answer(create(asked, temperature=0)),
        "temperature": lambda asked: answer(create(asked, temperature=0.7)),
        "stop": lambda asked: answer(create(asked, stop=[asked["stop"]])),
        "tools": lambda asked: answer(create(asked, tools=[TOOL])),
        "tool": lambda asked: called(create(asked, tools=[TOOL], tool_choice=CHOSEN).choices[0]),
        "tool result": lambda asked: answer(create(asked, *after_a_tool(asked), tools=[TOOL])),
        "schema": lambda asked: answer(create(asked, response_format=FORM)),
        "n": several,
        "logprobs": logprobs,
        "images": lambda asked: answer(create(asked, two_images(asked))),
        "words": lambda asked: answer(create(asked, words())),
        "responses": response,
        "history": lambda asked: answer(
            create(
                asked,
                user(asked),
                {"role": "assistant", "content": "3"},
                {"role": "user", "content": "And the other?"},
            )
        ),
    }
)
