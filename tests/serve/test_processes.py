"""Several processes behind one port, killed and stopped for real."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from m3router.data.errors import DataError
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.settings import ServeSettings
from tests.children import child

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import asyncio, logging, os, sys, time
from functools import partial
from m3router.data.errors import DataError
from m3router.router.serve.gateway.metrics import GatewayMetrics, share
from m3router.router.serve.http.processes import serve_processes
from m3router.router.serve.logs import LogFormat, start_logging

class App:
    error = None
    def __init__(self, place, fails):
        share(place.folder, place.number)
        self.metrics = GatewayMetrics(options=("small",), folder=place.folder)
        self.place, self.fails = place, fails
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            if self.fails and self.place.number:
                self.error = DataError("There is no such policy.")
                return await send({"type": "lifespan.startup.failed", "message": ""})
            await send({"type": "lifespan.startup.complete"})
            self.place.ready("torch" in sys.modules)
            await receive()
            return await send({"type": "lifespan.shutdown.complete"})
        body = str(os.getpid()).encode()
        if scope["path"] == "/metrics":
            body = self.metrics.page()
        elif scope["path"] == "/block":
            time.sleep(0.5)
        else:
            self.metrics.request(200, "small", "routed", 0.0, 0.0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if scope["path"] == "/slow":
            await asyncio.sleep(1.0)
        await send({"type": "http.response.body", "body": b" end"})

def make(place, fails):
    return App(place, fails)

if __name__ == "__main__":
    start_logging(LogFormat.JSON, logging.WARNING)
    try:
        serve_processes(partial(make, fails="fails" in sys.argv), "127.0.0.1", 0,
                        processes=2, drain_seconds=5, access_log=False,
                        on_start=lambda url: print(url, flush=True),
                        on_ready=lambda told: print("ready", told, flush=True))
    except DataError as error:
        sys.exit(str(error))
    print("returned")
"""


@contextlib.contextmanager
def served(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen, str]]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    with child(
        [sys.executable, str(program), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        yield server, server.stdout.readline().strip()


def asked(url: str, path: str = "/") -> str:
    return httpx.get(url + path, timeout=20, trust_env=False).text


def processes(url: str, count: int, *, besides: str = "") -> set[str]:
    """Ids of so many processes; who sleeps does not accept, so that the other one answers."""
    found: set[str] = set()
    until = time.monotonic() + 30
    with ThreadPoolExecutor(1) as beside:
        while len(found) < count and time.monotonic() < until:
            block = beside.submit(asked, url, "/block")
            time.sleep(0.1)
            found |= {asked(url).split()[0], block.result().split()[0]} - {besides}
    return found


def test_one_that_dies_is_replaced_numbers_add_up_and_sigterm_drains_all(tmp_path):
    with served(tmp_path) as (server, url):
        assert server.stdout is not None and server.stderr is not None
        assert server.stdout.readline() == "ready False\n"
        first = processes(url, 2)
        assert len(first) == 2 and str(server.pid) not in first
        for _ in range(20):
            asked(url)
        killed = min(first)
        os.kill(int(killed), signal.SIGKILL)
        second = processes(url, 2, besides=killed)
        assert len(second) == 2
        page = asked(url, "/metrics")
        count = 'm3router_gateway_requests_total{option="small",status="200"} '
        assert float(page.partition(count)[2].split()[0]) >= 22
        slow = [httpx.Client(), httpx.Client(), httpx.Client()]
        with contextlib.ExitStack() as stack:
            answers = [stack.enter_context(one.stream("GET", f"{url}/slow")) for one in slow]
            server.terminate()
            assert all(one.read().endswith(b" end") for one in answers)
        rest, log = server.communicate(timeout=20)
        assert rest.split() == ["returned"] and server.returncode == 0
        (line,) = [json.loads(one) for one in log.splitlines()]
        assert "code -9; another one starts in" in line["message"]
        assert not list(tmp_path.glob("m3router-*"))


def test_where_one_cannot_start_none_stays_and_the_reason_is_told(tmp_path):
    with served(tmp_path, "fails") as (server, _):
        _, log = server.communicate(timeout=20)
        assert log.splitlines()[-1] == "There is no such policy." and server.returncode == 1


def test_where_the_supervisor_is_killed_nobody_stays(tmp_path):
    with served(tmp_path) as (server, url):
        assert server.stdout is not None
        server.stdout.readline()
        alive = processes(url, 2)
        server.kill()
        until = time.monotonic() + 20
        while any(Path(f"/proc/{one}").exists() for one in alive):
            assert time.monotonic() < until
            time.sleep(0.05)


def test_all_together_keep_to_the_rates():
    clock = iter(range(10_000))
    both = [Rates(None, 4, processes=2, clock=lambda: next(clock) // 4) for _ in range(2)]
    let_in = sum(one.take("key", 60) == 0 for _ in range(120) for one in both)  # for 60 s
    assert 60 <= let_in <= 4 + 59


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"processes": 0}, "--processes must be 1 or more, not 0"),
        ({"processes": 2, "traffic": Path("kept")}, "--traffic goes with one process"),
    ],
)
def test_settings_that_several_processes_cannot_have(given, told):
    with pytest.raises(DataError, match=told):
        ServeSettings(run="run", **given)
