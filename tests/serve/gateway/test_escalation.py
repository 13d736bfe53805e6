"""Answers that look wrong are asked for again, where that can be known."""

from __future__ import annotations

import json
import math

import httpx
import numpy as np
import pytest

from m3router.router.cascade.rule import Cascade, Rule
from m3router.router.policies.policy import Binding
from m3router.router.serve.gateway.upstreams import upstreams_of
from tests.serve.gateway.endpoint_run import chat, image_part, picture, user
from tests.serve.gateway.gateway_server import ToldDecider, gateway
from tests.serve.gateway.raw_upstream import Said

NAMES = ("coarse", "fine")
SPEC = {
    "kind": "endpoint",
    "url": "http://other",
    "options": {
        "option": [{"name": "coarse", "model": "small"}, {"name": "fine", "model": "large"}]
    },
}


def cascade() -> Cascade:
    """Believes an answer as far as its first token is likely; the fine option always is right."""
    weights = np.zeros((2, 5, 2))  # p of both options, confidence, log-probability, bias
    weights[0, 2, 0] = 1.0
    weights[:, 4, 1] = 2.0
    return Cascade(
        binding=Binding(options=NAMES, cost_unit="image tokens", router="r", split="s"),
        rule=Rule(
            beliefs=tuple(tuple(one.ravel().tolist()) for one in weights),
            start=tuple((0.0, 0.0) for _ in range(5)),
        ),
        price=0.0,
    )


def answer(model: str, probability: float | None) -> bytes:
    token = {"token": "x", "logprob": math.log(probability or 1)}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": f"of {model}"},
        "finish_reason": "stop",
        "logprobs": None if probability is None else {"content": [token]},
    }
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    return json.dumps({"id": model, "choices": [choice], "usage": usage}, indent=3).encode()


@pytest.fixture
def asked(upstream):
    asked = upstreams_of({"log": {"spec": SPEC}}, NAMES, upstream=upstream.url)
    decider = ToldDecider(NAMES, cascade=cascade())
    with gateway(asked, decider) as running:
        running.decider = decider

        def ask(**more):
            upstream.heard.clear()
            body = chat(user("What?", image_part(picture())), **more)
            found = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=20)
            return found, [one.body["model"] for one in upstream.heard]

        yield upstream, ask, running


def says(upstream, small: float | None, large: float | None = 0.5, **more):
    chances = {"small": small, "large": large}
    upstream.script = lambda heard: Said(
        [answer(heard.body["model"], chances[heard.body["model"]])],
        **(more if heard.body["model"] == "large" else {}),
    )


def test_an_answer_that_looks_wrong_is_asked_for_again(asked):
    upstream, ask, running = asked
    says(upstream, 0.4)
    found, models = ask(logprobs=True)
    assert models == ["small", "large"] and found.content == answer("large", 0.5)
    assert found.headers["x-m3router-option"] == "fine"
    assert "The answer at coarse looked wrong" in found.headers["x-m3router-reason"]
    assert found.headers["x-m3router-saved-tokens"] == "0"
    assert running.metrics.again == 1
    assert [one[0] for one in running.metrics.usages] == ["coarse", "fine"]
    says(upstream, 0.95)
    found, models = ask(logprobs=True, n=1, stream=False)
    assert models == ["small"] and found.content == answer("small", 0.95)


@pytest.mark.parametrize(
    "more",
    [{}, {"logprobs": True, "stream": True}, {"logprobs": True, "n": 2}, {"logprobs": False}],
)
def test_what_cannot_be_told_is_decided_by_the_plain_policy(asked, more):
    upstream, ask, running = asked
    says(upstream, 0.4)
    found, models = ask(**more)
    assert models == ["small"] and found.headers["x-m3router-reason"] == "routed: As the test says."
    assert not running.decider.asked[-1].again


def test_answers_without_log_probabilities_or_too_long_stay(asked):
    upstream, ask, _ = asked
    says(upstream, None)
    found, models = ask(logprobs=True)
    assert models == ["small"] and found.content == answer("small", None)
    assert "could not be asked again: the answer has no" in found.headers["x-m3router-reason"]
    long = answer("small", 0.4) + b" " * (5 << 20)
    upstream.script = lambda heard: Said([long])
    found, models = ask(logprobs=True)
    assert models == ["small"] and found.content == long
    upstream.script = lambda heard: Said([b"{"], status=429, headers={"Retry-After": "9"})
    found, models = ask(logprobs=True)
    assert models == ["small"] and found.status_code == 429 and found.headers["Retry-After"] == "9"
    upstream.script = lambda heard: Said([b'{"id"'], cut=True)
    with pytest.raises(httpx.RemoteProtocolError):
        ask(logprobs=True)
    assert len(upstream.heard) == 1


@pytest.mark.parametrize("more", [{"status": 500}, {"cut": True}])
def test_a_second_answer_that_fails_leaves_the_first(asked, more):
    upstream, ask, _ = asked
    says(upstream, 0.4, **more)
    found, models = ask(logprobs=True)
    assert models == ["small", "large"] and found.content == answer("small", 0.4)
    assert found.headers["x-m3router-option"] == "coarse"
    assert "could not be asked again: the option fine" in found.headers["x-m3router-reason"]


def test_log_probabilities_are_asked_for_where_told(upstream):
    asked = upstreams_of({"log": {"spec": SPEC}}, NAMES, upstream=upstream.url)
    says(upstream, 0.4)
    with gateway(asked, ToldDecider(NAMES, cascade=cascade()), ask_logprobs=True) as running:
        body = chat(user("What?", image_part(picture())))
        found = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=20)
    assert [one.body["logprobs"] for one in upstream.heard] == [True, True]
    assert found.content == answer("large", 0.5)
