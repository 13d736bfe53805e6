"""Clients in a process of their own: each asks, waits for its answer and asks again.

HTTP is spoken by hand, on one connection for each client: httpx takes as long for a request as the
gateway does, and shares a core with it where there are only two.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 60.0
"""Seconds after which an answer counts as lost."""
QUESTION = "Which word is written here?"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """How questions are asked.

    Attributes:
        model: Name that is asked.
        shares: Option to its share of the requests; empty where the server chooses.
        bodies: Option to the fields that it is asked with.
    """

    model: str
    shares: dict[str, float]
    bodies: dict[str, dict]


@dataclass(frozen=True, kw_only=True)
class Level:
    """Load of one strength on one server.

    Attributes:
        port: Of the server, on this machine.
        ask: How.
        clients: How many ask at a time.
        warm: Seconds before anything is measured.
        seconds: That are measured.
        fresh: Whether no image comes twice: each file gets a number behind its end.
        streamed: Share of the requests that are.
        seed: Of what is asked.
    """

    port: int
    ask: Ask
    clients: int
    warm: float
    seconds: float
    fresh: bool
    streamed: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Record:
    """What became of one request; times are seconds since the level began.

    Attributes:
        began: When it was sent.
        first: When the answer's first byte came.
        ended: When it was whole.
        option: The gateway's; "" of the upstream alone.
        reason: Why, its first word.
        problem: Why there is no whole answer; "" where there is one.
    """

    began: float
    first: float
    ended: float
    option: str = ""
    reason: str = ""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Driven:
    """A level that was driven.

    Attributes:
        records: Of all requests.
        cpu: Seconds of processor time that the clients took.
        wall: Seconds that it took.
    """

    records: list[Record]
    cpu: float
    wall: float


_files: list[bytes] = []
"""PNG files; filled by :func:`learn`, in the process of the clients alone."""


def learn(folder: Path) -> None:
    """Read all images once, before anything is measured."""
    _files[:] = [path.read_bytes() for path in sorted(folder.glob("*.png"))]


def requests(level: Level) -> Iterator[bytes]:
    """Whole requests, without end, in an order that the seed draws."""
    draw = random.Random(level.seed)
    ends = ["", *level.ask.shares]
    whole = {
        (name, streamed): _parts(level, name, streamed) for name in ends for streamed in (0, 1)
    }
    images = [_padded(one) for one in _files]
    names, weights = list(level.ask.shares), list(level.ask.shares.values())
    number = draw.randrange(1 << 20)
    while True:
        number = (number + 1) % (1 << 24)
        option = draw.choices(names, weights)[0] if names else ""
        before, after = whole[option, draw.random() < level.streamed]
        image = images[draw.randrange(len(images))]
        mark = base64.b64encode(number.to_bytes(3, "big")) if level.fresh else b""
        length = len(before) + len(image) + len(mark) + len(after)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{level.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        yield b"".join((head.encode(), before, image, mark, after))


def _parts(level: Level, option: str, streamed: int) -> tuple[bytes, bytes]:
    """A body's bytes before and behind its image."""
    content = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,<>"}},
    ]
    body = {
        "model": level.ask.model,
        "messages": [{"role": "user", "content": content}],
        **level.ask.bodies.get(option, {}),
        **({"stream": True, "stream_options": {"include_usage": True}} if streamed else {}),
    }
    before, _, after = json.dumps(body).encode().partition(b"<>")
    return before, after


def _padded(file: bytes) -> bytes:
    """In base64, so that three more bytes behind the file's end are four letters behind it."""
    return base64.b64encode(file + bytes(-len(file) % 3))


def drive(level: Level) -> Driven:
    """Drive one level to its end; :func:`learn` comes first."""
    return asyncio.run(_drive(level))


async def _drive(level: Level) -> Driven:
    asked, records = requests(level), list[Record]()
    cpu, began = time.process_time(), time.perf_counter()

    async def client() -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while (at := time.perf_counter() - began) < level.warm + level.seconds:
            request, first, problem, headers = next(asked), at, "", dict[str, str]()
            try:
                async with asyncio.timeout(PATIENCE):
                    if connection is None:
                        connection = await asyncio.open_connection("127.0.0.1", level.port)
                    connection[1].write(request)
                    status, headers = await _head(connection[0])
                    body, first = await _body(connection[0], headers)
                first -= began
                if status != 200 or b'"finish_reason"' not in body:
                    problem = f"{status}: {body[:200].decode(errors='replace')}"
            except (OSError, EOFError, ValueError, LookupError) as error:
                problem = f"{type(error).__name__}: {error}"
            if connection is not None and (problem or headers.get("connection") == "close"):
                connection[1].close()
                connection = None
            option = headers.get("x-m3router-option", "")
            reason = headers.get("x-m3router-reason", "").partition(":")[0]
            ended = time.perf_counter() - began
            records.append(Record(at, first, ended, option, reason, problem))
        if connection is not None:
            connection[1].close()
            with contextlib.suppress(OSError):
                await connection[1].wait_closed()

    await asyncio.gather(*(client() for _ in range(level.clients)))
    wall = time.perf_counter() - began
    return Driven(records=records, cpu=time.process_time() - cpu, wall=wall)


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers, these in small letters."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> tuple[bytes, float]:
    """A body, and when its first byte was here."""
    if "content-length" in headers:
        length = int(headers["content-length"])
        start = await reader.readexactly(min(1, length))
        first = time.perf_counter()
        return start + await reader.readexactly(length - len(start)), first
    if headers.get("transfer-encoding") != "chunked":
        raise ValueError("a body without a length")
    pieces, first = list[bytes](), 0.0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        first = first or time.perf_counter()
        pieces.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return b"".join(pieces), first


def shares(records: Sequence[Record]) -> dict[str, float]:
    """Option to its share of whole answers."""
    named = [one.option for one in records if not one.problem and one.option]
    return {name: named.count(name) / len(named) for name in sorted(set(named))}
