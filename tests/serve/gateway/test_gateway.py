"""The gateway in front of the stand-in server, with a run that was labelled there."""

from __future__ import annotations

import json
import os
import signal
import time

import httpx
import openai
import pytest

from m3router.m3core.endpoint.merge_patch import merge_patch
from m3router.router.inference.router import Router
from m3router.router.serve.deciding.process import ProcessDecider
from m3router.router.serve.gateway.upstreams import upstreams_of
from m3router.router.serve.settings import WhenRouterFails
from tests.serve.gateway.endpoint_run import (
    LARGE,
    OPTIONS,
    SMALL,
    asked_image,
    chat,
    image_part,
    user,
)
from tests.serve.gateway.gateway_server import ThreadDecider, decided, gateway

PATCHES = {one["name"]: one["body"] for one in OPTIONS["option"]}


def test_a_deciding_process_that_is_killed(endpoint_run, stand_in):
    """Fails closed while it is gone, but for who names an option; then goes on."""
    decider = ProcessDecider(endpoint_run.root, threads=1)
    metadata = Router.load(endpoint_run.root).router.metadata
    upstreams = upstreams_of(metadata, ("coarse", "fine"), upstream=stand_in.url)
    data, _ = asked_image(1, cells=8)
    body = chat(user(image_part(data), LARGE), max_tokens=8)
    with gateway(upstreams, decider, when_router_fails=WhenRouterFails.CLOSED) as served:
        assert post(served.url, body).headers["x-m3router-option"] == "coarse"
        os.kill(decider._child.process.pid, signal.SIGKILL)
        refused = post(served.url, {**body, "messages": [user(image_part(data), SMALL)]})
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "router_failed"
        named = post(served.url, {**body, "model": "m3router/fine"})
        assert (named.status_code, named.headers["x-m3router-option"]) == (200, "fine")
        until = time.monotonic() + 120
        while (again := post(served.url, body)).status_code != 200:
            assert again.status_code == 503 and time.monotonic() < until
            time.sleep(0.2)
        assert again.headers["x-m3router-reason"].startswith("routed: ")


@pytest.fixture(scope="module")
def router(endpoint_run) -> Router:
    return Router.load(endpoint_run.root)


@pytest.fixture
def served(router, stand_in):
    upstreams = upstreams_of(router.router.metadata, router.options, upstream=stand_in.url)
    with gateway(upstreams, ThreadDecider(router), upstream_timeout=1.0) as running:
        yield running


def post(url: str, body, **more) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20, verify=False, **more)


def same(text: str) -> str:
    """An answer without what differs from one request to the next."""
    payloads = [
        json.loads(line.removeprefix("data: ")) if "{" in line else line
        for line in text.splitlines()
    ]
    for one in payloads:
        if isinstance(one, dict):
            one |= {"id": "", "created": 0}
            (one.get("usage") or {}).get("prompt_tokens_details", {}).pop("cached_tokens", None)
    return json.dumps(payloads)


def test_every_request_is_asked_at_the_routers_option(served, router, stand_in):
    right = 0
    for number in range(8):
        large = number % 2 == 0
        data, word = asked_image(100 + number, cells=8 if large else 16)
        question = LARGE if large else SMALL
        option = decided(router, data, question).option
        for stream in (False, True):
            more = {"stream": stream, "max_tokens": 8, "stream_options": {"include_usage": True}}
            more |= {"logprobs": True, "temperature": 0.3}
            body = chat(user(image_part(data), question), **more)
            stand_in.hits.clear()
            answer = post(served.url, body)
            direct = {**merge_patch(body, PATCHES[option]), "model": "stand-in"}
            theirs = post(stand_in.url, direct)
            assert answer.headers["x-m3router-option"] == option
            assert answer.headers["content-type"] == theirs.headers["content-type"]
            assert same(answer.text) == same(theirs.text)
            assert len(stand_in.hits) == 2
            assert stand_in.hits[0]["body"] == stand_in.hits[1]["body"]
            tokens = {"coarse": 64, "fine": 256}[option]
            assert served.metrics.usages[-1] == (
                option,
                theirs_prompt(theirs, stream),
                2,
                tokens,
                256.0 - tokens,
                None,
            )
            right += word in answer.text.replace('"}', "").replace(" ", "") or stream
    assert right == 16 and {one[1] for one in served.metrics.requests} == {"coarse", "fine"}


def theirs_prompt(answer: httpx.Response, stream: bool) -> int:
    lines = [one for one in answer.text.splitlines() if "prompt_tokens" in one]
    return json.loads(lines[-1].removeprefix("data: "))["usage"]["prompt_tokens"]


@pytest.mark.parametrize("fault", ["429", "500", "503", "html", "html-200", "400", "no-usage"])
def test_faults_arrive_as_they_are(served, stand_in, fault):
    data, _ = asked_image(1, cells=8)
    body = chat(user(image_part(data), LARGE), max_tokens=8)
    stand_in.faults.queue(fault, fault)
    answer = post(served.url, body)
    theirs = post(stand_in.url, {**merge_patch(body, PATCHES["coarse"]), "model": "stand-in"})
    assert answer.status_code == theirs.status_code and len(stand_in.hits) == 2
    assert answer.headers.get("Retry-After") == theirs.headers.get("Retry-After")
    assert answer.headers["content-type"] == theirs.headers["content-type"]
    if fault == "no-usage":
        assert same(answer.text) == same(theirs.text)
    else:
        assert answer.content == theirs.content


def test_cut_and_late_answers(served, stand_in):
    data, _ = asked_image(1, cells=8)
    for stream in (False, True):
        body = chat(user(image_part(data), LARGE), max_tokens=8, stream=stream)
        stand_in.faults.queue("cut")
        with pytest.raises(httpx.RemoteProtocolError):
            post(served.url, body)
    stand_in.faults.queue("unfinished", "no-done")
    assert "[DONE]" not in post(served.url, body).text
    assert "[DONE]" not in post(served.url, body).text
    stand_in.faults.queue("slow")
    late = post(served.url, body)
    assert late.status_code == 504 and len(stand_in.hits) == 5


def test_the_official_client(served, stand_in):
    data, word = asked_image(2, cells=8)
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    messages = [
        {"role": "system", "content": "Answer with one word."},
        user(image_part(data), LARGE),
    ]
    answer = client.chat.completions.create(
        model="m3router/auto", messages=messages, temperature=0.5, extra_body={"m3router": {}}
    )
    assert answer.choices[0].message.content == word
    pieces = client.chat.completions.create(model="stand-in", messages=messages, stream=True)
    assert "".join(one.choices[0].delta.content or "" for one in pieces) == word
    raw = client.chat.completions.with_raw_response.create(
        model="m3router/fine", messages=messages, extra_headers={"x-m3router-option": "fine"}
    )
    assert raw.headers["x-m3router-option"] == "fine" and raw.parse().usage.prompt_tokens > 200
    names = [one.id for one in client.models.list()]
    assert names == ["stand-in", "m3router/auto", "m3router/coarse", "m3router/fine"]
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="m3router/none", messages=messages)
    with pytest.raises(openai.RateLimitError):
        stand_in.faults.queue("429")
        client.chat.completions.create(model="m3router/auto", messages=messages)


@pytest.mark.parametrize(
    ("fault", "error"), [("429", openai.RateLimitError), ("500", openai.InternalServerError)]
)
def test_only_the_client_asks_again(served, stand_in, fault, error):
    stand_in.retry_after = 0.01
    stand_in.faults.queue(*[fault] * 8)
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none")  # its own two retries
    message = user(image_part(asked_image(3, cells=8)[0]), LARGE)
    with pytest.raises(error):
        client.chat.completions.create(model="m3router/auto", messages=[message])
    assert [one["status"] for one in stand_in.hits] == [int(fault)] * 3
