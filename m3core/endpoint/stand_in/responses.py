"""``/v1/responses`` in the terms of a chat, and an answer in the terms of a response."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from m3router.m3core.endpoint.stand_in.dialects import Json, RefusedError

_SAME = ("model", "stream", "temperature", "top_p", "mm_processor_kwargs", "chat_template_kwargs")


def as_chat(body: Mapping[str, Any]) -> Json:
    """The chat request that asks the same.

    Raises:
        RefusedError: The input cannot be read.
    """
    items = body.get("input")
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
        raise RefusedError(400, "input must be a string or a list", parameter="input")
    messages = [{"role": one.get("role"), "content": _content(one)} for one in items]
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    chat: Json = {name: body[name] for name in _SAME if body.get(name) is not None}
    chat["messages"] = messages
    if body.get("max_output_tokens") is not None:
        chat["max_tokens"] = body["max_output_tokens"]
    text = body.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    if isinstance(wanted, dict):
        schema = wanted.get("type") == "json_schema"
        chat["response_format"] = (
            {"type": "json_schema", "json_schema": wanted} if schema else wanted
        )
    return chat


def _content(item: Mapping[str, Any]) -> Any:
    content = item.get("content")
    if not isinstance(content, list):
        return content
    return [_part(part) for part in content]


def _part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image":
        image = {"url": part.get("image_url"), "detail": part.get("detail") or "auto"}
        return {"type": "image_url", "image_url": image}
    return part


def response(chat: Mapping[str, Any], body: Mapping[str, Any]) -> Json:
    """A whole chat's answer as a response."""
    number = str(chat["id"]).removeprefix("chatcmpl-")
    (choice, *_) = chat["choices"]
    usage = chat["usage"]
    part = {
        "type": "output_text",
        "text": choice["message"]["content"],
        "annotations": [],
        "logprobs": [],
    }
    item = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": chat["created"],
        "status": "completed" if choice["finish_reason"] == "stop" else "incomplete",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "model": chat["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": body.get("temperature"),
        "tool_choice": "auto",
        "tools": [],
        "top_p": body.get("top_p"),
        "usage": usage
        and {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


def events(whole: Mapping[str, Any], texts: list[str]) -> Iterator[str]:
    """A response as a stream of events.

    Args:
        whole: The response.
        texts: The answer's tokens.
    """
    (item,) = whole["output"]
    (part,) = item["content"]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    here = {"output_index": 0, "item_id": item["id"], "content_index": 0}
    started = {**item, "status": "in_progress", "content": []}
    told: list[tuple[str, Json]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": started}),
        ("response.content_part.added", {**here, "part": {**part, "text": ""}}),
        *(("response.output_text.delta", {**here, "delta": one, "logprobs": []}) for one in texts),
        ("response.output_text.done", {**here, "text": part["text"], "logprobs": []}),
        ("response.content_part.done", {**here, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        ("response.completed", {"response": whole}),
    ]
    for number, (kind, more) in enumerate(told):
        payload = {"type": kind, "sequence_number": number, **more}
        yield f"event: {kind}\ndata: {json.dumps(payload)}\n\n"
