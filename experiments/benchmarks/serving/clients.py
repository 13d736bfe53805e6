"""Clients in a process of their own: each asks, waits for its answer and asks again.

Imports no model library, so that what the process costs is what asking costs.

Written by hand because the usual tools do not give these figures. oha and k6 are no Python
packages, send prepared bodies and do not read server-sent events, so there is no time to the first
piece. Locust would drive the loop below, but what is asked, the reading of events, the wait after a
429 and the comparison of every answer with the offline pipeline would still be written here; and it
rounds response times (above 100 ms to two digits), so that its percentiles are other numbers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from experiments.benchmarks.serving.workload import (
    ORDERS,
    Call,
    Question,
    body,
    calls,
    data_url,
)

PATIENCE = 120.0
"""Seconds after which an answer counts as lost."""
RESTED = 2.0
"""Seconds after which a connection is not used again: less than after which servers close it."""
_REFUSED = 429


@dataclass(frozen=True, kw_only=True)
class Level:
    """Load of one strength on one server.

    Attributes:
        url: Of the server, up to the port.
        clients: How many ask at a time.
        warm: Seconds before anything is measured.
        seconds: That are measured; nobody begins anew afterwards.
        names: Model of the workload to the name by which the server knows it.
        order: Of questions, a key of :data:`ORDERS`.
        max_tokens: Longest answer.
        seed: Of the workload.
    """

    url: str
    clients: int
    warm: float
    seconds: float
    names: Mapping[str, str]
    order: str
    max_tokens: int
    seed: int


@dataclass(kw_only=True)
class Record:
    """What became of one request; times are seconds since the level began.

    Attributes:
        call: What was asked.
        began: When it was first sent.
        first: When the first piece of the answer came; None where it was not streamed.
        ended: When it was complete or given up.
        refused: How often the server was busy (429) before.
        text: The answer.
        scale: At which it was given, as the server says; None where it does not.
        milliseconds: By stage, as the server says.
        problem: Why there is no whole answer; "" where there is one.
    """

    call: Call
    began: float
    first: float | None = None
    ended: float = 0.0
    refused: int = 0
    text: str = ""
    scale: int | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Driven:
    """A level that was driven.

    Attributes:
        records: Of all requests, in the order in which they were sent.
        cpu: Seconds of processor time that the clients took, from first to last request.
        wall: Seconds from first to last request.
    """

    records: list[Record]
    cpu: float
    wall: float


@dataclass(frozen=True)
class _Known:
    """What the clients' process knows of a question."""

    question: Question
    url: str


_known: dict[str, _Known] = {}
"""By id; filled by :func:`learn`, in the process of the clients alone."""


def learn(questions: Sequence[Question]) -> None:
    """Read all images once, before anything is measured."""
    urls = {path: data_url(path) for path in {one.image for one in questions}}
    _known.update({one.id: _Known(one, urls[one.image]) for one in questions})


def drive(level: Level) -> Driven:
    """Drive one level to its end; :func:`learn` comes first."""
    return asyncio.run(_drive(level))


async def _drive(level: Level) -> Driven:
    order = ORDERS[level.order]([one.question for one in _known.values()], seed=level.seed)
    workload = calls(order, list(level.names), seed=level.seed)
    records: list[Record] = []
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=None, keepalive_expiry=RESTED
    )
    async with httpx.AsyncClient(
        base_url=level.url, limits=limits, timeout=PATIENCE, trust_env=False
    ) as http:
        cpu, began = time.process_time(), time.perf_counter()

        def clock() -> float:
            return time.perf_counter() - began

        clients = [_client(http, workload, level, clock, records) for _ in range(level.clients)]
        await asyncio.gather(*clients)
        return Driven(records=records, cpu=time.process_time() - cpu, wall=clock())


async def _client(
    http: httpx.AsyncClient,
    workload: Iterator[Call],
    level: Level,
    clock: Callable[[], float],
    records: list[Record],
) -> None:
    while clock() < level.warm + level.seconds:
        call = next(workload)
        known = _known[call.question]
        content = body(
            known.question.text,
            known.url,
            model=level.names[call.model],
            streamed=call.streamed,
            max_tokens=level.max_tokens,
        )
        record = Record(call=call, began=clock())
        records.append(record)
        try:
            await _ask(http, content, record, clock)
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            record.problem = f"{type(error).__name__}: {error}"
        record.ended = clock()


async def _ask(
    http: httpx.AsyncClient, content: bytes, record: Record, clock: Callable[[], float]
) -> None:
    """Ask until the server is not busy."""
    headers = {"Content-Type": "application/json"}
    while clock() - record.began < PATIENCE:
        async with http.stream(
            "POST", "/v1/chat/completions", content=content, headers=headers
        ) as response:
            if response.status_code == _REFUSED:
                await response.aread()
                record.refused += 1
                wait = float(response.headers["Retry-After"])
            elif response.status_code != httpx.codes.OK:
                text = (await response.aread()).decode(errors="replace")
                record.problem = f"{response.status_code}: {text[:200]}"
                return
            elif record.call.streamed:
                return await _pieces(response, record, clock)
            else:
                return _whole(json.loads(await response.aread()), record)
        await asyncio.sleep(wait)
    record.problem = f"refused for {PATIENCE:g} s"


def _whole(answer: dict[str, Any], record: Record) -> None:
    (choice,) = answer["choices"]
    record.text = choice["message"]["content"]
    _about(answer, record)


async def _pieces(response: httpx.Response, record: Record, clock: Callable[[], float]) -> None:
    """Read server-sent events; an answer is whole when it says why it ended."""
    ended = False
    async for line in response.aiter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        chunk = json.loads(line.removeprefix("data: "))
        if "error" in chunk:
            record.problem = str(chunk["error"])[:200]
            return
        _about(chunk, record)
        for choice in chunk["choices"]:
            piece = choice["delta"].get("content")
            if piece:
                record.first = clock() if record.first is None else record.first
                record.text += piece
            ended |= choice.get("finish_reason") is not None
    if not ended:
        record.problem = "the stream ended before the answer did"


def _about(answer: dict[str, Any], record: Record) -> None:
    """What the server says beside the answer."""
    about = answer.get("m3")
    if about:
        record.scale = about["scale"]
        record.milliseconds = about["milliseconds"]
