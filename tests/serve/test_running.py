"""A real server and raw sockets that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from m3router.data.errors import DataError
from m3router.router.serve.guard.connection_timeouts import ConnectionTimeouts
from m3router.router.serve.guard.key_file import add_key
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.request_guard import RequestGuard
from m3router.router.serve.http.running import bind, serve_forever, server_of
from tests.children import child

ROOT = Path(__file__).resolve().parents[2]
QUICK = ConnectionTimeouts(header_seconds=0.4, write_seconds=0.4, connections=12)
SECRET = "what is on my passport"
post = partial(
    httpx.post, verify=False
)  # no certificates are read: that takes longer than a question
get = partial(httpx.get, verify=False)
HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


class Site:
    """An application that shows what reached it, and whether a client left."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.left = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        message = await receive()
        self.reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/endless":
            piece = {"type": "http.response.body", "body": b"a" * 65_536, "more_body": True}
            watch = asyncio.ensure_future(receive())
            while not watch.done():
                await send(piece)
                await asyncio.sleep(0)
            self.left.set()
            return
        await send({"type": "http.response.body", "body": message.get("body", b"")})


@contextlib.contextmanager
def running(app: Any, **more: Any) -> Iterator[int]:
    """The server in a thread, at a free port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = server_of(app, **{"timeouts": QUICK, "drain_seconds": 1, **more})
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def site() -> Site:
    return Site()


@pytest.fixture(scope="module")
def port(site: Site) -> Iterator[int]:
    with running(RequestGuard(site, 1 << 20, 0.5, 16)) as found:
        yield found


def talk(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(10)
    return connection


def all_of(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset is a close too."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while more := connection.recv(65_536):
            found += more
    return found


def test_an_honest_client(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for number in range(3):
            answer = client.post("/x", json={"n": number})
            assert answer.json() == {"n": number}
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "server" not in answer.headers


@pytest.mark.parametrize(
    "sent",
    [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000],
)
def test_headers_that_never_end_are_closed(port: int, sent: bytes) -> None:
    with talk(port) as connection:
        connection.sendall(sent)
        began = time.monotonic()
        assert all_of(connection) == b""
        assert time.monotonic() - began < 20  # uvicorn alone would wait for ever


def test_a_trickle_of_headers_is_no_excuse(port: int, site: Site) -> None:
    """Each byte comes well within the time; all of them do not."""
    with talk(port) as connection:
        with pytest.raises(OSError):
            for _ in range(500):
                connection.sendall(b"G")
                time.sleep(0.02)
        assert all_of(connection) == b""


def test_a_second_request_on_a_connection_is_timed_too(port: int) -> None:
    with talk(port) as connection:
        request = b"GET /again HTTP/1.1\r\nHost: x\r\n\r\n"
        for _ in range(3):
            connection.sendall(request)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
            time.sleep(0.2)
        connection.sendall(request[:10])
        assert all_of(connection) == b""


def test_headers_in_time_are_served_however_they_are_cut(port: int) -> None:
    request = HEAD + b'Content-Length: 8\r\n\r\n{"a": 1}'
    with talk(port) as connection:
        for place in range(0, len(request), 11):
            connection.sendall(request[place : place + 11])
            time.sleep(0.005)
        assert b'{"a": 1}' in connection.recv(65_536)


def test_endless_headers_are_cut_off() -> None:
    """Before their time is up, which is the other rule that ends them."""
    patient = ConnectionTimeouts(header_seconds=60)
    with running(Site(), timeouts=patient) as port, talk(port) as connection:
        with contextlib.suppress(ConnectionError):  # closed while we still write
            connection.sendall(b"GET / HTTP/1.1\r\n")
            for number in range(40_000):
                connection.sendall(b"X-%d: aaaaaaaaaaaaaaaaaaaaaaaa\r\n" % number)
        assert b" 200 " not in all_of(connection)  # which times out where nothing was closed


@pytest.mark.parametrize("piece", [b"", b" "])
def test_a_body_that_never_ends_is_answered_408(port: int, site: Site, piece: bytes) -> None:
    site.reached.clear()
    with talk(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        answer = b""
        connection.settimeout(0.02)
        for _ in range(500):
            with contextlib.suppress(TimeoutError, BrokenPipeError):
                connection.sendall(piece)
                answer += connection.recv(65_536)
            if b"request_timeout" in answer:
                break
        assert answer.startswith(b"HTTP/1.1 408") and b"connection: close" in answer
    assert site.reached == []


def chunks() -> Iterator[bytes]:
    for _ in range(1000):
        yield b"a" * 100_000


@pytest.mark.parametrize("content", [b"a" * 100_000_000, chunks()], ids=["length", "chunked"])
def test_a_hundred_megabytes(port: int, site: Site, content: Any) -> None:
    """An ordinary client gets its 413, not just a broken pipe."""
    site.reached.clear()
    answer = post(
        f"http://127.0.0.1:{port}/x",
        content=content,
        headers={"Content-Type": "application/json"},
        timeout=30,
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert site.reached == []


def test_refused_at_once_by_the_length(port: int) -> None:
    with talk(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 100000000\r\n\r\n")
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 413") and b"connection: close" in answer


def test_nobody_is_told_to_go_on_with_what_is_too_long(port: int) -> None:
    with talk(port) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 100000000\r\n\r\n")
        assert b"100 Continue" not in all_of(connection)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Length: -2\r\n",
        b"Content-Length : 2\r\n",
        b"X: a\x00b\r\n",
        b" X: folded\r\n",
    ],
)
def test_requests_that_two_readers_read_differently(port: int, site: Site, head: bytes) -> None:
    """Smuggling: the connection ends, so that nothing hides behind the first request."""
    site.reached.clear()
    with talk(port) as connection:
        connection.sendall(HEAD + head + b"\r\n{}GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = all_of(connection)
    assert "/smuggled" not in site.reached
    assert b"HTTP/1.1 4" in answer or b"HTTP/1.1 501" in answer
    assert b"connection: close" in answer.lower()


def test_a_crowd_that_holds_connections_open_keeps_nobody_out(port: int) -> None:
    """The rest of the crowd gives way at once, before its time is up."""
    crowd = [talk(port) for _ in range(QUICK.connections * 3)]
    for _ in range(QUICK.connections):
        assert post(f"http://127.0.0.1:{port}/x", json=1).json() == 1
    for connection in crowd:
        assert all_of(connection) == b""
        connection.close()


def test_a_client_that_does_not_read_is_dropped(site: Site) -> None:
    site.left.clear()
    with running(site) as found, talk(found) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert site.left.wait(10)


def test_nothing_of_a_request_is_in_the_access_log(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        post(f"http://127.0.0.1:{port}/x?key={SECRET}", json=SECRET)
        post(f"http://127.0.0.1:{port}/x", json=1, headers={"Authorization": f"Bearer {SECRET}"})
    lines = [one.getMessage() for one in caplog.records if one.name == "m3router.access"]
    assert len(lines) == 2 and all('"POST /x HTTP/1.1" 200' in line for line in lines)
    assert SECRET not in caplog.text and "passport" not in "".join(lines)


def test_forwarded_addresses_are_not_believed_unless_told() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(scope["client"][0]).encode()})

    site = Site()

    async def both(scope: Any, receive: Any, send: Any) -> None:
        await (site if scope["type"] == "lifespan" else app)(scope, receive, send)

    for proxies, seen in (
        (None, "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9"),
        ("10.0.0.1", "127.0.0.1"),
    ):
        with running(both, proxies=proxies) as found:
            headers = {"X-Forwarded-For": "203.0.113.9"}
            assert get(f"http://127.0.0.1:{found}/", headers=headers).text == seen


PROGRAM = """
import asyncio, pathlib, sys
from m3router.router.serve.http.running import serve_forever

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("drained", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first ", "more_body": True})
    await stopping.wait()
    await asyncio.sleep(0.2)
    await send({"type": "http.response.body", "body": b"last"})

stopping = asyncio.Event()
serve_forever(app, "127.0.0.1", 0, drain_seconds=10,
              on_start=lambda url: print(url, flush=True),
              on_stop=lambda: (print("stopping", flush=True), stopping.set()))
print("returned", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_runs(number: signal.Signals) -> None:
    with child(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        with httpx.stream("GET", url, timeout=20, verify=False) as answer:
            pieces = answer.iter_text()
            assert next(pieces) == "first "
            server.send_signal(number)
            assert "".join(pieces) == "last"
        rest, _ = server.communicate(timeout=20)
    assert rest.split() == ["stopping", "drained", "returned"]
    assert server.returncode == 0


def test_who_comes_before_the_server_runs_waits_and_is_not_refused() -> None:
    with bind("127.0.0.1", 0) as listener:
        socket.create_connection(listener.getsockname()).close()
        with pytest.raises(DataError, match="Cannot listen at 127.0.0.1"):
            bind(*listener.getsockname())


def test_addresses_that_cannot_be_had() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(DataError, match="Cannot listen at 127.0.0.1:.* another with --port"):
            serve_forever(Site(), "127.0.0.1", taken.getsockname()[1])
    with pytest.raises(DataError, match="--port must be 0 to 65535, got 70000"):
        serve_forever(Site(), "127.0.0.1", 70_000)
    with pytest.raises(DataError, match="is not an address to listen at"):
        serve_forever(Site(), "a" * 300, 0)


def test_tls(tmp_path: Path) -> None:
    from tests.serve.test_fetching import certificate

    _, client = certificate(tmp_path, "localhost")
    pem = tmp_path / "localhost.pem"
    with running(RequestGuard(Site(), 1000, 1, 9), tls_cert=pem) as found:
        with (
            socket.create_connection(("127.0.0.1", found)) as plain,
            client.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert secure.version() in ("TLSv1.2", "TLSv1.3")
            assert secure.recv(1000).startswith(b"HTTP/1.1 200")
        chunked, smuggled = b"Transfer-Encoding: chunked\r\n", b"GET /smuggled HTTP/1.1\r\n\r\n"
        for sent, code in (
            (b"Content-Length: 2\r\n" + chunked + b"\r\n0\r\n\r\n", b"invalid_framing"),
            (chunked + b"\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n", b"invalid_chunks"),
        ):
            with (
                socket.create_connection(("127.0.0.1", found)) as plain,
                client.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                secure.sendall(HEAD + sent + smuggled)
                answer = all_of(secure)
            assert answer.startswith(b"HTTP/1.1 400") and code in answer
            assert answer.count(b"HTTP/1.1") == 1, "closed, and nothing behind it was read"
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with pytest.warns(DeprecationWarning):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", found)) as plain, pytest.raises(OSError):
            old.wrap_socket(plain, server_hostname="localhost")
    (tmp_path / "bad.pem").write_text("nonsense")
    for options in ({"tls_cert": tmp_path / "bad.pem"}, {"tls_cert": tmp_path / "none.pem"}):
        with pytest.raises(DataError, match="cannot be used"):
            server_of(Site(), **options)
    with pytest.raises(DataError, match="--tls-key is given without --tls-cert"):
        server_of(Site(), tls_key=pem)


def test_keys_at_the_door_change_while_it_runs(tmp_path: Path) -> None:
    """The parts together: a stranger's body is not read, a revoked key is refused."""
    from m3router.router.serve.errors import ApiError
    from m3router.router.serve.guard.key_file import revoke_key

    file = tmp_path / "keys.jsonl"
    token = add_key(file, "alice")
    ring, site = KeyRing.of(file, None), Site()

    def admit(scope: Any) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        if ring.authenticate(given.removeprefix("Bearer ")) is None:
            raise ApiError(401, "Who are you?", kind="authentication_error")

    with running(RequestGuard(site, 1 << 20, 1.0, 16, admit=admit)) as found:

        def status(key: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            return post(f"http://127.0.0.1:{found}/x", json=[1], headers=headers).status_code

        assert (status(token), status("x" + token), status("e")) == (200, 401, 401)
        other = add_key(file, "bob")
        revoke_key(file, "alice")
        began = time.monotonic()
        while status(other) != 200 or status(token) != 401:
            assert time.monotonic() - began < 10
            time.sleep(0.1)
        with talk(found) as connection:
            connection.sendall(HEAD + b"Content-Length: 900000\r\n\r\n")
            answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 401")
        assert (
            json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "authentication_error"
        )
