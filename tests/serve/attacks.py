"""Clients that mean harm, each a few bytes and a loop; for any server behind the guard.

`python -m tests.serve.attacks NAME` reads a target as JSON from standard input and then, line by
line, what to do: "attack", "alike" (as often as the attack and by as many connections, but as
anybody would) or "rest". It answers each line once its connections are at it. In a process of their
own attackers share no lock with who measures, and their rate is bounded: what is seen is what the
server does to others, not what a processor does that everybody shares. They connect to this machine
only.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120.0
"""After which an attack ends by itself, whatever becomes of who began it."""


@dataclass(frozen=True)
class Target:
    """A server under attack.

    Attributes:
        port: Of this machine.
        key: An API key that is valid.
        path: Of requests with a body.
        model: That is asked for.
    """

    port: int
    key: str
    path: str = "/v1/chat/completions"
    model: str = "m3-auto"

    def head(
        self, *lines: str, key: bool = True, method: str = "POST", path: str | None = None
    ) -> bytes:
        """A request's line and headers."""
        told = [f"{method} {path or self.path} HTTP/1.1", "Host: localhost", *lines]
        told += ["Content-Type: application/json"]
        told += [f"Authorization: Bearer {self.key}"] if key else []
        return "\r\n".join(told).encode() + b"\r\n\r\n"

    def post(self, body: bytes, **more: str) -> bytes:
        """A whole request."""
        return self.head(f"Content-Length: {len(body)}", **more) + body

    def question(self, image: bytes | None = None, **more: object) -> bytes:
        """The body of an ordinary request, about a small image where no other is given."""
        url = "data:image/png;base64," + base64.b64encode(image or picture(0)).decode()
        parts = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": "What is it?"},
        ]
        body = {"model": self.model, "max_tokens": 4, **more}
        return json.dumps({**body, "messages": [{"role": "user", "content": parts}]}).encode()


Sends = Callable[[Target], Iterator[bytes]]
"""What one connection sends, piece by piece; the server may close it at any time."""


@dataclass(frozen=True)
class Attack:
    """Something that many connections do.

    Attributes:
        sends: What each sends.
        rate: Pieces a second, of all of them together; what goes on byte by byte has a rate of
            its own, of 500 bytes a second on each.
        alike: What is as much work for the server, but well meant.
        connections: How many.
        answered: Whether each piece is a whole request whose answer is waited for.
    """

    sends: Sends
    rate: float = 60.0
    alike: Sends | None = None
    connections: int = 12
    answered: bool = False


CHUNKED = "Transfer-Encoding: chunked"
PIECES = 40_000
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def healths(target: Target) -> Iterator[bytes]:
    yield from itertools.repeat(HEALTH)


def questions(target: Target) -> Iterator[bytes]:
    while True:
        yield target.post(target.question(picture(random.randrange(8))))


def chunks_without_a_key(target: Target) -> Iterator[bytes]:
    yield target.head(CHUNKED, key=False) + b"1\r\n \r\n" * PIECES


def chunks(target: Target) -> Iterator[bytes]:
    yield target.head(CHUNKED) + b"1\r\n \r\n" * PIECES


def a_body_byte_by_byte(target: Target) -> Iterator[bytes]:
    yield target.head("Content-Length: 1000000")
    yield from itertools.repeat(b" ", PIECES)


def headers_byte_by_byte(target: Target) -> Iterator[bytes]:
    yield b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "
    yield from itertools.repeat(b"a", PIECES)


def long_headers(target: Target) -> Iterator[bytes]:
    yield target.head("X: " + "a" * 120_000, key=False)


def many_headers(target: Target) -> Iterator[bytes]:
    yield target.head(*["a:"] * 30_000, key=False)


def a_long_line(target: Target) -> Iterator[bytes]:
    yield b"GET /" + b"%41" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"


def trailers(target: Target) -> Iterator[bytes]:
    yield target.head(CHUNKED) + b"1\r\n \r\n0\r\n" + b"a:\r\n" * 30_000 + b"\r\n"


def long_numbers(target: Target) -> Iterator[bytes]:
    yield target.head("Content-Length: " + "9" * 5000, key=False)


def two_lengths(target: Target) -> Iterator[bytes]:
    yield target.head("Content-Length: 2", CHUNKED) + b"0\r\n\r\n" + HEALTH


def pipelined(target: Target) -> Iterator[bytes]:
    yield HEALTH * 2000


def unknown_fields(target: Target) -> Iterator[bytes]:
    fields = {f"field{number}": number for number in range(19_900)}
    body = json.dumps(fields).encode()
    yield from itertools.repeat(target.post(body))


def unknown_fields_inside(target: Target) -> Iterator[bytes]:
    fields = {f"field{number}": number for number in range(19_900)}
    body = json.dumps({"model": target.model, "messages": [{"role": "user", **fields}]}).encode()
    yield from itertools.repeat(target.post(body))


def brackets(target: Target) -> Iterator[bytes]:
    yield from itertools.repeat(target.post(b'{"model": ' + b"[" * 4_000_000))


def brackets_in_a_string(target: Target) -> Iterator[bytes]:
    yield from itertools.repeat(target.post(json.dumps({"model": "[" * 4_000_000}).encode()))


def empty_lists(target: Target) -> Iterator[bytes]:
    yield from itertools.repeat(target.post(b'{"model": [' + b"[]," * 1_000_000 + b"0]}"))


def long_bodies(target: Target) -> Iterator[bytes]:
    """As long as the model server takes them: one string of 14 MB."""
    yield from itertools.repeat(target.post(json.dumps({"model": "a" * 14_000_000}).encode()))


def fresh_budgets(target: Target) -> Iterator[bytes]:
    routed = target.model.startswith("m3router/")
    while True:
        budget = random.uniform(1, 576)
        more: dict[str, object] = {"m3router": {"budget": budget}} if routed else {"budget": budget}
        yield target.post(target.question(picture(random.randrange(8)), **more))


def without_a_key(target: Target) -> Iterator[bytes]:
    body = target.question()
    yield target.head(f"Content-Length: {len(body)}", key=False) + body


def nothing(target: Target) -> Iterator[bytes]:
    yield b""


def feedback(target: Target) -> Iterator[bytes]:
    for number in itertools.count():
        body = json.dumps({"id": f"chatcmpl-{number}", "right": True}).encode()
        yield target.post(body, path="/v1/feedback")


def descriptions(target: Target) -> Iterator[bytes]:
    yield from itertools.repeat(HEALTH.replace(b"/health", b"/openapi.json"))


def bombs(target: Target) -> Iterator[bytes]:
    """Few bytes each, that claim or become much."""
    wide = _png(24_999_999, 1)
    bmp = b"BM" + bytes(16) + struct.pack("<ii", 25_000_000, 1) + b"\1\0\x08\0\1\0\0\0" + bytes(90)
    told = [wide, bmp, b"P6 5000 5000 254\n" + bytes(1000), wide[:-20], _png(60_000, 60_000, 9)]
    posts = [target.post(target.question(one)) for one in told]
    yield from itertools.cycle(posts)


def large_images(target: Target) -> Iterator[bytes]:
    """Valid ones, of some 30 KB and 25 million pixels."""
    yield from itertools.repeat(target.post(target.question(_png(5_000, 5_000))))


ATTACKS: dict[str, Attack] = {
    one.sends.__name__: one
    for one in (
        Attack(questions, rate=4, answered=True),
        Attack(chunks_without_a_key),
        Attack(chunks),
        Attack(a_body_byte_by_byte),
        Attack(headers_byte_by_byte),
        Attack(long_headers),
        Attack(many_headers),
        Attack(a_long_line),
        Attack(trailers),
        Attack(long_numbers),
        Attack(two_lengths),
        Attack(pipelined),
        Attack(unknown_fields, rate=10, answered=True),
        Attack(unknown_fields_inside, rate=10, answered=True),
        Attack(brackets, rate=5, answered=True),
        Attack(brackets_in_a_string, rate=5, answered=True),
        Attack(empty_lists, rate=5, answered=True),
        Attack(long_bodies, rate=2, answered=True),
        Attack(fresh_budgets, rate=4, alike=questions, answered=True),
        Attack(without_a_key),
        Attack(nothing, connections=600, rate=600),
        Attack(healths, rate=1000, answered=True),
        Attack(descriptions, rate=30, answered=True),
        Attack(feedback, rate=60, answered=True),
        Attack(bombs, rate=4, alike=questions, answered=True),
        Attack(large_images, rate=2, alike=questions, answered=True, connections=24),
    )
}
"""By name. The first is none: it says what the measurement itself is worth."""


class Attackers:
    """An attack's process, as whoever measures has it in hand.

    Args:
        name: Of the attack.
        target: Whom it is for.
    """

    def __init__(self, name: str, target: Target) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.attacks", name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell(json.dumps(asdict(target)))

    def do(self, what: str) -> None:
        """Go over to "attack", "alike" or "rest"."""
        self._tell(what)

    def _tell(self, line: str) -> None:
        told, heard = self._process.stdin, self._process.stdout
        assert told is not None and heard is not None
        told.write(line + "\n")
        told.flush()
        assert heard.readline() == "done\n"

    def __enter__(self) -> Attackers:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class _Crowd:
    """Connections that do the same, until they are told to stop."""

    def __init__(self, attack: Attack, target: Target, sends: Sends) -> None:
        self.sends = sends
        self.target = target
        self.rate = attack.rate
        self.answered = attack.answered or sends is not attack.sends
        self.over = threading.Event()
        self.begun = threading.Event()
        self._next = time.monotonic()
        self._lock = threading.Lock()
        self.ways: set[socket.socket] = set()
        count = attack.connections if sends is attack.sends else 12
        for _ in range(count):
            threading.Thread(target=self._one, daemon=True).start()
        self.begun.wait(5)

    def stop(self) -> None:
        self.over.set()
        for way in list(self.ways):
            with contextlib.suppress(OSError):
                way.shutdown(socket.SHUT_RDWR)

    def _turn(self) -> None:
        """Wait for a turn, so that all together keep to the rate."""
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next + 1 / self.rate, now - 0.1)
            wait = self._next - now
        if wait > 0:
            self.over.wait(wait)

    def _one(self) -> None:
        """One connection after the other, each until it ends."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and not self.over.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.target.port)) as way,
            ):
                self.ways.add(way)
                try:
                    self._sends(way)
                finally:
                    self.ways.discard(way)

    def _sends(self, way: socket.socket) -> None:
        way.settimeout(20)
        way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        heard: IO[bytes] = way.makefile("rb")
        for piece in self.sends(self.target):
            if len(piece) == 1:
                time.sleep(0.002)
            else:
                self._turn()
            if self.over.is_set():
                return
            with contextlib.suppress(ConnectionError):  # refused before its end
                way.sendall(piece)
            self.begun.set()
            if self.answered and not _answer(heard):
                return
        while way.recv(1 << 16):
            pass


def answered(port: int, piece: bytes) -> int:
    """Send something on a connection of its own; the status of what is answered, 0 for nothing."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=60) as way,
    ):
        with contextlib.suppress(ConnectionError):  # refused before its end
            way.sendall(piece)
        heard = way.makefile("rb")
        first = heard.readline().split()
        if first:
            _answer(heard, first=False)
            return int(first[1])
    return 0


def sent_once(name: str, target: Target) -> int:
    """One piece of an attack; as :func:`answered`."""
    return answered(target.port, next(ATTACKS[name].sends(target)))


def _answer(heard: IO[bytes], first: bool = True) -> bool:
    """Read an answer; whether another may follow on the connection."""
    length, stays = 0, True
    if first and not heard.readline():
        return False
    while line := heard.readline().strip().lower():
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
        stays = stays and line != b"connection: close"
    heard.read(length)
    return stays


def main(name: str) -> None:
    """Do what is told until nothing more is."""
    attack, crowd = ATTACKS[name], None
    target = Target(**json.loads(sys.stdin.readline()))
    for sends in (attack.sends, attack.alike or healths):
        next(iter(sends(target)))  # what it needs is made before anything is measured
    _done()
    for line in sys.stdin:
        if crowd is not None:
            crowd.stop()
        crowd = None
        if line.strip() != "rest":
            bad = line.strip() == "attack"
            crowd = _Crowd(attack, target, attack.sends if bad else attack.alike or healths)
        _done()


def _done() -> None:
    sys.stdout.write("done\n")
    sys.stdout.flush()


@cache
def picture(number: int) -> bytes:
    """A small image of an ordinary request."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 48), (30 * number, 200, 255 - 30 * number)).save(file, "PNG")
    return file.getvalue()


@cache
def _png(width: int, height: int, pixels: int | None = None) -> bytes:
    """A grey image, with all of its pixels or fewer than its header says."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = bytes((width + 1) * height if pixels is None else pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in parts)


if __name__ == "__main__":
    main(sys.argv[1])
