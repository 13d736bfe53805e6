"""Bodies in chunks (RFC 9112, 7.1), taken apart strictly and in bounded time.

h11 makes an event of every chunk, about ten times the work of what is done here, and parses
trailers of any number. Whoever cuts a body into single bytes would keep it busy.
"""

from __future__ import annotations

import re

from m3router.router.serve.errors import ApiError

FREE_CHUNKS = 256
"""Chunks of any size that a body may have."""
CHUNK_BYTES = 512
"""Each further one must bring so much, on average over the body."""

_SIZE_BYTES = 300  # of a chunk's size and its extension
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class ChunkedBody:
    """One body.

    Attributes:
        done: Whether its end has come.
    """

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # bytes of the chunk that have still to come
        self._ends = False  # what comes next ends a chunk's bytes
        self._last = False  # it was the last one, of no bytes
        self._chunks = 0
        self._bytes = 0

    def take(self, buffer: bytearray) -> bytes:
        """Take what is there.

        Args:
            buffer: What came; what belongs to the body is removed, but for a part that tells
                nothing yet.

        Returns:
            The bytes of the body in it.

        Raises:
            ApiError: 400 if it is not such a body, has trailers, or comes in too small chunks.
        """
        pieces, at = [], 0
        while not self.done:
            if self._left:
                piece = bytes(buffer[at : at + self._left])
                if not piece:
                    break
                pieces.append(piece)
                at += len(piece)
                self._bytes += len(piece)
                self._left -= len(piece)
                self._ends = not self._left
            elif self._ends or self._last:
                end = bytes(buffer[at : at + 2])
                if end != b"\r\n"[: len(end)]:
                    raise _wrong("has something behind a chunk, or trailers")
                if len(end) < 2:
                    break
                at += 2
                self._ends, self.done = False, self._last
            else:
                end_of_line = buffer.find(b"\n", at, at + _SIZE_BYTES) + 1
                if not end_of_line:
                    if len(buffer) - at >= _SIZE_BYTES:
                        raise _wrong("has a chunk without a size")
                    break
                self._begin(buffer, at, end_of_line)
                at = end_of_line
        del buffer[:at]
        return b"".join(pieces)

    def _begin(self, buffer: bytearray, start: int, end: int) -> None:
        size = _SIZE.fullmatch(buffer, start, end)
        if size is None:
            raise _wrong("has a chunk without a size")
        self._left = int(size.group(1), 16)
        self._last = not self._left
        self._chunks += 1
        if self._chunks > FREE_CHUNKS + self._bytes // CHUNK_BYTES:
            raise ApiError(
                400,
                f"The body comes in too small chunks: send {CHUNK_BYTES} bytes or more in each, or "
                "a Content-Length.",
                code="chunks_too_small",
            )


def _wrong(what: str) -> ApiError:
    return ApiError(400, f"The chunked body {what}.", code="invalid_chunks")
