"""Log lines of a real server, as an operator's collector reads them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.children import child

ROOT = Path(__file__).resolve().parents[2]
SECRET = "what-is-on-my-passport"
PLAIN = {"Content-Type": "text/plain"}

PROGRAM = """
import logging, sys, warnings
from m3router.router.serve.guard.request_guard import RequestGuard
from m3router.router.serve.http.running import serve_forever
from m3router.router.serve.logs import LogFormat, start_logging

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    logging.getLogger("own").warning("two\\nlines, " + "long " * 100)
    if scope["path"] == "/own":
        headers = [(b"x-request-id", b"chosen")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
    raise ValueError((await receive())["body"].decode())

start_logging(LogFormat(sys.argv[1]), logging.WARNING)
warnings.warn("of a library")
serve_forever(RequestGuard(app, 1000, 1.0, 4), "127.0.0.1", 0,
              on_start=lambda url: print(url, flush=True))
raise RuntimeError("what-is-on-my-passport")
"""


def log_of(format: str) -> tuple[list[str], list[str]]:
    """Lines of a server that was asked three questions, and the request ids that clients got."""
    with child(
        [sys.executable, "-c", PROGRAM, format],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        headers = {"Authorization": f"Bearer {SECRET}"}
        with httpx.Client(headers=headers) as client:
            answers = [
                client.post(f"{url}/x?key={SECRET}", json=SECRET),
                client.post(f"{url}/own", json=1),
                client.post(f"{url}/too-long", content=b"x", headers=PLAIN),
            ]
        assert [one.status_code for one in answers] == [500, 200, 415]
        server.terminate()
        _, log = server.communicate(timeout=20)
    assert SECRET not in log or format == "text"
    return log.splitlines(), [one.headers["x-request-id"] for one in answers]


def test_every_line_is_an_object_with_its_time_and_the_request_id_that_the_client_got():
    written, ids = log_of("json")
    lines = [json.loads(line) for line in written]
    assert len(set(ids)) == 3 and ids[1] == "chosen"
    for line in lines:
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
        assert line["level"] and line["logger"] and line["message"] and line["process"]
    asked = [line for line in lines if line["logger"] == "m3router.access"]
    assert [(one["request_id"], one["status"], one["path"]) for one in asked] == [
        (ids[0], 500, "/x"),
        (ids[1], 200, "/own"),
        (ids[2], 415, "/too-long"),
    ]
    assert all(one["method"] == "POST" and one["ms"] > 0 for one in asked)
    (failed, _) = [line for line in lines if "failed" in line["message"]]
    assert "ValueError at" in failed["message"] and failed["request_id"] == ids[0]
    own = [line for line in lines if line["logger"] == "own"]
    assert [one["request_id"] for one in own][0] == ids[0]
    assert "RuntimeError at" in lines[-1]["place"]
    assert any("of a library" in line["message"] for line in lines)


def test_text_is_not_folded_where_there_is_no_terminal():
    written, ids = log_of("text")
    assert any(line.startswith("lines, " + "long " * 100) for line in written)
    assert any('"POST /x HTTP/1.1" 500 in ' in line and ids[0] in line for line in written)
    timed = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO ")
    assert sum(timed.match(line) is not None for line in written) == 3


@pytest.mark.parametrize("arguments", [["serve", "nowhere", "--log-format", "json"]])
def test_a_server_that_does_not_start_says_why_in_an_object(arguments, tmp_path):
    got = subprocess.run(
        [sys.executable, "-m", "m3router", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    (line,) = got.stderr.splitlines()
    assert got.returncode == 2 and "nowhere does not exist" in json.loads(line)["message"]
