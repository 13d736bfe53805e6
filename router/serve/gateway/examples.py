"""Which requests ask what was labelled: a question about an image, and nothing besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3router.router.serve.gateway.bodies import MESSAGES

DECIDING = (
    *("tools", "functions", "response_format", "prefix", "guided_json", "audio"),
    *("instructions", "previous_response_id", "conversation", "prompt", "text"),
)
"""Fields of a body that decide on an answer as much as the question does, where they are given."""
PLAIN: Mapping[str, Any] = {
    "response_format": {"type": "text"},
    "text": {"format": {"type": "text"}},
}
"""What says the same as nothing."""


def as_labelled(body: Mapping[str, Any], field: str = MESSAGES) -> bool:
    """Whether an image and a question are all that an answer depends on, as in a log.

    Labelling asks every option about the image and the question alone. An answer that also depends
    on instructions, earlier turns or tools is one to something else: nothing is certified about it,
    and no label could be compared with it. How it is sampled does not count: the same was asked.

    >>> as_labelled({"messages": [{"role": "user", "content": []}], "tools": []})
    True
    >>> as_labelled({"messages": [{"role": "system", "content": "Be brief."}]})
    False

    Args:
        body: Of a request, valid as far as an upstream answers it.
        field: Where its conversation is, see :mod:`.bodies`.
    """
    items = body.get(field)
    if not isinstance(items, list) or len(items) != 1:
        return False
    if not isinstance(items[0], Mapping) or items[0].get("role") != "user":
        return False
    if body.get("n") not in (None, 1):
        return False
    return all(not body.get(name) or body[name] == PLAIN.get(name) for name in DECIDING)
