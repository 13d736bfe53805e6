"""Files that are a picture and something else at once.

Nothing here runs or serves what it is sent, but what keeps pictures (traffic for training, a
demo's folder) hands them on to programs that may see the other thing. What cannot be seen: data
hidden in pixels, in colour profiles or in text fields, as long as no program would open the file
for it.
"""

from __future__ import annotations

import re
import struct

from router.serve.endings import end_of

_PADDING = b"\0\r\n"
"""What may follow a picture: cameras fill up blocks with zeros, and text tools end lines."""
_SNIFFED = 1024  # bytes in which browsers and PDF readers look for what a file is
_ZIP_END = 22 + 65_535  # bytes from the end in which unpackers look for a ZIP's directory

_PAGE = re.compile(rb"<(?:html|head|body|iframe|svg|!doctype)[\s>]|%PDF-", re.I)
_ANYWHERE = re.compile(rb"<script[\s>]|<!doctype html|<html[\s>]|<\?php\s", re.I)
_SCRIPT = re.compile(rb"(?:GIF8[79]a|BM|RIFF|\xff\xd8\xff[\xe0-\xef])(?:/[*/]|=[\"'`/(\[{])")
"""A picture's first bytes are a name to JavaScript; a length that reads ``/*`` or ``="`` makes
the rest a comment or a text (Heyes, "Bypassing CSP using polyglot JPEGs", 2016)."""


def other_nature(name: str, data: bytes) -> str:
    """What a picture is besides a picture.

    Args:
        name: Its format, of ``router.serve.endings.FORMATS``.
        data: All bytes.

    Returns:
        Words such as "it is also a ZIP archive"; "" for nothing.

    Raises:
        EndingError: If the picture has no end.
    """
    if _is_zip(data):
        return "it is also a ZIP archive"
    if _PAGE.search(data, 0, _SNIFFED) or _ANYWHERE.search(data):
        return "it is also a page or document"
    if _SCRIPT.match(data):
        return "it is also a script"
    behind = len(data[end_of(name, data) :].strip(_PADDING))
    return f"{behind} bytes stand behind its end" if behind else ""


def _is_zip(data: bytes) -> bool:
    """Whether an unpacker finds a directory of files, as it does from a file's end backwards."""
    start = max(0, len(data) - _ZIP_END)
    at = data.rfind(b"PK\x05\x06", start)
    for _ in range(16):
        if at < 0:
            return False
        if at + 22 <= len(data):
            size, offset = struct.unpack_from("<II", data, at + 12)
            directories = (at - size, offset)
            if 0xFFFFFFFF in (size, offset) or any(
                data.startswith(b"PK\x01\x02", place) for place in directories if place >= 0
            ):
                return True
        at = data.rfind(b"PK\x05\x06", start, at)
    return True
