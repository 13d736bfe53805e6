"""Replicas under Ray Serve: one is killed under load, and nobody notices but by waiting."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from m3router.data.errors import DataError, MismatchError
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.inference.query import Query
from m3router.router.inference.result import RoutedAnswer
from m3router.router.serve.backends.backend import BusyError, OverdueError, UnavailableError
from m3router.router.serve.backends.ray.backend import RayBackend, agree
from m3router.router.serve.backends.ray.fence import check_address, fence
from m3router.router.serve.backends.ray.replica import Refused
from m3router.router.serve.backends.ray.settings import RaySettings
from m3router.router.serve.settings import EngineSettings
from tests.serve.ray_here import listening, ray_here

SCALES = (None, 1, 36, 576)

# --- settings ----------------------------------------------------------------------------------


def test_settings_come_from_a_file(tmp_path):
    path = tmp_path / "ray.toml"
    path.write_text('replicas = 2\nmost_replicas = 4\ngpus = 1\naddress = "auto"\n')
    assert RaySettings.read(path) == RaySettings(
        replicas=2, most_replicas=4, gpus=1.0, address="auto"
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("replica = 2", "has the entries replica; those known are"),
        ('replicas = "2"', "replicas cannot be '2'"),
        ("replicas = true", "replicas cannot be True"),
        ("replicas = 0", "replicas must be at least 1; it is 0"),
        ("target = 0", "target must be above 0"),
        ("replicas = 3\nmost_replicas = 2", "most_replicas must be at least replicas, 3"),
        ("replicas =", "cannot be read as TOML"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path, text, match):
    path = tmp_path / "ray.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=match):
        RaySettings.read(path)
    with pytest.raises(DataError, match="cannot be read"):
        RaySettings.read(tmp_path / "none.toml")


def test_replicas_that_scale_by_themselves():
    scaled = RaySettings(queue=9).scaled("1:4")
    options = scaled.options(ongoing=8, drain=5)
    assert options["autoscaling_config"] == {
        "min_replicas": 1,
        "initial_replicas": 1,
        "max_replicas": 4,
        "target_ongoing_requests": 8.0,
    }
    assert "num_replicas" not in options
    assert (options["max_ongoing_requests"], options["max_queued_requests"]) == (8, 9)
    fixed = RaySettings(replicas=3, ongoing=2, gpus=0.5).options(ongoing=8, drain=5)
    assert fixed["num_replicas"] == 3 and fixed["max_ongoing_requests"] == 2
    assert fixed["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 0.5}
    for text in ("4", "1:", "a:b", "-1:2", "3:2"):
        with pytest.raises(DataError):
            RaySettings().scaled(text)


# --- values on the way -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DataError, MismatchError, OverdueError, UnavailableError])
def test_errors_travel_as_values(kind):
    error = Refused.of(kind("why")).error()
    assert type(error) is kind and str(error) == "why"


def test_a_busy_engine_tells_when_to_come_back():
    error = Refused.of(BusyError("full", retry_after=3.5)).error()
    assert isinstance(error, BusyError) and error.retry_after == 3.5


@pytest.mark.parametrize(
    ("sent", "said", "whole", "agrees"),
    [
        ("", "", True, True),
        ("", "a b", False, True),
        ("a b", "a", False, True),
        ("a b", "a b c", True, True),
        ("a b", "a b", True, True),
        ("a b", "a", True, False),
        ("a b", "a c", False, False),
        ("a b", "b", False, False),
    ],
)
def test_what_was_sent_is_never_contradicted(sent, said, whole, agrees):
    if agrees:
        agree(sent, said, whole=whole)
    else:
        with pytest.raises(UnavailableError, match="goes on otherwise"):
            agree(sent, said, whole=whole)


# --- who may come near -------------------------------------------------------------------------


def test_a_token_that_others_can_read_is_refused(tmp_path, monkeypatch):
    token = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        fence()
    token.write_text("secret")
    token.chmod(0o640)
    with pytest.raises(DataError, match="can be read or written by others: chmod 600 it"):
        fence()
    token.chmod(0o600)
    fence()


def test_without_a_token_one_is_drawn_for_its_owner_alone(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    before = os.umask(0)
    try:
        fence()
    finally:
        os.umask(before)
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert token.stat().st_mode & 0o777 == 0o600 and token.parent.stat().st_mode & 0o777 == 0o700
    assert len(token.read_text()) == 64


def test_an_address_beyond_this_machine_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    check_address("127.0.0.1")
    with pytest.raises(DataError, match="would listen at 192.0.2.1, beyond this machine"):
        check_address("192.0.2.1")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    check_address("192.0.2.1")


def gcs_address():
    import ray

    return ray.get_runtime_context().gcs_address


def joined_without_a_token(address):
    """What somebody else on this machine gets who asks the cluster for its nodes."""
    program = f"import ray; ray.init({address!r}); print('nodes', len(ray.nodes()))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**env, "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        capture_output=True,
        text=True,
        timeout=90,
    )


# --- a real Ray --------------------------------------------------------------------------------


async def answered(backend, ask):
    *pieces, end = [event async for event in backend.ask(ask)]
    assert isinstance(end, RoutedAnswer) and all(isinstance(one, str) for one in pieces)
    return "".join(pieces), end


async def processes(backend, *, count, besides=frozenset(), seconds=90.0):
    """Ids of so many replicas' processes, as they tell them."""
    found: set[int] = set()
    until = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        found |= {load["process"] for load in await backend.loads()} - set(besides)
        await asyncio.sleep(0.05)
    assert len(found) == count, found
    return found


@pytest.mark.slow  # 30 s on two idle cores, most of it imports in the replicas
def test_a_killed_replica_loses_no_question(small_run):
    """Every question that was let in is answered rightly, whole and once; the replica is back.

    SIGTERM comes meanwhile: it must reach the process's own handler and nothing else. And Ray is
    there for nobody else: every port is at 127.0.0.1, and a token is asked for.
    """
    pipeline = AutoScalePipeline.load(small_run.root, device="cpu")
    asks = [
        Query(
            id=f"ask-{number}",
            image=small_run.asked[number % 40][0],
            question=small_run.asked[number % 40][1],
            scale=SCALES[number % 4],
            seconds=120.0,
        )
        for number in range(80)
    ]
    settings = EngineSettings(run=str(small_run.root), device="cpu", batch=4, threads=1)
    backend = RayBackend(settings, RaySettings(replicas=2, queue=200, cpus=0.5, health_seconds=1.0))
    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append(time.monotonic()))

    async def main():
        await backend.start()
        os.kill(os.getpid(), signal.SIGTERM)  # Ray's own handler would abort 3 s later
        assert listening() == {"127.0.0.1"}
        stranger = await asyncio.to_thread(joined_without_a_token, gcs_address())
        assert stranger.returncode and "nodes" not in stranger.stdout
        assert "AuthenticationError" in stranger.stderr, stranger.stderr
        alive = await processes(backend, count=2)
        tasks = [asyncio.create_task(answered(backend, ask)) for ask in asks]
        while sum(task.done() for task in tasks) < 10 or not backend.load()["running"]:
            await asyncio.sleep(0.005)
        os.kill(min(alive), signal.SIGKILL)
        left = sum(not task.done() for task in tasks)
        found = await asyncio.gather(*tasks)
        await processes(backend, count=1, besides=alive)
        assert backend.load() == {"queued": 0, "running": 0, "capacity": 200}
        # Who leaves is forgotten by the replicas too.
        for ask in asks[:6]:
            events = backend.ask(ask)
            await anext(events)
            await events.aclose()
        until = time.monotonic() + 90
        while any(one["running"] or one["queued"] for one in await backend.loads()):
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        await backend.stop(seconds=10)
        return found, left

    try:
        with ray_here(cpus=None):
            found, left = asyncio.run(main())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(told) == 1 and time.monotonic() - told[0] > 4
    assert left > 8  # more than both replicas hold: the load was on while one died
    for ask, (text, end) in zip(asks, found, strict=True):
        (expected,) = pipeline.answer([ask.image], [ask.question], scale=ask.scale)
        assert text == end.answer.text == expected.answer.text
        assert end.answer.answer_tokens == expected.answer.answer_tokens
        assert end.scale == expected.scale
