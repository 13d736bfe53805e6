"""The size of an image whose header is plain, without a process that decodes.

Few bytes are looked at, none of them by a decoder: a PNG's chunks, or a JPEG's segments before its
pixels, of the kinds that writers write, and none that could turn the image. Of all else nothing is
said here, and a process must be asked.

Sources: PNG (W3C REC, 5 and 11.2), JPEG (ITU-T T.81, B.1 and B.2).
"""

from __future__ import annotations

import re
import zlib

from m3router.router.serve.images.image_formats import MAX_SCANS

LONGEST = 1 << 20
"""Bytes of a file that is looked at here; longer ones take a decoder's time anyway."""
PARTS = 200
"""Chunks or segments that are walked through."""

_CHUNKS = {b"gAMA": 4, b"sRGB": 1, b"pHYs": 9, b"cHRM": 32}
"""Lengths of chunks that say nothing of a size and do not turn an image."""
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_FRAMES = (0xC0, 0xC1, 0xC2)
_TABLES = (0xC4, 0xDB, 0xDD, 0xE0, 0xEE, 0xFE)
"""Huffman and quantization tables, restarts, JFIF, Adobe's mark and comments."""
_SCAN = 0xDA


def plain_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG or JPEG that cannot be turned; None for not known.

    >>> plain_size(b"GIF89a")
    """
    if len(data) > LONGEST:
        return None
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    return _jpeg(data) if data.startswith(b"\xff\xd8\xff") else None


def _png(data: bytes) -> tuple[int, int] | None:
    at, size, pixels = 8, None, False
    for number in range(PARTS):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data) or (kind == b"IHDR") != (number == 0):
            return None
        if kind == b"IDAT":
            pixels = True
        elif zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return None
        elif kind == b"IHDR":
            size = _png_size(data[at + 8 : end - 4])
        elif kind == b"IEND":
            return size if pixels and not length else None
        elif _CHUNKS.get(kind) != length and kind not in (b"PLTE", b"tRNS"):
            return None
        at = end
    return None


def _png_size(header: bytes) -> tuple[int, int] | None:
    if len(header) != 13 or header[8] not in _DEPTHS.get(header[9], ()):
        return None
    if header[10:12] != b"\0\0" or header[12] > 1:
        return None
    return _positive(int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big"))


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at, size = 2, None
    for _ in range(PARTS):
        marker, length = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        if len(marker) < 2 or marker[0] != 0xFF or length < 2 or end > len(data):
            return None
        if marker[1] == _SCAN:
            whole = data.rfind(b"\xff\xd9", end) > 0 and data.count(b"\xff\xda") <= MAX_SCANS
            return size if whole else None
        if marker[1] in _FRAMES:
            if size is not None:
                return None
            size = _jpeg_size(data[at + 4 : end])
        elif marker[1] not in _TABLES and not re.match(
            b"\xff\xe2..ICC_PROFILE\0", data[at:end], re.S
        ):
            return None
        at = end
    return None


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    if (
        len(frame) < 6
        or frame[0] != 8
        or frame[5] not in (1, 3, 4)
        or len(frame) != 6 + 3 * frame[5]
    ):
        return None
    return _positive(int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big"))


def _positive(width: int, height: int) -> tuple[int, int] | None:
    return (width, height) if width and height else None
