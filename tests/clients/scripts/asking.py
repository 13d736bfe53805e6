"""What every client's script shares: read what to ask, do some cases, say what came of each.

A script runs in a process of its own, in the environment of its client:

    python SCRIPT ASKED CASE CASE ...

ASKED is a JSON object of `base_url`, `model`, `image` (a data URL), `question` and `stop`. The
script writes one JSON object: case to the answer's `text`, or to the `error` as the client told it.
An address and a model are all that tie it to a server, so that the same scripts ask a gateway.
Without cases it writes the names of those that there are.
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
    asked, names = json.loads(sys.argv[1]), sys.argv[2:]
    if not names:
        sys.stdout.write(json.dumps(list(cases)) + "\n")
        return
    found = {}
    for name in names:
        try:
            found[name] = cases[name](asked)
        except Exception as error:  # whatever a client raises is the finding
            found[name] = {"error": told(error)}
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
