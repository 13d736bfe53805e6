"""Clients that mean harm, each a few bytes and a loop; for any server behind the guard.

`python -m tests.serve.attacks NAME` reads a target as JSON from standard input, says "begun" when
all its connections are at work, and stops when its standard input ends. In a process of their own
they do not share a lock with who measures. They connect to this machine only.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONNECTIONS = 12
SECONDS = 30.0
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

    def head(self, *lines: str, key: bool = True, method: str = "POST") -> bytes:
        """A request's line and headers."""
        told = [f"{method} {self.path} HTTP/1.1", "Host: localhost", *lines]
        told += ["Content-Type: application/json"]
        told += [f"Authorization: Bearer {self.key}"] if key else []
        return "\r\n".join(told).encode() + b"\r\n\r\n"

    def post(self, body: bytes) -> bytes:
        """A whole request."""
        return self.head(f"Content-Length: {len(body)}") + body

    def question(self, **more: object) -> bytes:
        """The body of an ordinary request about a small image."""
        parts = [
            {"type": "image_url", "image_url": {"url": _image()}},
            {"type": "text", "text": "What is it?"},
        ]
        return json.dumps(
            {"model": self.model, "messages": [{"role": "user", "content": parts}], **more}
        ).encode()


Attack = Callable[[Target], Iterator[bytes]]
"""What one connection sends, piece by piece; the server may close it at any time."""

CHUNKED = "Transfer-Encoding: chunked"
PIECES = 40_000


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


def pipelined(target: Target) -> Iterator[bytes]:
    yield b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000


def unknown_fields(target: Target) -> Iterator[bytes]:
    fields = {f"field{number}": number for number in range(19_900)}
    while True:
        yield target.post(json.dumps(fields).encode())


def brackets(target: Target) -> Iterator[bytes]:
    while True:
        yield target.post(json.dumps({"model": "[" * 4_000_000}).encode())


def fresh_budgets(target: Target) -> Iterator[bytes]:
    while True:
        yield target.post(target.question(budget=random.uniform(1, 576)))


def without_a_key(target: Target) -> Iterator[bytes]:
    body = target.question()
    yield target.head(f"Content-Length: {len(body)}", key=False) + body


def nothing(target: Target) -> Iterator[bytes]:
    yield b""


ATTACKS: dict[str, Attack] = {
    one.__name__: one
    for one in (
        chunks_without_a_key,
        chunks,
        a_body_byte_by_byte,
        headers_byte_by_byte,
        long_headers,
        many_headers,
        a_long_line,
        trailers,
        long_numbers,
        pipelined,
        unknown_fields,
        brackets,
        fresh_budgets,
        without_a_key,
        nothing,
    )
}
"""By name."""


REPEATED = (unknown_fields, brackets, fresh_budgets)
"""Whose every piece is a request that is answered."""


@contextlib.contextmanager
def attacking(name: str, target: Target) -> Iterator[None]:
    """Let an attack go on in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.serve.attacks", name],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(asdict(target)) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "begun\n"
        yield
        assert process.poll() is None, "it ended too early"
    finally:
        process.kill()
        process.communicate()


def main(name: str) -> None:
    """Attack until somebody stops it."""
    target = Target(**json.loads(sys.stdin.readline()))
    begun = threading.Barrier(CONNECTIONS + 1)
    until = time.monotonic() + SECONDS
    for _ in range(CONNECTIONS):
        threading.Thread(
            target=_one, args=(ATTACKS[name], target, begun, until), daemon=True
        ).start()
    begun.wait()
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    sys.stdin.read()


def _one(attack: Attack, target: Target, begun: threading.Barrier, until: float) -> None:
    """One connection after the other; each reads what is answered, and begins anew at its end."""
    told = False
    while time.monotonic() < until:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", target.port)) as way,
        ):
            way.settimeout(2)
            way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in attack(target):
                way.sendall(piece)
                if len(piece) == 1:
                    time.sleep(0.001)
                if not told:
                    told = True
                    begun.wait()
                if attack in REPEATED:
                    way.recv(1 << 16)
            while way.recv(1 << 16):
                pass


@cache
def _image() -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    main(sys.argv[1])
