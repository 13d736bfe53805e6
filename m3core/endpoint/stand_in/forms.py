"""The form that a request wants an answer in: cut at a string, as JSON, as a tool's call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from m3router.m3core.endpoint.stand_in.answers import END, Token, pieces
from m3router.m3core.endpoint.stand_in.dialects import Json, RefusedError

MOST_CHOICES = 128


def stopped(tokens: Sequence[Token], stops: Any) -> list[Token]:
    """The tokens before the first of the stop strings, and the end.

    Args:
        tokens: Of an answer.
        stops: The request's ``stop``.

    Raises:
        RefusedError: It is no string and no list of strings.
    """
    wanted = [stops] if isinstance(stops, str) else stops or []
    if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
        raise RefusedError(400, "stop must be a string or a list of strings", parameter="stop")
    text = "".join(token.text for token in tokens if token.text != END)
    room = min((text.find(one) for one in wanted if one and one in text), default=len(text))
    kept: list[Token] = []
    for token in tokens:
        if token.text == END:
            kept.append(token)
        elif room > 0:
            kept.append(replace(token, text=token.text[:room]))
            room -= len(token.text)
    return kept


def choices(body: Mapping[str, Any]) -> int:
    """How many answers are wanted.

    Raises:
        RefusedError: ``n`` is no number from 1 to :data:`MOST_CHOICES`.
    """
    count = body.get("n")
    if count is None:
        return 1
    if type(count) is not int or not 1 <= count <= MOST_CHOICES:
        raise RefusedError(400, f"n must be 1 to {MOST_CHOICES}, got {count!r}", parameter="n")
    return count


def formed(tokens: Sequence[Token], schema: Mapping[str, Any] | None) -> list[Token]:
    """An answer as JSON: its text stands wherever the schema asks for a string."""
    if schema is None:
        return list(tokens)
    *said, end = tokens
    text = json.dumps(_filled(schema, "".join(token.text for token in said)))
    return [*(Token(text=one, logprob=said[0].logprob) for one in pieces(text)), end]


def schema_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of ``response_format``; None where text is wanted.

    Raises:
        RefusedError: There is none, or none that can be read.
    """
    wanted = body.get("response_format")
    if wanted is None or wanted == {"type": "text"}:
        return None
    if wanted == {"type": "json_object"}:
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    try:
        if wanted["type"] == "json_schema" and isinstance(wanted["json_schema"]["schema"], dict):
            return dict(wanted["json_schema"]["schema"])
    except (KeyError, TypeError):
        pass
    raise RefusedError(400, "response_format is not understood", parameter="response_format")


def called(body: Mapping[str, Any]) -> Json | None:
    """The function that must be called; None where text is wanted, or may be.

    Raises:
        RefusedError: ``tools`` or ``tool_choice`` cannot be read, or there is no such tool.
    """
    try:
        tools = {one["function"]["name"]: dict(one["function"]) for one in body.get("tools") or ()}
        choice = body.get("tool_choice")
        if choice in (None, "auto", "none"):
            return None
        name = next(iter(tools)) if choice == "required" else choice["function"]["name"]
        return tools[name]
    except (KeyError, TypeError, ValueError, StopIteration):
        raise RefusedError(400, "no such tool, or none at all", parameter="tools") from None


def _filled(schema: Any, text: str) -> Any:
    """A value of a schema."""
    schema = schema if isinstance(schema, dict) else {}
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return {name: _filled(one, text) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [_filled(schema.get("items"), text)]
    return {"integer": 0, "number": 0.0, "boolean": True, "null": None}.get(kind, text)
