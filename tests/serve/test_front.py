"""What the front tells and counts, on its own."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import replace

import httpx
import pytest
from PIL import Image

from m3router.m3core.matryoshka.base import Answer
from m3router.router.inference.query import Served
from m3router.router.inference.result import RoutedAnswer
from m3router.router.serve.backends.backend import BusyError
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.http.app import Front, create_app
from m3router.router.serve.http.convert import usage_of
from m3router.router.serve.http.metrics import Metrics
from m3router.router.serve.settings import FrontSettings

SERVED = Served(model="m", revision="r", scales=(1, 9), router="f", policy="default", max_tokens=16)


class Full:
    """A backend whose queue is full."""

    def ready(self):
        return True

    def served(self):
        return SERVED

    def load(self):
        return {"queued": 4, "running": 1, "capacity": 4, "retry_after": 7.2}


def post(content: str, count: int = 1) -> tuple[httpx.Response, str]:
    """The last answer to some bodies, and the page of metrics behind it."""
    front = Front(
        backend=Full(),
        image=None,
        keys=KeyRing.of(None, None),
        rates=Rates(None, 1),
        settings=FrontSettings(),
    )

    async def main():
        transport = httpx.ASGITransport(create_app(front))
        async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
            for number in range(count):
                got = await client.post(
                    "/v1/chat/completions",
                    content=content.replace("NUMBER", str(number)),
                    headers={"content-type": "application/json"},
                )
            return got, (await client.get("/metrics")).text

    return asyncio.run(main())


BODY = '{"model": "made-up-NUMBER", "messages": [{"role": "user", "content": "Is it?"}]}'


def test_made_up_names_fill_no_metrics_where_the_queue_is_full():
    got, page = post(BODY, count=3)
    assert got.status_code == 429 and "made-up" not in page
    assert 'm3router_requests_total{model="?",status="429"} 3.0' in page


def test_what_is_certified_is_told_of_the_routed_model_alone():
    class Sure(Full):
        def served(self):
            return replace(SERVED, guarantee="With 95 % confidence.")

    front = Front(
        backend=Sure(),
        image=None,
        keys=KeyRing.of(None, None),
        rates=Rates(None, 1),
        settings=FrontSettings(),
    )

    async def main():
        transport = httpx.ASGITransport(create_app(front))
        async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
            return (await client.get("/v1/models")).json()["data"]

    told = {one["id"]: one["guarantee"] for one in asyncio.run(main())}
    assert told == {"m3-auto": "With 95 % confidence.", "m3-1": "", "m3-9": ""}


def test_a_refusal_says_when_to_come_back_and_which_request_it_was():
    got, _ = post(BODY)
    assert got.status_code == 429 and got.headers["retry-after"] == "7"
    assert got.headers["x-request-id"].startswith("chatcmpl-")


@pytest.mark.parametrize("content", ["{", '{"model": }', "[1,"])
def test_what_is_no_json_is_called_so(content):
    got, _ = post(content)
    error = got.json()["error"]
    assert got.status_code == 400 and error["message"] == "The body is not valid JSON."
    assert error["code"] == "invalid_json" and error["param"] is None


def test_long_names_of_fields_are_not_told_back():
    got, _ = post(BODY.replace('"model"', '"' + "k" * 100_000 + '": 1, "model"'))
    assert got.status_code == 400 and len(got.text) < 1_000
    assert got.json()["error"]["param"].startswith("kkk")


def test_usage_and_metrics_count_everything_that_was_tried():
    last = Answer(
        text="9",
        logprob=-0.1,
        confidence=0.9,
        answer_tokens=2,
        visual_tokens=9,
        text_tokens=20,
    )
    first = replace(last, visual_tokens=1, answer_tokens=3)
    routed = RoutedAnswer(
        answer=last,
        scale=9,
        sufficiency={1: 0.4, 9: 0.8},
        milliseconds={},
        flops={},
        peek_tokens=1,
        earlier=(first,),
    )
    usage = usage_of(routed)
    assert usage.visual_tokens == 9 + 1 + 1
    assert usage.prompt_tokens == 11 + 3 * 20  # the peek read the question, too
    assert usage.completion_tokens == 2 + 3
    metrics = Metrics(Full().load)
    metrics.answered(routed, SERVED, seconds=1.0)
    page = metrics.page().decode()
    for kind, count in (("visual", 11), ("text", 60), ("answer", 5)):
        assert f'm3router_tokens_total{{kind="{kind}"}} {count}.0' in page
    kept = replace(routed, peek_tokens=0, earlier=())
    assert usage_of(kept).prompt_tokens == 9 + 20


def test_an_image_of_megabytes_is_not_kept_while_it_is_answered():
    held = []

    class Measures(Full):
        def load(self):
            return super().load() | {"queued": 0}

        def check(self, query):
            pass

        async def ask(self, query):
            held.append(tracemalloc.get_traced_memory()[0])
            raise BusyError("Measured.", retry_after=1)
            yield

    async def image(url: str) -> Image.Image:
        held.append(tracemalloc.get_traced_memory()[0])
        return Image.new("RGB", (4, 4))

    async def body():
        part = '{"type": "image_url", "image_url": {"url": "data:;base64,'
        yield b'{"model": "m3-auto", "messages": [{"role": "user", "content": [' + part.encode()
        for _ in range(64):
            yield b"A" * (1 << 16)
        yield b'"}}, {"type": "text", "text": "Is it?"}]}]}'

    front = Front(
        backend=Measures(),
        image=image,
        keys=KeyRing.of(None, None),
        rates=Rates(None, 1),
        settings=FrontSettings(),
    )

    async def main():
        transport = httpx.ASGITransport(create_app(front))
        async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
            headers = {"content-type": "application/json"}
            await client.get("/v1/models")
            tracemalloc.start()
            found = await client.post("/v1/chat/completions", content=body(), headers=headers)
            tracemalloc.stop()
            return found

    assert "Measured" in asyncio.run(main()).text
    while_read, while_answered = held
    assert while_read > 4 << 20 > 4 * while_answered
