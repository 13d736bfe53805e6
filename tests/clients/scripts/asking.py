"""What every client's script shares: read what to ask, do some cases, say what came of each.

A script runs in a process of its own, in the environment of its client:

    python SCRIPT CASE CASE ... < ASKED

ASKED is a JSON object of `base_url`, `model`, `image` (a data URL, which would be too long for a
command line), `question` and `stop`. The script writes one JSON object: `cases`, the names of all
that there are, and `found`, case to the answer's `text`, or to the `error` as the client told it.
An address and a model are all that tie it to a server, so that the same scripts ask a gateway.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

Asked = dict[str, Any]
Case = Callable[[Asked], dict[str, Any]]

SYSTEM = "Answer in one word."


def run(cases: Mapping[str, Case]) -> None:
    """Do the cases that the command line names."""
    asked, names = json.load(sys.stdin), sys.argv[1:]
    found = {}
    for name in names:
        try:
            found[name] = cases[name](asked)
        except Exception as error:  # whatever a client raises is the finding
            found[name] = {"error": told(error)}
    sys.stdout.write(json.dumps({"cases": list(cases), "found": found}) + "\n")


def told(error: Exception) -> dict[str, Any]:
    """An error as the client's user sees it: its class, its text, and its status if any."""
    status = getattr(error, "status_code", None)
    return {"kind": type(error).__name__, "text": str(error)[:2_000], "status": status}


def parts(asked: Asked) -> list[dict[str, Any]]:
    """The question and its image as OpenAI's schema has them."""
    return [
        {"type": "text", "text": asked["question"]},
        {"type": "image_url", "image_url": {"url": asked["image"]}},
    ]


def user(asked: Asked) -> dict[str, Any]:
    """The user's message."""
    return {"role": "user", "content": parts(asked)}


def two_images(asked: Asked) -> dict[str, Any]:
    """A user's message with two images."""
    return {"role": "user", "content": [*parts(asked), parts(asked)[1]]}


def words() -> dict[str, Any]:
    """A user's message without an image."""
    return {"role": "user", "content": "What is two and two?"}


def system() -> dict[str, Any]:
    """A system message."""
    return {"role": "system", "content": SYSTEM}


SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string"}},
    "required": ["word"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Look somewhere.", "parameters": SCHEMA},
}
FORM = {"type": "json_schema", "json_schema": {"name": "seen", "schema": SCHEMA, "strict": True}}
CHOSEN = {"type": "function", "function": {"name": "look"}}


def after_a_tool(asked: Asked) -> list[dict[str, Any]]:
    """A question, a tool's call and its result."""
    call = {"name": "look", "arguments": '{"word": "left"}'}
    calls = [{"id": "call_9", "type": "function", "function": call}]
    return [
        user(asked),
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_9", "content": "Nothing is there."},
    ]


def called(choice: Any) -> dict[str, Any]:
    """A choice that calls a tool."""
    (call,) = choice.message.tool_calls
    return {"text": f"{call.function.name} {call.function.arguments}"}


def joined(texts: list[str | None]) -> dict[str, Any]:
    """The pieces of a stream, and how many had text."""
    said = [text for text in texts if text]
    return {"text": "".join(said), "pieces": len(said)}
