"""The measuring itself, with a server in between whose delay is known."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn

from experiments.benchmarks.gateway.clients import (
    Ask,
    Driven,
    Level,
    Record,
    drive,
    learn,
    requests,
)
from experiments.benchmarks.gateway.cores import ROLES, assigned
from experiments.benchmarks.gateway.page import markdown
from experiments.benchmarks.gateway.running import measure
from experiments.benchmarks.gateway.summary import against_targets, interval, round_of
from m3router.m3core.endpoint.stand_in import StandIn, coded_image

DELAY = 0.1
OPTIONS = {"64": {"seed": 64}, "256": {"seed": 256}}


@contextlib.contextmanager
def running(app) -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


def between(upstream: int, seconds: float):
    """A pass-through that sleeps, and says that it chose an option."""
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{upstream}", trust_env=False, timeout=60)

    async def app(scope, receive, send):
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        await asyncio.sleep(seconds)
        body = body.replace(b"m3router/auto", b"stand-in")
        headers = {"Content-Type": "application/json"}
        async with client.stream("POST", scope["path"], content=body, headers=headers) as answer:
            told = [(b"x-m3router-option", b"64"), (b"x-m3router-reason", b"routed: so.")]
            told += [pair for pair in answer.headers.raw if pair[0].lower() == b"content-length"]
            await send(
                {"type": "http.response.start", "status": answer.status_code, "headers": told}
            )
            async for piece in answer.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def level(port: int, model: str, **more) -> Level:
    ask = Ask(model=model, shares={}, bodies=OPTIONS)
    return Level(**{"port": port, "ask": ask, "clients": 2, "warm": 0.1, "seconds": 0.8} | more)


@pytest.fixture(scope="module", autouse=True)
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number, word in enumerate(("apple", "bread")):
        coded_image(word, size=(128, 128)).save(folder / f"{number}.png")
    learn(folder)


def test_a_known_delay_is_found_and_both_ask_the_same_of_the_upstream():
    stand_in = StandIn(server="openai", seconds=0.02)
    with running(stand_in.app()) as upstream, running(between(upstream, DELAY)) as through:
        found = measure(
            drive,
            level(upstream, "stand-in", fresh=True),
            level(through, "m3router/auto", fresh=True),
            rounds=2,
        )
    added = found["compared"]["added_median_ms"]["mean"]
    assert added > 500 * DELAY  # half of it: other work on the machine slows either
    rounds = found["rounds"]
    assert all(not one["problems"] for arm in rounds.values() for one in arm)
    assert all(set(one["reasons"]) == {"routed"} for one in rounds["through"])
    assert found["compared"]["throughput"]["mean"] < 0.9
    asked = [hit["body"] for hit in stand_in.hits]
    assert {one.get("seed") for one in asked} == {64, None}
    assert {one["question"] for one in stand_in.hits} == {"Which word is written here?"}
    results = {
        **{"command": "c", "commit": "x", "date": "d", "rounds": 2, "seconds": 0.8},
        "machine": {"cores": 2, "processor": "p", "roles": {}, "load_before": 0.0},
        "groups": [
            {"name": "g", "target": "added", "levels": [{**found, "upstream_seconds": 0.02}]}
        ],
    }
    results["targets"] = against_targets(results["groups"])
    assert not results["targets"][0]["met"] and "100.0%" in markdown(results)


def test_what_goes_wrong_is_counted_and_not_measured():
    with running(StandIn(server="openai", key="k").app()) as port:
        refused = drive(level(port, "stand-in", fresh=False, seconds=0.2))
    gone = drive(level(1, "stand-in", fresh=False, clients=1, seconds=0.05))
    for driven in (refused, gone):
        assert driven.records and all(one.problem for one in driven.records)
        told = round_of(level(1, "x", fresh=False), driven)
        assert told["per_second"] == 0 and math.isnan(told["median_ms"])
        assert told["lost"] == len(driven.records)


def test_no_file_comes_twice_where_images_are_fresh():
    fresh = requests(level(1, "m", fresh=True))
    bodies = [next(fresh).partition(b"\r\n\r\n")[2] for _ in range(50)]
    images = {body.partition(b"base64,")[2].partition(b'"')[0] for body in bodies}
    again = requests(level(1, "m", fresh=False))
    seen = {next(again).partition(b"base64,")[2].partition(b'"')[0] for _ in range(50)}
    assert len(images) == 50 and len(seen) == 2


def test_rounds_are_of_what_began_in_time_and_intervals_are_students():
    records = [Record(at, at + 0.1, at + 0.2) for at in (0.05, 0.5, 0.95)]
    told = round_of(level(1, "m", fresh=False), Driven(records=records, cpu=0.3, wall=1.0))
    assert told["median_ms"] == pytest.approx(200) and told["first_median_ms"] == pytest.approx(100)
    assert told["per_second"] == pytest.approx(2 / 0.8) and told["clients_cpu_ms"] == 100
    assert interval([1.0, 3.0]) == pytest.approx({"mean": 2, "low": 2 - 12.7062, "high": 14.7062})


@pytest.mark.parametrize(("count", "alone"), [(4, {*ROLES}), (3, {"upstream", "gateway"})])
def test_who_has_a_core_to_itself(count, alone):
    places = assigned(list(range(count)))
    assert {role for role in ROLES if list(places.values()).count(places[role]) == 1} == alone
    two = assigned([5, 9])
    assert two["upstream"] != two["gateway"] and set(two.values()) == {5, 9}
