"""A request's line and headers, judged before anything parses them.

h11 asks for the size only of what is not whole yet, so that 120 KB of headers in one piece pass its
limit, and it parses header by header in Python. Here both are counted first, at memory's speed.
"""

from __future__ import annotations

import re

from m3router.router.serve.errors import ApiError

HEAD_BYTES = 32 << 10
"""Of a request's line and headers."""
LINE_BYTES = 8 << 10
"""Of the request's line alone."""
HEADERS_MOST = 100
"""Header lines."""

_BLANK_LINE = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"^content-length:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_ENCODING = re.compile(rb"^transfer-encoding:", re.IGNORECASE | re.MULTILINE)
_LONGEST_LENGTH = 18  # digits; Python takes time, and from 4300 on offence, at longer numbers


def end_of_head(buffer: bytearray, looked: int) -> int | None:
    """Where a head ends.

    Args:
        buffer: What came of it, perhaps with more behind.
        looked: Bytes that were looked at before, and had no end.

    Returns:
        The number of its bytes; None where its end has still to come. What cannot begin a request
        is a head as it is, for the parser to refuse.

    Raises:
        ApiError: 431 or 414 if it is too long; what has still to come included.
    """
    if buffer[:1] and buffer[0] <= 0x20:
        return min(len(buffer), LINE_BYTES)
    found = _BLANK_LINE.search(buffer, max(0, looked - 2), HEAD_BYTES)
    line = buffer.find(b"\n", 0, LINE_BYTES)
    if line < 0 and len(buffer) >= LINE_BYTES:
        raise ApiError(
            414, f"The request's line is longer than {LINE_BYTES} bytes.", code="uri_too_long"
        )
    lines = buffer.count(b"\n", 0, found.end() if found else HEAD_BYTES)
    if lines > HEADERS_MOST + 2 or (found is None and len(buffer) >= HEAD_BYTES):
        raise ApiError(
            431,
            f"A request may have {HEADERS_MOST} headers, and {HEAD_BYTES} bytes of them.",
            code="headers_too_large",
        )
    return found.end() if found else None


def check_framing(head: bytes) -> None:
    """Refuse a head from which two readers could tell different ends of the body.

    Args:
        head: Whole. What is no header to the parser is refused by the parser.

    Raises:
        ApiError: 400 if it has a length beside Transfer-Encoding, the latter in HTTP/1.0, or a
            length that is no plain number.
    """
    lengths = _LENGTH.findall(head)
    encoded = _ENCODING.search(head) is not None
    if encoded and lengths:
        raise ApiError(
            400,
            "Content-Length and Transfer-Encoding must not come together.",
            code="invalid_framing",
        )
    if encoded and head[: head.find(b"\n")].rstrip().endswith(b"HTTP/1.0"):
        raise ApiError(400, "HTTP/1.0 has no Transfer-Encoding.", code="invalid_framing")
    for length in lengths:
        plain = length.rstrip(b" \t")
        if not plain.isdigit() or len(plain) > _LONGEST_LENGTH:
            raise ApiError(400, "Content-Length must be a number.", code="invalid_content_length")
