"""The decision without the answer, over a real router."""

from __future__ import annotations

import json

import httpx
import pytest
from PIL import Image

from m3router.router.inference.router import Router
from m3router.router.serve.gateway.examples import as_labelled
from tests.router.inference.world import QUESTIONS
from tests.serve.routing import OPTIONS, asked_of, data_url, gateway, parts


@pytest.fixture(scope="module")
def served(imported):
    router = Router.load(imported.run.root, encoder=imported.encoder, device="cpu")
    with gateway(router) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield router, client


@pytest.fixture(scope="module")
def image(imported):
    with Image.open(imported.images / "3.png") as opened:
        return opened.convert("RGB")


@pytest.mark.parametrize("budget", [45, 1000])
def test_it_is_the_router_s_decision_and_how_it_is_asked(served, image, budget):
    router, client = served
    decision = router.decide(image, QUESTIONS[1], budget=budget)
    url, wish = data_url(image), {"budget": budget}
    bodies = (
        {"messages": asked_of(url, QUESTIONS[1]), "m3router": wish, "temperature": 0.5},
        {"image": url, "question": QUESTIONS[1], "m3router": wish, "model": None},
    )
    for body in bodies:
        told = client.post("/v1/route?image=true", json=body).json()
        assert told["option"] == decision.option == {45: "low", 1000: "high"}[budget]
        assert told["estimates"] == pytest.approx(decision.estimates)
        assert told["costs"] == pytest.approx(decision.costs)
        assert told["saved"] == decision.costs["high"] - decision.costs[decision.option]
        assert (told["judged"], told["cost_unit"]) == (True, "tokens")
        assert told["reason"] == decision.reason
        option = OPTIONS[decision.option]
        assert told["ask"]["model"] == option.model and told["ask"]["body"] == option.body
        if decision.option == "low":
            (sent,), _ = parts({"messages": asked_of(told["image"], "?")})
            assert max(sent.size) == 40
        else:
            assert "image" not in told
    assert "image" not in client.post("/v1/route", json=bodies[0]).json()


def test_what_cannot_be_judged_is_told_the_finest_option_and_why(served):
    _, client = served
    told = client.post("/v1/route", json={"question": "What is it?"}).json()
    assert told == {
        "object": "route",
        "option": "high",
        "judged": False,
        "reason": "There are 0 images; one is judged.",
        "ask": {**OPTIONS["high"].deciding(), "length_field": "max_tokens"},
    }


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "messages", "Give messages"),
        ({"messages": "hello"}, "messages", "must be a list"),
        ({"question": " "}, "question", "Give messages"),
        ({"question": "q", "image": 5}, "image", "must be the URL"),
        ({"question": "q", "picture": "data:,"}, "picture", "Unknown field 'picture'"),
        ([1], None, "JSON object"),
        (b'{"messages": [NaN]}', None, "not valid JSON"),
        (b'{"messages": [1e999]}', None, "not valid JSON"),
        (b'{"messages": [' + b"[" * 100_000, None, "not valid JSON"),
        (b"\xff", None, "not valid JSON"),
    ],
)
def test_a_wrong_body_is_told_what_is_wrong(served, body, param, message):
    _, client = served
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/v1/route", content=raw)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert message in error["message"] and error["param"] == param
    assert error["type"] == "invalid_request_error"


def test_a_wish_that_cannot_be_met_is_refused(served, image):
    _, client = served
    body = {"image": data_url(image), "question": "q", "m3router": {"budget": 0.001}}
    answer = client.post("/v1/route", json=body)
    assert answer.status_code == 400 and "budget" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"tools": [], "n": 1, "temperature": 1, "response_format": {"type": "text"}}, True),
        ({"tools": None, "n": None, "max_tokens": 5}, True),
        ({"tools": [{"type": "function"}]}, False),
        ({"response_format": {"type": "json_object"}}, False),
        ({"n": 2}, False),
        ({"messages": [{"role": "user"}, {"role": "user"}]}, False),
        ({"messages": [{"role": "developer", "content": "Be brief."}]}, False),
        ({"messages": []}, False),
        ({"messages": "?"}, False),
        ({"messages": ["?"]}, False),
    ],
)
def test_only_a_question_about_an_image_alone_can_be_an_example(changes, kept):
    body = {"messages": asked_of("data:,", "What is it?"), **changes}
    assert as_labelled(body) is kept
