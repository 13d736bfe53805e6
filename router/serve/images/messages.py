"""Messages between the server and the processes that decode: a line of JSON, then plain bytes."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

_LENGTHS = struct.Struct(">IQ")
LONGEST_HEAD = 1 << 14

Pipe = IO[bytes]


def send(file: Pipe, head: dict[str, Any], *payload: bytes | memoryview) -> None:
    """Write a message.

    Args:
        file: A pipe.
        head: Anything that JSON holds, at most :data:`LONGEST_HEAD` bytes of it.
        payload: Bytes behind it.
    """
    text = json.dumps(head).encode()
    file.write(_LENGTHS.pack(len(text), sum(len(one) for one in payload)) + text)
    for one in payload:
        file.write(one)
    file.flush()


def receive(file: Pipe) -> tuple[dict[str, Any], int]:
    """Read a message's head.

    Returns:
        The head, and how many bytes follow it.

    Raises:
        EOFError: If the pipe ended.
        ValueError: If this is no message.
    """
    head, length = _LENGTHS.unpack(exactly(file, _LENGTHS.size))
    if head > LONGEST_HEAD:
        raise ValueError("a message's head is too long")
    found = json.loads(exactly(file, head))
    if not isinstance(found, dict):
        raise ValueError("a message's head is no object")
    return found, length


def exactly(file: Pipe, count: int) -> bytes:
    """Read so many bytes.

    Raises:
        EOFError: If the pipe ended before.
    """
    found = file.read(count)
    if len(found) < count:
        raise EOFError
    return found
