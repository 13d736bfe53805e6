"""The shield, by messages as a server sends them. Real sockets: test_running.py."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from m3router.data.errors import DataError
from m3router.router.serve.errors import ApiError
from m3router.router.serve.guard.admission import OPEN_A_MINUTE, OPEN_BURST, admission
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.guard.request_guard import HEADERS, RequestGuard

JSON = (b"content-type", b"application/json")
SECRET = "what is on my passport"


class Never(Exception):
    """Somebody read on after it was over."""


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


class Talk:
    """One request, its pieces as they come, and what was answered."""

    def __init__(
        self, pieces: Iterable[bytes | None | float], headers: Any = (JSON,), ends: int = 0
    ) -> None:
        self.pieces = list(pieces)
        self.ends = ends or len(self.pieces)
        self.headers = list(headers)
        self.read = 0
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        if self.read == len(self.pieces):
            raise Never
        piece = self.pieces[self.read]
        self.read += 1
        if isinstance(piece, float):
            await asyncio.sleep(piece)
            return {"type": "http.request", "body": b" ", "more_body": True}
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": self.read < self.ends}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def through(self, shield: RequestGuard, **scope: Any) -> Talk:
        scope = {"type": "http", "method": "POST", "path": "/" + SECRET, **scope}
        asyncio.run(shield({**scope, "headers": self.headers}, self.receive, self.send))
        return self

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def answer(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def error(self) -> Any:
        found = json.loads(self.body)["error"]
        assert set(found) == {"message", "type", "param", "code"}
        assert int(self.answer[b"content-length"]) == len(self.body)
        return found


def length(number: int) -> tuple[bytes, bytes]:
    return b"content-length", str(number).encode()


CHUNKED = (b"transfer-encoding", b"chunked")


def shield(app: Any = echo, max_bytes: int = 100, **more: Any) -> RequestGuard:
    return RequestGuard(app, max_bytes, 0.2, 4, **more)


def test_a_body_goes_through_whole() -> None:
    talk = Talk([b'{"a":', b" [1, ", b"2]}"], [JSON, CHUNKED]).through(shield())
    assert (talk.status, talk.body) == (200, b'{"a": [1, 2]}')
    assert b"connection" not in talk.answer


def test_without_a_body_nothing_is_read_or_judged() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    for headers in ([], [length(0)]):
        talk = Talk([], headers).through(shield(app), method="GET")
        assert talk.status == 200 and b"connection" not in talk.answer


@pytest.mark.parametrize("announced", [101, 10**8, 10**17])
def test_too_long_by_its_header_is_not_read(announced: int) -> None:
    talk = Talk([b"{"], [JSON, length(announced)]).through(shield())
    assert (talk.status, talk.error["code"], talk.read) == (413, "request_too_large", 0)
    assert talk.answer[b"connection"] == b"close"


@pytest.mark.parametrize("value", [b"-1", b"+1", b"1e9", b"", b"0x10", b"9" * 5000, b"\xb2"])
def test_lengths_that_are_no_numbers(value: bytes) -> None:
    talk = Talk([b"{"], [JSON, (b"content-length", value)]).through(shield())
    assert (talk.status, talk.read) == (400, 0)


def test_too_long_on_the_way_is_read_no_further() -> None:
    talk = Talk([b"a" * 60, b"a" * 60, b"a" * 60], [JSON, CHUNKED]).through(shield())
    assert (talk.status, talk.read) == (413, 2)
    assert talk.answer[b"connection"] == b"close"


def test_exactly_the_limit() -> None:
    body = b'"' + b"a" * 98 + b'"'
    assert Talk([body], [JSON, length(100)]).through(shield()).body == body


@pytest.mark.parametrize("gaps", [[5.0], [0.05] * 100])
def test_slow_bodies(gaps: list[float]) -> None:
    """Silence, and a trickle that a time between two pieces would let through."""
    guard = shield()
    talk = Talk([b"{", *gaps], [JSON, length(50)]).through(guard)
    assert (talk.status, talk.error["code"]) == (408, "request_timeout")
    assert talk.answer[b"connection"] == b"close"
    assert guard.held == 0


def test_a_client_that_leaves_is_not_answered() -> None:
    guard = shield()
    assert Talk([b"{", None], [JSON, length(50)]).through(guard).sent == []
    assert guard.held == 0


def test_all_bodies_together_are_bounded() -> None:
    guard = shield(total_bytes=150)

    async def two() -> list[Talk]:
        talks = [Talk([b"a" * 90, 0.05, b'"'], [JSON, CHUNKED]) for _ in range(2)]
        scope = {"type": "http", "method": "POST", "path": "/"}
        await asyncio.gather(
            *(guard({**scope, "headers": one.headers}, one.receive, one.send) for one in talks)
        )
        return talks

    statuses = sorted(talk.status for talk in asyncio.run(two()))
    assert statuses == [200, 503]
    assert guard.held == 0
    assert Talk([b"[]"], [JSON, length(2)]).through(guard).status == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([JSON, (b"content-encoding", b"gzip")], "unsupported_encoding"),
        ([JSON, (b"content-encoding", b"identity, br")], "unsupported_encoding"),
        ([], "unsupported_media_type"),
        ([(b"content-type", b"text/plain")], "unsupported_media_type"),
        ([(b"content-type", b"text/plain; application/json")], "unsupported_media_type"),
        ([(b"content-type", b"application/json-patch+json")], "unsupported_media_type"),
        ([(b"content-type", b"multipart/form-data; boundary=x")], "unsupported_media_type"),
    ],
)
def test_only_plain_json_is_read(headers: Any, code: str) -> None:
    talk = Talk([b"{}"], [*headers, length(2)]).through(shield())
    assert (talk.status, talk.error["code"], talk.read) == (415, code, 0)


@pytest.mark.parametrize("kind", [b"application/json", b"Application/JSON; charset=utf-8"])
def test_json_in_its_spellings(kind: bytes) -> None:
    assert Talk([b"{}"], [(b"content-type", kind), length(2)]).through(shield()).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[[[[1]]]]", 200),
        (b"[[[[[1]]]]]", 400),
        (b'"[[[[[[["', 200),
        (b'{"a\\"[[[[[[[":1}', 200),
        (b'"\\\\",[[[[[', 400),
        ("[[[[[".encode("utf-16"), 400),
        ("[[[[[".encode("utf-32-be"), 400),
        ('{"\\"":1}'.encode("utf-16-le"), 400),
        (b"[" + b"1," * 20_001 + b"1]", 400),
    ],
)
def test_depth_before_parsing(body: bytes, status: int) -> None:
    reached = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(1)
        await echo(scope, receive, send)

    talk = Talk([body], [JSON, length(len(body))]).through(shield(app, max_bytes=10**6))
    assert talk.status == status and bool(reached) == (status == 200)


def test_the_door_comes_before_the_body() -> None:
    def admit(scope: Any) -> None:
        raise ApiError(401, "No.", kind="authentication_error", headers={"WWW-Authenticate": "B"})

    talk = Talk([b"{}"], [JSON, length(2)]).through(shield(admit=admit))
    assert (talk.status, talk.read, talk.error["type"]) == (401, 0, "authentication_error")
    assert talk.answer[b"www-authenticate"] == b"B" and talk.answer[b"connection"] == b"close"


def test_some_paths_take_more_values() -> None:
    body = b"[" + b"1," * 200 + b"1]"
    guard = shield(max_bytes=10**6, max_marks=100, max_marks_at={"/numbers": 300})
    for path, status in (("/x", 400), ("/numbers", 200)):
        talk = Talk([body], [JSON, length(len(body))]).through(guard, path=path)
        assert talk.status == status


def test_looks_at_health_are_never_refused_but_come_at_a_pace() -> None:
    door = admission(KeyRing.of(None, "a key that is long enough"), Rates(1, 1))
    look = {"path": "/health", "headers": [], "client": ("192.0.2.1", 1)}
    waits = [door(look) for _ in range(OPEN_BURST + 5)]
    assert not any(waits[:OPEN_BURST]) and 0 < max(waits) <= 60 / OPEN_A_MINUTE
    assert door({**look, "client": ("192.0.2.1", 2)}) == 0, "another connection"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost", 200),
        (b"LocalHost:8000", 200),
        (b"[::1]:8000", 200),
        (b"evil.example", 421),
        (b"localhost.evil.example", 421),
        (b"[::1].evil.example", 421),
        (b"", 421),
    ],
)
def test_names_of_the_server(host: bytes, status: int) -> None:
    guard = shield(hosts=frozenset({"localhost", "[::1]"}))
    talk = Talk([b"{}"], [JSON, length(2), (b"host", host)]).through(guard)
    assert talk.status == status
    assert Talk([b"{}"], [JSON, length(2)]).through(guard).status == 421


Raising = Callable[[Any, Any, Any], Awaitable[None]]


async def breaks(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    try:
        int(SECRET)
    except ValueError as error:
        raise RuntimeError(f"/home/user/model: {SECRET}") from error


async def breaks_late(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError(SECRET)


async def breaks_in_a_group(scope: Any, receive: Any, send: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(breaks(scope, receive, send))


@pytest.mark.parametrize("app", [breaks, breaks_in_a_group])
def test_mistakes_tell_nothing(app: Raising, caplog: pytest.LogCaptureFixture) -> None:
    talk = Talk([b"{}"], [JSON, length(2)]).through(shield(app))
    assert talk.status == 500
    assert talk.error == {
        "message": "The server failed to answer.",
        "type": "server_error",
        "param": None,
        "code": None,
    }
    assert SECRET not in caplog.text and "/home/user" not in caplog.text
    assert "RuntimeError" in caplog.text or "ExceptionGroup" in caplog.text
    assert "test_shield.py" in caplog.text, "where it happened is said"


def test_a_broken_answer_is_cut_off_not_ended(caplog: pytest.LogCaptureFixture) -> None:
    talk = Talk([b"{}"], [JSON, length(2)]).through(shield(breaks_late))
    assert [message["type"] for message in talk.sent] == [
        "http.response.start",
        "http.response.body",
    ]
    assert talk.sent[-1]["more_body"] and SECRET not in caplog.text


def test_api_errors_of_the_application() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ApiError(429, "Later.", kind="rate_limit_error", headers={"Retry-After": "3"})

    talk = Talk([b"{}"], [JSON, length(2)]).through(shield(app))
    assert (talk.status, talk.answer[b"retry-after"]) == (429, b"3")


def test_what_is_cancelled_when_draining_takes_too_long_is_told_so() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    talk = Talk([b"{}"], [JSON, length(2)]).through(shield(app))
    assert (talk.status, talk.answer[b"retry-after"]) == (503, b"5")
    assert talk.error["code"] == "unavailable"


def test_headers_on_every_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"Cache-Control", b"max-age=60"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    for guard, body in ((shield(app), b"{}"), (shield(breaks), b"{}"), (shield(), b"[" * 9)):
        answer = Talk([body], [JSON, length(len(body))]).through(guard).answer
        names = {name.lower() for name in answer}
        assert set(HEADERS) <= names
    talk = Talk([b"{}"], [JSON, length(2)]).through(shield(app))
    assert [v for k, v in talk.sent[0]["headers"] if k.lower() == b"cache-control"] == [
        b"max-age=60"
    ]


def test_lifespan_passes_and_websockets_do_not() -> None:
    reached = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    for kind in ("lifespan", "websocket"):
        asyncio.run(shield(app)({"type": kind, "headers": []}, None, None))  # type: ignore[arg-type]
    assert reached == ["lifespan"]


def test_after_the_body_a_disconnect_is_heard() -> None:
    heard = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.extend([await receive(), await receive()])

    Talk([b"{}", None], [JSON, length(2)], ends=1).through(shield(app))
    assert [one["type"] for one in heard] == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("numbers", [(0, 1.0, 1), (1, 0.0, 1), (1, 1.0, 0)])
def test_limits_below_one(numbers: tuple[int, float, int]) -> None:
    with pytest.raises(DataError, match="must be above 0"):
        RequestGuard(echo, *numbers)


def test_nothing_of_a_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="router")
    for body in (json.dumps(SECRET).encode(), b"[" * 9 + SECRET.encode()):
        Talk([body], [JSON, length(len(body))]).through(shield())
        Talk([body], [JSON, length(len(body))]).through(shield(breaks))
    assert SECRET not in caplog.text
