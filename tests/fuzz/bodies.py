"""Bodies of requests: whatever comes, the answer is a right one or OpenAI's error object, at once.

The target is an ASGI application: the model server's by default, with a backend that answers
``yes`` to everything. Another is named by ``M3ROUTER_FUZZ_APP=module:function``, a function without
arguments that gives an application.
"""

from __future__ import annotations

import asyncio
import atexit
import copy
import importlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
from PIL import Image

from m3router.m3core.matryoshka.base import Answer
from m3router.router.inference.query import Query, Served
from m3router.router.inference.result import RoutedAnswer
from m3router.router.serve.errors import ApiError
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.http.app import Front, create_app
from m3router.router.serve.settings import FrontSettings
from tests.fuzz.driver import Limits

LIMITS = Limits(seconds=10.0)
SECONDS = 0.5  # of this process, for one body
CHAT = "/v1/chat/completions"
PATHS = (CHAT, CHAT, CHAT, CHAT, "/v1/responses", "/v1/feedback", "/v1/route", "/v1/models")
IMAGE = "data:image/png;base64,iVBORw0KGgo="


@dataclass(frozen=True)
class Body:
    """One request."""

    path: str
    content: bytes
    kind: str
    method: str = "POST"


NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 10**30, 1e308, -0.0, "", " ", "\0", "x" * 2000,
    "\ud800", "\udfff\ud800", "\u202e", "é" * 50, "none", "auto", "1e999", [], {}, [[]], [None],
    [[[[[[]]]]]], {"": None}, {"type": "text"}, {"type": "image_url"}, {"type": None},
    {"type": "text", "text": None}, ["a", 1, None, {}], float("nan"), float("inf"),
)  # fmt: skip
FIELDS = (
    "temperature", "top_p", "n", "stop", "tools", "tool_choice", "logit_bias", "seed", "user",
    "stream", "stream_options", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs",
    "response_format", "modalities", "service_tier", "store", "metadata", "scale", "budget",
    "max_regret", "m3router", "system", "input", "instructions", "detail", "id", "score",
    "__proto__",
)  # fmt: skip
RAW = (
    b"", b"{", b"}", b"null", b"[]", b"[", b"0", b"-", b'"', b"NaN", b"\xff\xfe{\x00}\x00", b"\x00",
    b"\xef\xbb\xbf{}", b"[" * 5000, b'{"a":' * 5000, b"[" * 60 + b"]" * 60, b"1" * 5000,
    b'{"model":' + b"9" * 5000 + b"}", b'{"model":1e999}', b'{"model":"\\ud800"}', b"{}" * 3,
    b'{"messages":[' + b"{}," * 5000 + b"{}]}", b'{"a":1,"a":2}', b"\xed\xa0\x80", b'{"x":"\xff"}',
    b'{"' + b'k":1,"' * 3000 + b'z":1}', b'{"model":"' + b"\\" * 999 + b'"}',
)  # fmt: skip


def cases(seed: int) -> Iterator[Body]:
    """Requests without end: right ones with a few things wrong, and bytes that are no JSON."""
    number = 0
    while True:
        yield case(random.Random(f"bodies {seed} {number}"))
        number += 1


def case(rng: random.Random) -> Body:
    """One request."""
    path = rng.choice(PATHS)
    kind = rng.choice(["application/json"] * 8 + ["application/json; charset=utf-16", "text/plain"])
    method = rng.choice(["POST"] * 15 + ["GET", "PUT", "DELETE"])
    if rng.random() < 0.1:
        return Body(path, rng.choice(RAW), kind, method)
    body = _chat(rng) if path != "/v1/responses" else _response(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3, 5, 9])):
        _mutate(body, rng)
    content = json.dumps(body, ensure_ascii=rng.random() < 0.7).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        content = _torn(content, rng)
    return Body(path, content, kind, method)


def check(body: Body) -> None:
    """Ask the application that was named, and judge the answer; see :func:`check_answer`."""
    check_answer(body, _named(os.environ.get("M3ROUTER_FUZZ_APP", f"{__name__}:model_server")))


def check_answer(body: Body, make: Callable[[], Any]) -> None:
    """Ask an application that a function gives, and judge the answer.

    Raises:
        AssertionError: It is a 5xx, not of OpenAI's form, or took long.
    """
    runner, client = _connection(make)
    began = time.process_time()
    got = runner.run(
        client.request(
            body.method, body.path, content=body.content, headers={"content-type": body.kind}
        )
    )
    spent = time.process_time() - began
    assert got.status_code < 500, f"{got.status_code}: {got.text[:200]}"
    assert spent < SECONDS, f"took {spent:.2f} s of processor time"
    assert len(got.content) < 20_000 + len(body.content), f"{len(got.content)} bytes back"
    if got.status_code >= 400:
        error = got.json()["error"]
        assert got.headers["content-type"].startswith("application/json"), got.headers
        assert isinstance(error["message"], str) and error["message"], error
        assert isinstance(error["type"], str) and error["type"], error
        assert {"param", "code"} <= error.keys(), error
        assert error["param"] is None or isinstance(error["param"], str), error
    elif body.path == CHAT and not got.headers["content-type"].startswith("text/event-stream"):
        assert got.json()["choices"][0]["message"]["content"] == "yes"


def _chat(rng: random.Random) -> dict[str, Any]:
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": IMAGE, "detail": "auto"}},
        {"type": "text", "text": rng.choice(["Is it red?", "¿Es rojo?", "x" * 300])},
    ]
    rng.shuffle(parts)
    messages: list[Any] = [{"role": "user", "content": parts}]
    if rng.random() < 0.2:
        messages.insert(0, {"role": rng.choice(["system", "developer"]), "content": "Be short."})
    if rng.random() < 0.1:
        messages += [{"role": "assistant", "content": "no"}, {"role": "user", "content": "Sure?"}]
    body: dict[str, Any] = {"model": rng.choice(["m3-auto", "m3-9", "m3router/auto", "gpt-4o"])}
    body["messages"] = messages
    for name in rng.sample(FIELDS, rng.choice([0, 0, 1, 3])):
        body[name] = _nasty(rng)
    if rng.random() < 0.3:
        body["stream"] = True
    return body


def _response(rng: random.Random) -> dict[str, Any]:
    parts = [{"type": "input_image", "image_url": IMAGE}, {"type": "input_text", "text": "Is it?"}]
    return {"model": "m3-auto", "input": [{"role": "user", "content": parts}]}


def _mutate(body: dict[str, Any], rng: random.Random) -> None:
    """Change one place."""
    places = list(_places(body))
    holder, key = rng.choice(places)
    how = rng.randrange(6)
    if how == 0:
        holder[key] = _nasty(rng)
    elif how == 1:
        del holder[key]
    elif how == 2 and isinstance(holder, dict):
        holder[rng.choice([*FIELDS, "", "x" * 300, "\ud800", "type"])] = _nasty(rng)
    elif how == 3 and isinstance(holder, list):
        holder += [holder[key]] * rng.choice([1, 20, 300])
    elif how == 4:
        for _ in range(rng.choice([1, 3, 30])):
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
    else:
        other, place = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[place])) if place in _keys(other) else None
    if not body:
        body["model"] = None


def _nasty(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(NASTY))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in _keys(value):
        yield value, key
        yield from _places(value[key])


def _keys(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, list) else []


def _torn(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 10])):
        at = rng.randrange(len(data)) if data else 0
        how = rng.randrange(4)
        if how == 0:
            del data[at:]
        elif how == 1 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            data[at:at] = rng.choice(RAW)[:200]
        else:
            del data[at : at + rng.randrange(1, 20)]
    return bytes(data)


class _Yes:
    """A backend that answers at once."""

    _served = Served(
        model="m", revision="r", scales=(1, 9), router="f", policy="default", max_tokens=16
    )
    _answer = Answer(
        text="yes", logprob=-0.1, confidence=0.9, answer_tokens=1, visual_tokens=9, text_tokens=9
    )

    async def start(self) -> None:
        """Nothing to load."""

    def ready(self) -> bool:
        return True

    def served(self) -> Served:
        return self._served

    def check(self, query: Query) -> None:
        """Everything can be answered."""

    async def ask(self, query: Query) -> Any:
        yield "yes"
        yield RoutedAnswer(
            answer=self._answer, scale=9, sufficiency={1: 0.4, 9: 0.8}, milliseconds={}, flops={}
        )

    def load(self) -> dict[str, Any]:
        return {"queued": 0, "running": 0, "capacity": 4, "retry_after": 1.0}

    async def stop(self, *, seconds: float) -> None:
        """Nothing to stop."""


async def _image(url: str) -> Image.Image:
    if not url.startswith("data:"):
        raise ApiError(400, "An image must be a data URL.", param="messages.0.content")
    return Image.new("RGB", (4, 4))


def model_server() -> Any:
    """The model server's application."""
    front = Front(
        backend=_Yes(),
        image=_image,
        keys=KeyRing.of(None, None),
        rates=Rates(None, 1),
        settings=FrontSettings(),
    )
    return create_app(front)


def _named(place: str) -> Callable[[], Any]:
    module, _, name = place.partition(":")
    function: Callable[[], Any] = getattr(importlib.import_module(module), name)
    return function


@cache
def _connection(make: Callable[[], Any]) -> tuple[asyncio.Runner, httpx.AsyncClient]:
    """A client of an application that was started, and the loop where both live."""
    app, runner = make(), asyncio.Runner()
    atexit.register(runner.close)
    runner.run(_started(app))
    transport = httpx.ASGITransport(app)
    return runner, httpx.AsyncClient(transport=transport, base_url="http://server", timeout=None)


async def _started(app: Any) -> None:
    """Begin its life, which ends with the loop."""
    told: asyncio.Queue[Any] = asyncio.Queue()
    ends, begins = asyncio.Event(), [{"type": "lifespan.startup"}]

    async def receive() -> Any:
        if not begins:
            await ends.wait()
        return begins.pop()

    _LIVES.append(asyncio.create_task(app({"type": "lifespan"}, receive, told.put)))
    message = await told.get()
    assert message["type"] == "lifespan.startup.complete", getattr(app, "error", message)


_LIVES: list[asyncio.Task[None]] = []
"""So that nothing lets go of them."""
