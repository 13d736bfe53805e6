"""From bytes to a request: what one read may cost, and what is refused unparsed."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.router.serve.errors import ApiError
from m3router.router.serve.guard.chunked_body import CHUNK_BYTES, FREE_CHUNKS, ChunkedBody
from m3router.router.serve.guard.request_guard import RequestGuard
from tests.serve.test_running import HEAD, Site, all_of, running, talk

BOTH = HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def site() -> Site:
    return Site()


@pytest.fixture(scope="module")
def port(site: Site) -> Iterator[int]:
    with running(RequestGuard(site, 1 << 20, 0.5, 16)) as found:
        yield found


def answer_to(port: int, sent: bytes) -> tuple[int, Any]:
    with talk(port) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        answer = all_of(connection)
    assert b"connection: close" in answer.lower() and b"nosniff" in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (BOTH + b"\r\n2\r\n{}\r\n0\r\n\r\n", 400, "invalid_framing"),
        (HEAD + b"transfer-encoding:chunked\r\ncontent-length:2\r\n\r\n{}", 400, "invalid_framing"),
        (CHUNKED.replace(b"1.1", b"1.0") + b"2\r\n{}\r\n0\r\n\r\n", 400, "invalid_framing"),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400, "invalid_content_length"),
        (HEAD + b"Content-Length: 2_0\r\n\r\n{}", 400, "invalid_content_length"),
        (HEAD + b"X: " + b"a" * 120_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (HEAD + b"a:\r\n" * 101 + b"\r\n", 431, "headers_too_large"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
        (CHUNKED + b"1\r\n \r\n" * 2000 + b"0\r\n\r\n", 400, "chunks_too_small"),
        (CHUNKED + b"2\r\n{}\r\n0\r\nX: y\r\n\r\n", 400, "invalid_chunks"),
        (CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", 400, "invalid_chunks"),
        (CHUNKED + b"2\n{}\r\n0\r\n\r\n", 400, "invalid_chunks"),
        (CHUNKED + b"2;" + b"a" * 400 + b"\r\n{}\r\n0\r\n\r\n", 400, "invalid_chunks"),
        (b"\x16\x03\x01 hello\r\n\r\n", 400, "invalid_http"),
        (b"what is this\r\n\r\n", 400, "invalid_http"),
    ],
)  # fmt: skip
def test_refused_before_it_is_parsed(
    port: int, site: Site, sent: bytes, status: int, code: str
) -> None:
    site.reached.clear()
    assert answer_to(port, sent) == (status, code)
    assert site.reached == []


def test_a_hundred_headers_are_taken(port: int) -> None:
    with talk(port) as connection:
        connection.sendall(
            HEAD + b"a: b\r\n" * 96 + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
        )
        assert all_of(connection).startswith(b"HTTP/1.1 200")


def test_of_a_strangers_body_nothing_is_parsed() -> None:
    """What follows the headers is no chunked body at all, and the answer is still 401."""

    def nobody(scope: Any) -> None:
        raise ApiError(401, "Who are you?", code="invalid_api_key")

    with running(RequestGuard(Site(), 1 << 20, 0.5, 16, admit=nobody)) as port:
        assert answer_to(port, CHUNKED + b"nonsense\r\n" * 10_000) == (401, "invalid_api_key")


def test_requests_in_one_piece_are_answered_in_turn(port: int) -> None:
    posts = [HEAD + b"Content-Length: 3\r\n\r\n[%d]" % number for number in range(8)]
    last = HEAD + b"Connection: close\r\n" + b"Content-Length: 3\r\n\r\n[8]"
    with talk(port) as connection:
        connection.sendall(b"".join([*posts, last]))
        answer = all_of(connection)
    places = [answer.find(b"[%d]" % number) for number in range(9)]
    assert min(places) > 0 and places == sorted(places)


def test_a_body_byte_by_byte_is_read_whole(port: int) -> None:
    body = b"[" + b" " * 60 + b"1]"
    with talk(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        for at in range(len(body)):
            connection.sendall(body[at : at + 1])
            time.sleep(0.002)
        assert all_of(connection).endswith(body)


def test_one_read_of_whatever_is_cheap() -> None:
    """Processor time for 240 KB of the worst, where h11 alone takes 60 to 300 ms."""
    body = ChunkedBody()
    began = time.process_time()
    with pytest.raises(ApiError, match="too small chunks"):
        body.take(bytearray(b"1\r\n \r\n" * 40_000))
    assert time.process_time() - began < 0.02


pieces = st.lists(st.binary(min_size=1, max_size=40), max_size=12)


@given(pieces=pieces, cuts=st.lists(st.integers(0, 400), max_size=8), extra=st.binary(max_size=20))
def test_chunks_are_read_as_h11_reads_them(
    pieces: list[bytes], cuts: list[int], extra: bytes
) -> None:
    sent = b"".join(b"%X;a=b\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"
    body, buffer, found = ChunkedBody(), bytearray(), b""
    edges = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    for start, end in zip(edges, edges[1:], strict=False):
        buffer += sent[start:end]
        found += body.take(buffer)
    assert body.done and found == b"".join(pieces) and not buffer
    buffer += extra
    assert body.take(buffer) == b"" and buffer == extra, "what follows is another's"


@given(text=st.text(alphabet="0123aF;\r\n x", max_size=40))
def test_what_is_taken_h11_takes_too(text: str) -> None:
    """Never laxer than h11: a body that ends here ends there, with the same bytes."""
    body, found = ChunkedBody(), b""
    buffer = bytearray(text.encode())
    try:
        found = body.take(buffer)
    except ApiError:
        return
    if not body.done:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(CHUNKED + text.encode()[: len(text) - len(buffer)])
    events = []
    while not events or type(events[-1]) is not h11.EndOfMessage:
        events.append(other.next_event())
    assert found == b"".join(bytes(one.data) for one in events if type(one) is h11.Data)


def test_ordinary_chunks_are_taken() -> None:
    body = ChunkedBody()
    sent = bytearray(b"%x\r\n%b\r\n" % (CHUNK_BYTES, b"a" * CHUNK_BYTES) * (FREE_CHUNKS * 4))
    assert len(body.take(sent)) == CHUNK_BYTES * FREE_CHUNKS * 4
