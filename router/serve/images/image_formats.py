"""What an image's bytes are, and whether they are made to keep a decoder busy.

Of the formats that the command line reads those are left out that decode in Python, or in C in time
that a few bytes can make very long (BMP's run lengths, Netpbm, JPEG 2000). What follows an image (a
phone's motion photo, a maker's trailer) is not looked at: the server passes on the decoded pixels
and nothing else.

Sources: PNG (W3C REC, 5), JPEG (ITU-T T.81, B.1), GIF89a (sections 18 to 26), TIFF 6.0 (section 2).
"""

from __future__ import annotations

import math
import re
from typing import Literal

MAX_SCANS = 100
"""Of a JPEG, which a decoder goes through the whole image for. Encoders write about ten."""
MAX_PARTS = 200_000
"""Chunks of a PNG or segments of a JPEG; Pillow walks them in Python."""
MAX_GIF_BLOCKS = 5_000
"""Before a GIF's first frame: comments, at most 255 bytes a block. Pillow's time for a comment
grows with the square of its length."""

MAX_STRIPS = 50_000
"""Of a TIFF, each of which Pillow sets a decoder up for."""
MAX_TAGS = 1_000
"""Of a TIFF, each of which Pillow reads for itself."""
PLAIN_TIFF = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits"}
"""Compressions of a TIFF that are taken; the others have decoders that few files need."""

_COMPRESSION, _STRIPS, _TILES = 259, 273, 324
_GIF_NEXT = re.compile(rb"[!,;]")
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END, _SCAN, _ALONE = 0xD9, 0xDA, 0x01
_HEAD = 1 << 20
"""Bytes in which a size is looked for."""
_USUAL_SCANS = 10
_JPEG_HEADERS = 200
_JPEG_SIZE = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]...(..)(..)", re.S)
_SIZES: dict[str, tuple[re.Pattern[bytes], Literal["big", "little"]]] = {
    "PNG": (re.compile(rb"^\x89PNG.{12}(....)(....)", re.S), "big"),
    "GIF": (re.compile(rb"^GIF8.{2}(..)(..)", re.S), "little"),
    "WEBP": (re.compile(rb"^RIFF.{4}WEBPVP8 .{10}(..)(..)", re.S), "little"),
    "AVIF": (re.compile(rb"ispe....(....)(....)", re.S), "big"),
}

SIGNATURES = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.S),
    "GIF": re.compile(rb"GIF8[79]a"),
    "TIFF": re.compile(rb"II\*\0|MM\0\*"),
    "AVIF": re.compile(rb"....ftyp(?:....){0,60}?(?:avif|avis)", re.S),
}

FORMATS = tuple(SIGNATURES)
"""What is taken from strangers, by the names of ``m3router.data.images.FORMATS``, where this build
of Pillow has it."""


def format_of(data: bytes) -> str:
    """Which format the first bytes say, one of :data:`FORMATS`; "" for none."""
    for name, signature in SIGNATURES.items():
        if signature.match(data):
            return name
    return ""


def problem_of(name: str, data: bytes) -> str:
    """Why an image must not be decoded, beginning with "it"; "" where it may.

    Its parts are counted without decoding any of them.

    Args:
        name: As :func:`format_of` says.
        data: All bytes.

    >>> problem_of("JPEG", bytes.fromhex("ffd8ffe0"))
    'it is truncated'
    """
    check = {"PNG": _png, "JPEG": _jpeg, "GIF": _gif, "TIFF": _tiff}.get(name)
    return check(data) if check else ""


def _png(data: bytes) -> str:
    at = 8
    for _ in range(MAX_PARTS):
        if at + 8 > len(data) or data[at + 4 : at + 8] == b"IEND":
            return ""
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return "it has too many chunks"


def _jpeg(data: bytes) -> str:
    """A few kilobytes can hold thousands of scans, each as long to decode as a whole image."""
    at, scans = 2, 0
    for _ in range(MAX_PARTS):
        # Between segments any marker may be next; after a scan the next that ends it.
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            return "it is truncated"
        marker, at = data[found.end() - 1], found.end()
        if marker == _END:
            return ""
        if marker == _ALONE:
            continue
        scans += marker == _SCAN
        if scans > MAX_SCANS:
            return f"it has more than {MAX_SCANS} scans"
        if at + 2 > len(data):
            return "it is truncated"
        at += int.from_bytes(data[at : at + 2], "big")
    return "it has too many segments"


def _gif(data: bytes) -> str:
    """Count blocks as Pillow walks them, which is not always as they are meant."""
    at = 13 + (3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    blocks = 0

    def block() -> bytes:
        nonlocal at, blocks
        size = data[at] if at < len(data) else 0
        found, at, blocks = data[at + 1 : at + 1 + size], at + 1 + size, blocks + 1
        return found

    while blocks <= MAX_GIF_BLOCKS:
        found = _GIF_NEXT.search(data, at)  # what is before it is passed over
        if found is None or found[0] != b"!":
            return ""
        label, at = data[found.end() : found.end() + 1], found.end() + 1
        first = block()
        if label == b"\xff" and first.startswith(b"NETSCAPE2.0"):
            block()
        if label == b"\xfe" and not first:
            continue
        while blocks <= MAX_GIF_BLOCKS and block():
            pass
    return "it has too many blocks before its first frame"


def _tiff(data: bytes) -> str:
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    start = number(4, 4)
    if number(start, 2) > MAX_TAGS:
        return f"it has more than {MAX_TAGS} tags"
    for at in range(start + 2, start + 2 + 12 * number(start, 2), 12):
        tag, kind, count = number(at, 2), number(at + 2, 2), number(at + 4, 4)
        if tag == _COMPRESSION and number(at + 8, 2 if kind == 3 else 4) not in PLAIN_TIFF:
            known = ", ".join(dict.fromkeys(PLAIN_TIFF.values()))
            return f"it is a TIFF whose compression is not taken ({known} are): send it as PNG"
        if tag in (_STRIPS, _TILES) and count > MAX_STRIPS:
            return f"it has more than {MAX_STRIPS} strips"
    return ""


def weight_of(name: str, data: bytes) -> float:
    """About how many pixels a decoder goes through, as the header has them; inf for not known.

    NOTE: it only decides who waits for whom; what is refused, and when it takes too long, does
    not depend on it.

    >>> weight_of("GIF", b"GIF89a" + bytes([16, 0, 8, 0]))
    128.0
    """
    if name == "JPEG":
        scans = data.count(b"\xff\xda", 0, _HEAD)
        return _area(_jpeg_size(data), "big") * max(1.0, scans / _USUAL_SCANS)
    if name == "WEBP" and data[12:16] == b"VP8X":
        wide, high = (int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        return float((wide + 1) * (high + 1))
    if name == "WEBP" and data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return float(((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1))
    if name not in _SIZES:
        return math.inf
    place, order = _SIZES[name]
    found = place.finditer(data, 0, _HEAD)
    return max((_area(one, order) for one in found), default=math.inf)


def _jpeg_size(data: bytes) -> re.Match[bytes] | None:
    at = 2
    for _ in range(_JPEG_HEADERS):
        found = _JPEG_MARKER.search(data, at, _HEAD)
        if found is None or data[found.end() - 1] == _SCAN:
            return None
        size = _JPEG_SIZE.match(data, found.start())
        if size is not None:
            return size
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return None


def _area(found: re.Match[bytes] | None, order: Literal["big", "little"]) -> float:
    if found is None:
        return math.inf
    return float(int.from_bytes(found[1], order) * int.from_bytes(found[2], order))
