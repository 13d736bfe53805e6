"""Whoever means harm harms nobody else: how long others wait while somebody attacks.

Server, attackers and those who measure are processes of their own. The others ask for the server's
health on a connection that stays and on new ones, and send small requests with a key.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3router.router.serve.guard.key_file import add_key
from tests.serve.attacks import ATTACKS, ROOT, Target, attacking
from tests.serve.small_run import SmallRun

SECONDS = 1.0
FLOOR = 0.05
"""Seconds; below it the machine is measured, where attackers and others share two cores."""
TRIES = 4
"""Others are on the machine, too; a server that is held is held every time."""
QUICK = ("chunks_without_a_key", "a_body_byte_by_byte", "many_headers", "pipelined")
BEHIND = ("unknown_fields", "fresh_budgets")
"""Attacks on what is behind the guard."""


@contextlib.contextmanager
def started(command: list[str], keys: Path) -> Iterator[Target]:
    """A server in a process of its own, once it is ready."""
    server = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    try:
        line = next(line for line in server.stdout if "http://127.0.0.1:" in line)
        threading.Thread(target=server.stdout.read, daemon=True).start()
        target = Target(
            int(line.partition("127.0.0.1:")[2].split(",")[0]), add_key(keys, "attacker")
        )
        time.sleep(1.1)  # until the server has seen the new key
        until = time.monotonic() + 60
        while _status(target.port, "/ready") != 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        yield target
    finally:
        server.kill()
        server.wait()


def _status(port: int, path: str) -> int:
    way = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        way.request("GET", path)
        return way.getresponse().status
    except OSError:
        return 0
    finally:
        way.close()


def waited(target: Target, key: str, seconds: float = SECONDS) -> float:
    """Seconds within which 99 of 100 requests of others are answered."""
    found: list[float] = []
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body = json.dumps({"model": "none", "messages": [{"role": "user", "content": "x"}]})

    def ask(stays: bool, posts: bool) -> None:
        way = http.client.HTTPConnection("127.0.0.1", target.port, timeout=20)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            if posts:
                way.request("POST", target.path, body, headers)
            else:
                way.request("GET", "/health")
            answer = way.getresponse()
            answer.read()
            assert answer.status in (200, 400, 404)
            if not stays:
                way.close()
            found.append(time.perf_counter() - began)
            time.sleep(0.004)

    threads = [
        threading.Thread(target=ask, args=kind)
        for kind in ((True, False), (False, False), (True, True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) > 10
    return sorted(found)[int(len(found) * 0.99)]


def unharmed(name: str, target: Target, key: str) -> None:
    """Fail if others wait more than twice as long as without the attack, each time it is tried."""
    told = []
    for _ in range(TRIES):
        before = waited(target, key)
        with attacking(name, target):
            during = waited(target, key)
        if during <= max(2 * before, FLOOR):
            return
        told.append(f"{1000 * during:.0f} ms, without {1000 * before:.0f} ms")
    pytest.fail(f"{name}: others waited {'; '.join(told)}")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Target, str]]:
    keys = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    key = add_key(keys, "others")
    with started(["tests.serve.guarded", str(keys)], keys) as target:
        yield target, key


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in ATTACKS
        if name not in BEHIND
    ],
)
def test_others_are_not_harmed(guarded: tuple[Target, str], name: str) -> None:
    unharmed(name, *guarded)


@pytest.fixture(scope="module")
def serving(
    small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Target, str]]:
    keys = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    key = add_key(keys, "others")
    command = ["m3router", "serve", str(small_run.root), "--port", "0", "--keys", str(keys)]
    with started([*command, "--device", "cpu", "--threads", "1"], keys) as target:
        yield target, key


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "fresh_budgets"])
def test_others_are_not_harmed_at_the_model_server(serving: tuple[Target, str], name: str) -> None:
    """Not fresh budgets: those are questions that the model answers, on the same cores."""
    unharmed(name, *serving)
