"""What an image's bytes are, and whether they are made to keep a decoder busy.

TIFF and JPEG 2000, which the command line reads, are left out: both have large decoders in C that
OpenAI's interface does not need either. What follows an image (a phone's motion photo, a maker's
trailer) is not looked at: the server passes on the decoded pixels and nothing else.

Sources: PNG (W3C REC, 5), JPEG (ITU-T T.81, B.1), GIF89a (sections 18 to 26), Netpbm (ppm(5)).
"""

from __future__ import annotations

import re

MAX_SCANS = 100
"""Of a JPEG, which a decoder goes through the whole image for. Encoders write about ten."""
MAX_PARTS = 200_000
"""Chunks of a PNG or segments of a JPEG; Pillow walks them in Python."""
MAX_GIF_BLOCKS = 5_000
"""Before a GIF's first frame: comments, at most 255 bytes a block. Pillow's time for a comment
grows with the square of its length."""

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END, _SCAN, _ALONE = 0xD9, 0xDA, 0x01
_GAP = rb"(?:\s|#[^\n]{0,1000}\n){1,100}"
_PNM_HEAD = re.compile(
    rb"P(?:[14]" + 2 * (_GAP + rb"\d{1,9}") + rb"|[2356]" + 3 * (_GAP + rb"\d{1,9}") + rb")", re.A
)

SIGNATURES = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.S),
    "BMP": re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.S),
    "PPM": re.compile(rb"P[1-6][\s#]"),
    "AVIF": re.compile(rb"....ftyp(?:....){0,60}?(?:avif|avis)", re.S),
}

FORMATS = tuple(SIGNATURES)
"""What is taken from strangers, by the names of ``m3router.data.images.FORMATS``."""


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
    check = {"PNG": _png, "JPEG": _jpeg, "GIF": _gif, "PPM": _pnm}.get(name)
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
    palette = 3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0
    at, inside = 13 + palette, False
    for _ in range(MAX_GIF_BLOCKS):
        if at >= len(data):
            return ""  # the decoder says what is missing
        if inside:  # an extension's blocks, each with its length, up to an empty one
            inside = data[at] > 0
            at += 1 + data[at]
        elif data[at] == 0x21:
            at, inside = at + 2, True
        else:
            return ""
    return "it has too many blocks before its first frame"


def _pnm(data: bytes) -> str:
    """Pillow's time for a comment among pixels grows with the square of their number."""
    head = _PNM_HEAD.match(data)
    if head is None:
        return "its header is damaged"
    if data[1:2] in b"123" and data.find(b"#", head.end()) >= 0:
        return "it has comments among its pixels"
    return ""
