"""What servers say that is odd: each is read rightly, or becomes one clear failure."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.data.example import Example
from m3router.m3core.endpoint import Key, RequestLimitError
from m3router.m3core.endpoint.completions import (
    BrokenReplyError,
    error_text,
    read_completion,
)
from m3router.m3core.endpoint.keys import base_url
from m3router.m3core.endpoint.meter import WARNINGS, Meter
from m3router.m3core.endpoint.token_counts import read_usage
from m3router.m3core.labelling import LabelMode, label
from m3router.m3core.options import Answer, Failure, Request
from tests.m3core.endpoint.scripted import Said, completion, events, honest, usage
from tests.m3core.endpoint.test_endpoint_model import SIZES, asking, requests

STREAM, JSON = "text/event-stream", "application/json"


def whole(**message):
    """A completion with this message."""
    body = completion()
    body["choices"][0]["message"] = {"role": "assistant", **message}
    return body


def read(body, kind=JSON):
    return read_completion(json.dumps(body).encode(), content_type=kind)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("kind", [STREAM, "text/plain"])
def test_a_stream_is_cut_at_its_own_line_ends_alone(end, kind):
    text = "a\u2028b\u0085c"  # line ends of Unicode, which str.splitlines would cut at
    said = {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}
    line = "data: " + json.dumps(said, ensure_ascii=False)
    body = ("\ufeff" + line + end * 2 + "data: [DONE]" + end * 2).encode()
    if kind != STREAM:
        body = body.removeprefix(b"\xef\xbb\xbf")
    assert read_completion(body, content_type=kind).text == text


def test_a_stream_that_is_cut_anywhere_is_no_answer():
    piece = {"choices": [{"index": 0, "delta": {"content": "réd"}, "finish_reason": None}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    total = {"choices": [], "usage": usage(14)}
    body = events(piece, end, total, total).body.rstrip(b"\n")
    for length in range(len(body)):
        with pytest.raises(BrokenReplyError):
            read_completion(body[:length], content_type=STREAM)
    assert read_completion(body, content_type=STREAM).text == "réd"


def test_a_text_in_parts_is_read_and_logprobs_that_are_none_are_left_out():
    parts = [{"type": "thinking", "thinking": "?"}, {"type": "text", "text": " red "}]
    assert read(whole(content=parts)).text == "red"
    for value in (-9999.0, 10**400, True, None):
        assert read(completion(logprobs={"content": [{"logprob": value}]})).logprob is None
    assert read(completion(finish_reason="max_tokens")).cut
    for reason in ("error", "abort"):
        with pytest.raises(BrokenReplyError, match=reason):
            read(completion(finish_reason=reason))


@pytest.mark.parametrize(
    ("message", "match", "always"),
    [
        ({"content": None, "refusal": "I must not."}, "refused to answer: I must not", False),
        ({"content": "", "reasoning_content": "Hm"}, "--max-new-tokens, or switch its thin", True),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "called a tool", True),
        ({"content": None}, "content is null", True),
    ],
)
def test_what_is_no_answer_is_a_failure_and_no_empty_answer(server, message, match, always):
    server.script = lambda heard: Said({**whole(**message), "usage": usage(9)})
    (failure,) = asking(server, cost_unit="pixels").answer(requests(["small"]))
    assert isinstance(failure, Failure) and match in failure.message
    assert failure.usage.prompt_tokens == 9
    if always:
        with pytest.raises(ModelError, match="first requests.*failed alike"):
            asking(server, cost_unit="pixels").answer(requests(["small"], images=4))
    assert read(whole(content="")).missing is None  # an answer may be empty


def test_an_absurd_usage_is_refused_and_where_an_error_lies_is_said():
    assert "no count" in str(read_usage({"prompt_tokens": 10**400}, max_tokens=1).wrong)
    detail = [{"type": "missing", "loc": ["body", "messages"], "msg": "Field required"}]
    assert error_text({"detail": detail}) == "Field required (messages)"
    assert error_text({"detail": []}) and error_text({"error": {"message": ["a"]}}) == "a"


@pytest.mark.parametrize(
    "url",
    [
        "user:sk-secret@host/v1",
        "http://sk-secret@host",
        "http://host/v1?key=sk-secret",
        "ht tp://a",
    ],
)
def test_addresses_with_secrets_or_spaces_are_refused_without_repeating_them(url):
    with pytest.raises(DataError) as raised:
        base_url(url)
    assert "sk-secret" not in str(raised.value)
    with pytest.raises(DataError):
        base_url("http://exa mple/v1")
    assert base_url("http://[::1]:8000/v1/") == "http://[::1]:8000/v1"


@pytest.mark.parametrize("status", [300, 304])
def test_a_redirect_to_nowhere_is_a_refusal(server, status):
    server.script = lambda heard: Said(b"", status)
    (failure,) = asking(server).answer(requests(["small"]))
    assert f"status {status}" in failure.message


def test_a_wait_that_is_too_long_ends_the_run(server):
    server.script = lambda heard: Said({"error": "slow"}, 429, {"Retry-After": "86400"})
    with pytest.raises(ModelError, match="asks to wait 86400 s .*same command"):
        asking(server).answer(requests())
    said = [Said({}, 503, {"Retry-After": text}) for text in ("-5", "soon", "nan")]
    server.script = lambda heard: said.pop(0) if said else honest(heard)
    (answer,) = asking(server, cost_unit="pixels").answer(requests(["small"]))
    assert answer.usage.attempts == 4


def test_https_to_a_server_without_it_is_said_at_once(server):
    model = asking(server)
    model._transport._url = server.url.replace("http://", "https://")
    with pytest.raises(ModelError, match="http:// or https://"):
        model.answer(requests(["small"]))
    assert model.meter.requests == 1


def test_an_image_that_an_encoding_cannot_hold_fails_alone(server):
    content = {"model": "m", "encoding": "webp:80", "option": [{"name": "a"}]}
    images = [Image.new("RGB", (1, 20_000)), Image.new("RGB", (64, 64))]
    asked = [Request(image=one, question="?", option="a") for one in images]
    long, good = asking(server, content, cost_unit="pixels").answer(asked)
    assert isinstance(good, Answer) and "1 x 20000 pixels cannot be sent as webp" in long.message


def test_a_server_that_repeats_the_key_brings_it_nowhere(server):
    secret = "sk-" + "x" * 30
    server.script = lambda heard: Said(completion(heard.headers["Authorization"]))
    (answer,) = asking(server, key=Key(secret), cost_unit="pixels").answer(requests(["small"]))
    assert answer.text == "Bearer [key]"
    server.script = lambda heard: Said({"detail": "y" * 280 + secret}, 400)
    (failure,) = asking(server, key=Key(secret)).answer(requests(["small"]))
    assert "sk-xxx" not in failure.message


def test_no_answer_is_lost_where_the_last_request_is_one_for_tokens(server):
    model = asking(server, probe=True, max_requests=9, in_flight=1)
    given = []
    asked = requests(["small"], images=2, questions=["a", "b", "c", "d"])
    with pytest.raises(RequestLimitError):
        given.extend(model.answer_each(asked))
    answered = [one for one in server.heard if one.image and one.question in "abcd"]
    assert len(given) == len(answered) > 0
    with pytest.raises(RequestLimitError, match="trying the options.*allow more"):
        asking(server, probe=True, max_requests=2)


def test_a_ladder_out_of_order_and_a_server_without_eyes_are_found(server):
    backwards = {**SIZES, "option": SIZES["option"][::-1]}
    with pytest.raises(ModelError, match="'small' has 2 image tokens.*from the coarsest"):
        asking(server, backwards, probe=True)
    server.script = lambda heard: Said(completion(usage=usage(10)))
    with pytest.raises(ModelError, match="ignores images"):
        asking(server, probe=True)


def test_warnings_of_many_kinds_are_counted_together():
    meter = Meter()
    for n in range(WARNINGS + 9):
        meter.warn(f"changed to {n}")
    assert (
        len(meter.reading.warnings) == WARNINGS + 1 and sum(meter.reading.warnings.values()) == 59
    )


def examples(folder, answers):
    for n, _ in enumerate(answers):
        Image.new("RGB", (640, 480), (n, 0, 0)).save(folder / f"{n}.png")
    return [
        Example(id=f"e{n}", image=f"{n}.png", question="?", answers=(text,))
        for n, text in enumerate(answers)
    ]


def test_options_that_were_not_asked_have_the_costs_of_those_that_were(server, tmp_path):
    several = examples(tmp_path, ["64 x 48", "640 x 480"])
    log = label(
        several,
        images=tmp_path,
        model=asking(server, probe=True),
        folder=tmp_path / "log",
        mode=LabelMode.UNTIL_CORRECT,
    )
    assert log.costs.tolist() == [[2, 300], [2, 300]] and log.unknown.tolist()[0] == [False, True]


def test_a_run_with_another_option_is_refused_by_what_differs(server, tmp_path):
    several = examples(tmp_path, ["x"])
    label(several, images=tmp_path, model=asking(server), folder=tmp_path / "log")
    other = {**SIZES, "option": [SIZES["option"][0], {"name": "large", "longest_side": 320}]}
    match = r"deciding\.large\.longest_side: journal 640, now 320"
    with pytest.raises(MismatchError, match=match):
        label(several, images=tmp_path, model=asking(server, other), folder=tmp_path / "log")


def test_the_same_server_at_another_address_goes_on(server, tmp_path):
    several = examples(tmp_path, ["x"])
    first = asking(server)
    label(several, images=tmp_path, model=first, folder=tmp_path / "log")
    heard = len(server.heard)
    other = asking(server)
    other._settings = type(other._settings)(
        url=server.url.replace("127.0.0.1", "localhost"), options=other._settings.options
    )
    label(several, images=tmp_path, model=other, folder=tmp_path / "log")
    assert len(server.heard) == heard
