"""The others: who asks a server all the time, and how long they wait while somebody attacks it.

Server, upstream and attackers are processes of their own. In turns somebody attacks, does the same
work well meant (see `tests/serve/attacks.py`), or rests, so that what else the machine does befalls
all three alike.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from m3router.router.serve.guard.key_file import add_key
from tests.serve.attacks import ROOT, Attackers, Target, answered, picture, sent_once

SECONDS = 1.0
"""Of each turn; longer where fewer than `FEWEST` of a kind were answered."""
FEWEST, LONGEST = 40, 8.0
SETTLING = 0.3
"""Seconds between two turns, for what the one before left."""
ROUNDS = (3, 5, 9)
"""After which it is looked whether it is enough: others are on the machine, too."""
FLOOR = 0.01
"""Seconds; below it the machine's scheduler is measured."""
TURNS = ("rest", "alike", "attack")
KINDS = ("health", "question")


@dataclass(frozen=True)
class Attacked:
    """A server under attack.

    Attributes:
        target: For the attackers.
        key: Of the others.
        pid: Of the server's front.
    """

    target: Target
    key: str
    pid: int

    def spent(self) -> float:
        """Seconds of a processor that the front has taken until now; Linux only."""
        return time.clock_gettime((~self.pid << 3) | 2)


@contextlib.contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module that runs in a process of its own."""
    running = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@contextlib.contextmanager
def served(folder: Path, *command: str, model: str) -> Iterator[Attacked]:
    """A server of `m3router serve`, once it is ready."""
    keys, port = folder / "keys.jsonl", free_port()
    others, attacker = add_key(keys, "others"), add_key(keys, "attacker")
    more = ["--device", "cpu", "--threads", "1", "--traffic", str(folder / "traffic")]
    more += ["--port", str(port), "--keys", str(keys)]
    with process("m3router", "serve", *command, *more) as server:
        await_ready(port, "/ready")
        found = Attacked(Target(port, attacker, model=model), others, server.pid)
        for number in range(8):  # what is made once is made now
            assert answered(port, found.target.post(found.target.question(picture(number)))) == 200
        yield found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def await_ready(port: int, path: str, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while True:
        way = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.suppress(OSError), contextlib.closing(way):
            way.request("GET", path)
            if way.getresponse().status == 200:
                return
        assert time.monotonic() < until, "it does not get ready"
        time.sleep(0.1)


class Others:
    """Who asks all the time: health on a connection that stays and on new ones, and questions."""

    def __init__(self, attacked: Attacked) -> None:
        self.attacked = attacked
        self.found: list[tuple[str, float]] = []
        self.failed: list[str] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=one)
            for one in (("health", True), ("health", False), ("question", True), ("question", True))
        ]

    def __enter__(self) -> Others:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for one in self._threads:
            one.join()

    def _ask(self, kind: str, stays: bool) -> None:
        target = self.attacked.target
        headers = {
            "Authorization": f"Bearer {self.attacked.key}",
            "Content-Type": "application/json",
        }
        way = http.client.HTTPConnection("127.0.0.1", target.port, timeout=20)
        for number in itertools.cycle(range(8)):
            if self._over.wait(0.02):
                break
            body = target.question(picture(number))
            began = time.perf_counter()
            try:
                if kind == "question":
                    way.request("POST", target.path, body, headers)
                else:
                    way.request("GET", "/health")
                answer = way.getresponse()
                answer.read()
            except OSError as error:
                self.failed.append(f"{kind}: {error!r}")
                way.close()
                continue
            if answer.status != 200:
                self.failed.append(f"{kind}: {answer.status}")
            if not stays:
                way.close()
            self.found.append((kind, time.perf_counter() - began))
        way.close()

    def waited(self) -> dict[str, float]:
        """Seconds within which 99 of 100 requests of each kind are answered, from now on."""
        first, began = len(self.found), time.monotonic()
        while True:
            time.sleep(SECONDS)
            found = self.found[first:]
            times = {kind: sorted(at for one, at in found if one == kind) for kind in KINDS}
            late = time.monotonic() > began + LONGEST
            if late or min(map(len, times.values())) >= FEWEST:
                assert all(times.values()), "nobody is answered"
                return {kind: one[int(len(one) * 0.99)] for kind, one in times.items()}


Told = Mapping[str, list[dict[str, float]]]
"""For each turn, of each round, how long others waited."""


def measured(name: str, attacked: Attacked) -> tuple[Told, list[str]]:
    """Let an attack go on in turns; also what failed of the others' requests.

    With M3ROUTER_ATTACKS set to a file's name, a line of JSON is added to that file.
    """
    told: dict[str, list[dict[str, float]]] = {turn: [] for turn in TURNS}
    with Others(attacked) as others, Attackers(name, attacked.target) as attackers:
        for number in range(1, ROUNDS[-1] + 1):
            for turn in TURNS:
                attackers.do(turn)
                time.sleep(SETTLING)
                told[turn].append(others.waited())
            if number in ROUNDS and max(ratios(told).values()) <= 2:
                break
    if (page := os.environ.get("M3ROUTER_ATTACKS")) is not None:
        entry = {"attack": name, "model": attacked.target.model, "ratios": ratios(told)}
        entry |= {"p99": {turn: middle(all_) for turn, all_ in told.items()}}
        with open(page, "a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "failed": others.failed}) + "\n")
    return told, others.failed


def ratios(told: Told) -> dict[str, float]:
    """For each kind, how much longer others wait for an attack; of all rounds the median."""
    rounds = zip(told["attack"], told["alike"], told["rest"], strict=True)
    found = [
        {kind: attack[kind] / max(alike[kind], rest[kind], FLOOR) for kind in KINDS}
        for attack, alike, rest in rounds
    ]
    return middle(found)


def middle(all_: list[dict[str, float]]) -> dict[str, float]:
    """Of each kind, the median."""
    return {kind: statistics.median(one[kind] for one in all_) for kind in KINDS}


def unharmed(name: str, attacked: Attacked) -> None:
    """Fail if others wait more than twice as long, in most rounds, as with what is well meant."""
    told, failed = measured(name, attacked)
    p99 = {turn: middle(all_) for turn, all_ in told.items()}
    assert not failed, f"{name}: others failed {len(failed)} times: {failed[:3]}"
    assert max(ratios(told).values()) <= 2, f"{name}: p99 of others, in seconds: {p99}"


def cost(name: str, attacked: Attacked, *, times: int = 3) -> float:
    """Seconds of its processor that the front takes for one piece of an attack, at least."""
    found = []
    for _ in range(times):
        before = attacked.spent()
        sent_once(name, attacked.target)
        time.sleep(0.05)  # for what comes after the answer
        found.append(attacked.spent() - before)
    return min(found)
