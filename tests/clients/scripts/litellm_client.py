"""LiteLLM as a library."""

from __future__ import annotations

from typing import Any

import litellm
from asking import Asked, joined, run, system, user

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


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

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
