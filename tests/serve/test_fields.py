"""Optional fields of OpenAI's schema: null is not given, plain values are taken, others refused."""

from __future__ import annotations

import json
import time
import typing

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from m3router.router.serve.errors import ApiError
from m3router.router.serve.http.reading import chat_request
from m3router.router.serve.http.schema import ChatRequest

TEXT = {"type": "text", "text": "Is it?"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
ASKED = {"model": "m3-auto", "messages": [{"role": "user", "content": [TEXT, IMAGE]}]}
OPTIONAL = sorted(
    {*typing.get_type_hints(CompletionCreateParamsNonStreaming), "stream"} - {"model", "messages"}
)


def read(**fields) -> ChatRequest:
    return chat_request(json.dumps(ASKED | fields).encode())


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
        ("logit_bias", {"50256": 0}),
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
        ("service_tier", "flex"),
        ("service_tier", "scale"),
        ("service_tier", "priority"),
        ("service_tier", "fast"),
        ("stop", []),
        ("stop", ""),
        ("top_k", None),
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
        ("service_tier", "best"),
        ("stop", ["x"] * 5),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("top_logprobs", 3),
        ("verbosity", "low"),
        ("web_search_options", {}),
        ("not_of_openai", 1),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(name, value):
    with pytest.raises(ApiError) as refused:
        read(**{name: value})
    error = refused.value
    assert error.status == 400 and str(error).startswith(f"{error.param}: ")
    assert error.param.partition(".")[0] == name or error.param.startswith(f"{name}[")
    if name in ("tools", "audio", "logit_bias", "functions"):
        assert "This server does not offer it; leave it out" in str(error)


def test_what_messages_and_parts_would_hold_is_refused():
    parts = [TEXT | {"image_url": {"url": "data:,"}}, IMAGE | {"text": "Or that?"}]
    for part in parts:
        with pytest.raises(ApiError, match="does not offer it"):
            read(messages=[{"role": "user", "content": [TEXT, IMAGE, part]}])
    with pytest.raises(ApiError, match="does not offer it"):
        read(messages=[{**ASKED["messages"][0], "tool_calls": [{"id": "1"}]}])


HALF = "Is it \ud83d?"
PLACE = "messages[0].content"


def asked(*parts) -> dict:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def seen(**image) -> dict:
    return asked(TEXT, {"type": "image_url", "image_url": image})


@pytest.mark.parametrize(
    ("fields", "place", "sentence"),
    [
        ({"topp": 1}, "topp", "no such field here; did you mean 'top_p'?"),
        ({"\ud800": 1}, "\\ud800", "no such field"),
        ({"model": None}, "model", "It is missing."),
        ({"model": 7}, "model", "must be a string, not a number."),
        ({"n": 2}, "n", "must be at most 1, not 2."),
        ({"budget": 10**400}, "budget", "must be a finite number."),
        ({"stream": "true"}, "stream", "must be true or false, not a string."),
        ({"stream_options": {"include_usag": 1}}, "stream_options.include_usag", "'include_usage'"),
        ({"response_format": {"type": "json_object"}}, "response_format.type", "'text', not 'json"),
        ({"stop": [3]}, "stop[0]", "must be a string, not a number."),
        ({"metadata": {"a": 1}}, "metadata.a", "must be a string, not a number."),
        ({"messages": "Is it?"}, "messages", "must be a list, not a string."),
        ({"messages": ["Is it?"]}, "messages[0]", "must be an object, not a string."),
        ({"messages": [{"role": "user"}]}, PLACE, "It is missing."),
        ({"messages": [{"content": "Is it?"}]}, "messages[0].role", "It is missing;"),
        (
            {"messages": [{"role": "usr", "content": "Is it?"}]},
            "messages[0].role",
            "no role 'usr' here; did you mean 'user'?",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, PLACE, "a string or a list of parts, not"),
        ({"messages": [{"role": "user", "content": "a" * 20_001}]}, PLACE, "longer than 20000"),
        ({"messages": [{"role": "user", "content": HALF}]}, PLACE, "half of a surrogate pair"),
        (
            {"messages": [*ASKED["messages"], {"role": "assistant", "content": "3"}]},
            "messages[1]",
            "Conversations are not offered here, and this is a message of the role assistant",
        ),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages", "no message of the role"),
        (asked(), PLACE, "must not be empty."),
        (asked(*[TEXT] * 17), PLACE, "more than 16 parts."),
        (asked("Is it?"), f"{PLACE}[0]", "must be an object, not a string."),
        (asked({"text": "Is it?"}), f"{PLACE}[0].type", "It is missing;"),
        (asked({"type": "video"}), f"{PLACE}[0].type", "no such type ('video'); parts are of"),
        (asked({"type": "input_audio"}), f"{PLACE}[0].type", "input_audio are not offered here"),
        (asked({"type": "text", "text": HALF}), f"{PLACE}[0].text", "half of a surrogate pair"),
        (asked({"type": "text", "text": "a" * 20_001}), f"{PLACE}[0].text", "longer than 20000"),
        (asked({"type": "text"}), f"{PLACE}[0].text", "It is missing."),
        (
            asked(TEXT, {**IMAGE, "image_url": "data:image/png;base64,AAAA"}),
            f"{PLACE}[1].image_url",
            "must be an object, not a string.",
        ),
        (seen(), f"{PLACE}[1].image_url.url", "It is missing."),
        (seen(url="iVBORw0KGgo" * 99), f"{PLACE}[1].image_url.url", "must begin with data:image"),
        (seen(url="data:,", detail="lo"), f"{PLACE}[1].image_url.detail", "or 'original', not 'lo"),
        (seen(url="data:,", detai=1), f"{PLACE}[1].image_url.detai", "did you mean 'detail'?"),
    ],
)
def test_errors_name_the_field_in_one_short_sentence(fields, place, sentence):
    with pytest.raises(ApiError) as refused:
        read(**fields)
    error = refused.value
    assert error.param == place and str(error).startswith(f"{place}: ") and sentence in str(error)
    assert error.code and len(str(error)) < 260
    json.dumps(error.body()).encode()


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"{", b'{"seed": NaN}', b'{"seed": ' + b"1" * 5_000 + b"}", b"[" * 100_000],
)
def test_what_is_no_json_is_called_so(body):
    with pytest.raises(ApiError, match="The body is not valid JSON"):
        chat_request(body)


@pytest.mark.parametrize(
    "fields",
    [
        {f"k{number}": None for number in range(19_000)},
        {"metadata": {str(number): number for number in range(19_000)}},
        {"messages": [{"role": "system", "content": 5}] * 9_000},
        asked(*[{"a": 1}] * 9_000),
        {"stop": [1] * 19_000},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_very_many_wrong_values_are_refused_at_once(fields):
    body = json.dumps(ASKED | fields).encode()
    begun = time.process_time()
    with pytest.raises(ApiError, match="more than"):
        chat_request(body)
    assert time.process_time() - begun < 0.25
