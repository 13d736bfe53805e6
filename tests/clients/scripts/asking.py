"""What every client's script shares: read what to ask, do one case, say what came of it.

A script runs in a process of its own, in the environment of its client:

    python SCRIPT CASE '{"base_url": ..., "model": ..., "image": "data:...", "question": ...}'

It writes one JSON object: the answer's `text`, or the `error` as the client told it. The address is
all that ties it to a server, so that the same scripts ask a gateway.
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
    """Do the case that the command line names."""
    name, asked = sys.argv[1], json.loads(sys.argv[2])
    try:
        found = cases[name](asked)
    except Exception as error:  # whatever a client raises is the finding
        found = {"error": told(error)}
    sys.stdout.write(json.dumps(found) + "\n")


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


def system() -> dict[str, Any]:
    """A system message."""
    return {"role": "system", "content": SYSTEM}


def joined(texts: list[str | None]) -> dict[str, Any]:
    """The pieces of a stream, and how many had text."""
    said = [text for text in texts if text]
    return {"text": "".join(said), "pieces": len(said)}
