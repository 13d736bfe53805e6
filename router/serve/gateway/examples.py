"""Which chats can be kept as examples: a question about an image, and nothing else that decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DECIDING = ("tools", "functions", "response_format", "prefix", "guided_json", "audio")
"""Fields of a body that decide on an answer as much as the question does, where they are given."""
PLAIN: Mapping[str, Any] = {"response_format": {"type": "text"}}
"""What says the same as nothing."""


def can_be_example(body: Mapping[str, Any]) -> bool:
    """Whether an image and a question are all that a chat's answer depends on.

    Labelling asks every option about the recorded image and question alone. An answer that also
    depends on instructions, earlier turns or tools would be compared with answers to something
    else. How it is sampled does not count: the same question was asked.

    >>> can_be_example({"messages": [{"role": "user", "content": []}], "tools": []})
    True
    >>> can_be_example({"messages": [{"role": "system", "content": "Be brief."}]})
    False

    Args:
        body: Of a chat, valid as far as an upstream answered it.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or len(messages) != 1:
        return False
    if not isinstance(messages[0], Mapping) or messages[0].get("role") != "user":
        return False
    if body.get("n") not in (None, 1):
        return False
    return all(not body.get(name) or body[name] == PLAIN.get(name) for name in DECIDING)
