"""What comes through to Gradio, and what does not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from m3router.router.demo.gate import Gate

UPLOADS = Path("/uploads")
JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"


class Behind:
    """Answers everything with what it was sent."""

    def __init__(self):
        self.reached = []

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        self.reached.append((scope["method"], scope["path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def behind():
    return Behind()


def send(behind, method, path, **options):
    async def sent():
        transport = httpx.ASGITransport(app=Gate(behind, uploads=UPLOADS, largest=1000))
        async with httpx.AsyncClient(transport=transport, base_url="http://demo") as client:
            return await client.request(method, path, **options)

    return asyncio.run(sent())


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/theme.css",
        "/favicon.ico",
        "/assets/index-abc.js",
        "/gradio_api/heartbeat/abc123",
        "/gradio_api/queue/data?session_hash=abc",
        "/gradio_api/file=/uploads/a/b.png",
    ],
)
def test_what_the_page_reads_comes_through_with_headers(behind, path):
    response = send(behind, "GET", path)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/file=http://example.com/a.png"),
        ("GET", "/gradio_api/file=https://example.com/a.png"),
        ("GET", "/gradio_api/proxy=https://example.com/a.png"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/config"),
        ("GET", "/monitoring"),
        ("GET", "/docs"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/call/ask"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/"),
        ("DELETE", "/"),
        ("GET", JOIN),
    ],
)
def test_everything_else_is_not_there(behind, method, path):
    response = send(behind, method, path)
    assert response.status_code == 404
    assert behind.reached == []


def test_an_event_comes_through_as_it_was(behind):
    event = {"data": [{"path": "/uploads/a/b.png", "url": None}, "path", 3, None]}
    response = send(behind, "POST", JOIN, content=json.dumps(event))
    assert response.status_code == 200 and response.json() == event


@pytest.mark.parametrize(
    "path",
    [
        "http://example.com/a.png",
        "HTTPS://example.com/a.png",
        "/etc/passwd",
        "/uploads/../etc/passwd",
        "uploads/a.png",
        "",
        7,
        ["/uploads/a.png"],
        "/uploads/\0",
    ],
)
def test_an_event_names_uploads_only(behind, path):
    for event in ({"data": [{"path": path}]}, {"data": [[{"deep": {"path": path}}]]}):
        response = send(behind, "POST", JOIN, content=json.dumps(event))
        assert response.status_code == 400
        assert "uploaded here" in response.json()["detail"]
    assert behind.reached == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 200_000])
def test_an_event_that_is_no_json_is_refused(behind, body):
    assert send(behind, "POST", JOIN, content=body).status_code == 400
    assert behind.reached == []


def test_a_huge_event_is_refused_before_it_is_read(behind):
    read = []

    async def endless():
        for _ in range(10_000):
            read.append(1)
            yield b"a" * 1024

    assert send(behind, "POST", JOIN, content=endless()).status_code == 413
    assert behind.reached == []


def test_uploads_say_their_length_and_keep_to_the_limit(behind):
    assert send(behind, "POST", UPLOAD, content=b"a" * 1000).status_code == 200
    too_long = send(behind, "POST", UPLOAD, content=b"a" * 200_000)
    assert too_long.status_code == 413

    async def unknown():
        yield b"a"

    assert send(behind, "POST", UPLOAD, content=unknown()).status_code == 411
    negative = send(behind, "POST", UPLOAD, content=b"", headers={"content-length": "-1"})
    assert negative.status_code == 411
    assert behind.reached == [("POST", UPLOAD)]


def test_web_sockets_are_closed(behind):
    async def opened():
        sent = []

        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message)

        gate = Gate(behind, uploads=UPLOADS, largest=1000)
        await gate({"type": "websocket", "path": "/"}, receive, send)
        return sent

    assert asyncio.run(opened()) == [{"type": "websocket.close", "code": 1008}]
