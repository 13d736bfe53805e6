"""What servers say: Retry-After, waits, usages, streams, names of models."""

from __future__ import annotations

import math
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.m3core.endpoint import RetryPolicy
from m3router.m3core.endpoint.completions import BrokenReplyError, error_text, read_completion
from m3router.m3core.endpoint.model_names import same_model
from m3router.m3core.endpoint.retries import may_succeed_later, retry_after_seconds
from m3router.m3core.endpoint.token_counts import read_usage

FEW = settings(max_examples=40, deadline=None)


@FEW
@given(st.integers(0, 4_000_000_000), st.integers(0, 4_000_000_000))
def test_a_date_is_so_many_seconds_from_now(now, when):
    header = formatdate(when, usegmt=True)
    assert retry_after_seconds(header, now=now) == max(0, when - now)


@FEW
@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_any_header_is_read_or_left(header):
    seconds = retry_after_seconds(header, now=0.0)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


@FEW
@given(st.integers(1, 100), st.floats(0, 0.999), st.none() | st.floats(0, 1e9))
def test_waits_are_bounded_and_at_least_what_is_asked_within_reason(sent, drawn, asked):
    policy = RetryPolicy(draw=lambda: drawn)
    pause = policy.pause(sent, asked)
    if asked is None:
        assert 0 <= pause <= min(policy.longest, policy.first * 2 ** (sent - 1))
    else:
        granted = min(asked, policy.longest_asked)
        assert granted <= pause <= granted + policy.first


def test_which_statuses_pass():
    assert all(may_succeed_later(one) for one in (408, 409, 425, 429, 500, 502, 503, 504, 529))
    assert not any(may_succeed_later(one) for one in (400, 401, 403, 404, 413, 422, 501))
    with pytest.raises(DataError, match="at least 1 attempt"):
        RetryPolicy(attempts=0)


COUNTS = st.none() | st.booleans() | st.integers(-2, 9) | st.text(max_size=2) | st.floats()


@FEW
@given(
    st.dictionaries(
        st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_tokens_details"]),
        COUNTS
        | st.dictionaries(
            st.sampled_from(["image_tokens", "cached_tokens", "multimodal_tokens"]),
            COUNTS | st.dictionaries(st.just("image"), COUNTS),
        ),
    )
)
def test_of_any_usage_only_what_can_be_is_taken(usage):
    found = read_usage(usage, max_tokens=4)
    counts = [found.prompt, found.answer, found.image, found.cached]
    assert all(one is None or (type(one) is int and one >= 0) for one in counts)
    assert found.wrong is None or counts == [None] * 4
    assert found.prompt is None or (found.image or 0) <= found.prompt


@FEW
@given(st.binary() | st.text().map(str.encode), st.sampled_from(["", "text/event-stream", "x/y"]))
def test_any_bytes_are_an_answer_or_a_broken_reply(body, kind):
    with pytest.raises(BrokenReplyError):
        read_completion(body, content_type=kind)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": {"message": "a", "code": 400}}', "a"),
        (b'{"detail": "b"}', "b"),
        (b'{"detail": [{"msg": "c", "loc": ["body"]}]}', "c"),
        (b'{"error": "d"}', "d"),
        (b"Internal Server Error", "Internal Server Error"),
        (b"", ""),
        (b"x" * 5000, "x" * 300 + "..."),
    ],
)
def test_what_errors_say(body, text):
    assert error_text(body) == text


@pytest.mark.parametrize(
    ("asked", "reported", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", True),
        ("m-2024-08-06", "m-2024-11-20", False),
        ("Qwen/Qwen3-VL-2B-Instruct", "qwen3-vl-2b-instruct", True),
        ("/models/tiny", "/models/tiny@main", True),
        ("Qwen3-VL-2B", "Qwen3-VL-8B", False),
        ("gemma-4", "gemma-4-1b", False),
    ],
)
def test_which_names_stand_for_one_model(asked, reported, same):
    assert same_model(asked, reported) is same
