"""Optional fields of OpenAI's schema: null is not given, plain values are taken, others refused."""

from __future__ import annotations

import json
import typing

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import ValidationError

from m3router.router.serve.http.schema import ChatRequest

TEXT = {"type": "text", "text": "Is it?"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
ASKED = {"model": "m3-auto", "messages": [{"role": "user", "content": [TEXT, IMAGE]}]}
OPTIONAL = sorted(
    {*typing.get_type_hints(CompletionCreateParamsNonStreaming), "stream"} - {"model", "messages"}
)


def read(**fields) -> ChatRequest:
    return ChatRequest.model_validate_json(json.dumps(ASKED | fields))


@pytest.mark.parametrize("name", OPTIONAL)
def test_null_is_not_given_in_every_field_that_the_official_client_knows(name):
    assert read(**{name: None}) == read()


def test_whole_objects_full_of_nulls_are_read():
    """Clients that have one class for all roles and parts write all its fields."""
    nothing = dict.fromkeys(("refusal", "input_audio", "file", "prompt_cache_breakpoint"))
    message = {
        "role": "user",
        "content": [
            {**TEXT, **nothing, "image_url": None},
            {
                "type": "image_url",
                "image_url": {**IMAGE["image_url"], "detail": None},
                **nothing,
                "text": None,
            },
        ],
        **dict.fromkeys(
            ("name", "tool_calls", "tool_call_id", "function_call", "audio", "refusal")
        ),
    }
    got = read(
        messages=[message],
        stream_options={"include_usage": None, "include_obfuscation": None},
        response_format={"type": "text", "json_schema": None},
        prompt_cache_options={"mode": None, "ttl": None},
    )
    assert got.messages == read().messages


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frequency_penalty", 0),
        ("function_call", "none"),
        ("functions", []),
        ("logit_bias", {}),
        ("logprobs", False),
        ("metadata", {}),
        ("modalities", ["text"]),
        ("n", 1),
        ("parallel_tool_calls", True),
        ("presence_penalty", 0.0),
        ("prompt_cache_key", "k"),
        ("prompt_cache_options", {"mode": "implicit", "ttl": "30m"}),
        ("prompt_cache_retention", "24h"),
        ("reasoning_effort", "none"),
        ("response_format", {"type": "text"}),
        ("safety_identifier", "u1"),
        ("service_tier", "auto"),
        ("service_tier", "default"),
        ("stop", []),
        ("store", False),
        ("stream_options", {"include_usage": False, "include_obfuscation": False}),
        ("tool_choice", "auto"),
        ("tool_choice", "none"),
        ("tools", []),
        ("top_logprobs", 0),
        ("top_p", 1),
        ("user", "me"),
        ("verbosity", "medium"),
    ],
)
def test_what_changes_nothing_is_taken(name, value):
    read(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("function_call", {"name": "f"}),
        ("functions", [{"name": "f"}]),
        ("logit_bias", {"50256": -100}),
        ("logprobs", True),
        ("modalities", ["text", "audio"]),
        ("modalities", []),
        ("moderation", {"model": "omni-moderation-latest"}),
        ("prediction", {"type": "content", "content": "a"}),
        ("reasoning_effort", "high"),
        ("response_format", {"type": "json_object"}),
        ("service_tier", "priority"),
        ("stop", "x"),
        ("stop", ["x"]),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("top_logprobs", 3),
        ("verbosity", "low"),
        ("web_search_options", {}),
        ("not_of_openai", None),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(name, value):
    with pytest.raises(ValidationError) as refused:
        read(**{name: value})
    assert {error["loc"][0] for error in refused.value.errors()} == {name}
    if name in ("tools", "stop", "audio", "logit_bias", "functions"):
        (error,) = refused.value.errors()
        assert error["msg"].startswith("This server does not offer it; leave it out")


def test_what_messages_and_parts_would_hold_is_refused():
    parts = [TEXT | {"image_url": {"url": "data:,"}}, IMAGE | {"text": "Or that?"}]
    for part in parts:
        with pytest.raises(ValidationError, match="does not offer it"):
            read(messages=[{"role": "user", "content": [TEXT, IMAGE, part]}])
    with pytest.raises(ValidationError, match="does not offer it"):
        read(messages=[{**ASKED["messages"][0], "tool_calls": [{"id": "1"}]}])
