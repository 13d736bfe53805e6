"""What an image's bytes claim to hold against what there is, before a decoder believes it.

Pillow reads what each tag of a TIFF or of EXIF names for itself: thousands of tags that all name
the same megabyte become gigabytes. Its decoder of BMP's run lengths fills up as many rows as two
bytes say. What is refused here nobody writes.

Sources: TIFF 6.0, section 2; EXIF (CIPA DC-008) and several images in a JPEG (CIPA DC-007); WebP
(RFC 9649); BMP (MS-WMF 2.2.2).
"""

from __future__ import annotations

import io
import itertools
import re
import struct
from typing import BinaryIO, Literal

_TIFF_HEADS: dict[bytes, Literal["little", "big"]] = {
    b"II*\0": "little",
    b"MM\0*": "big",
    b"II+\0": "little",
    b"MM\0+": "big",
}
_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
"""Of a tag's values, by the number of their type."""
_SHARED = 4
"""Times that a file's bytes may be named by tags; some do share theirs."""
_SMALL = 1 << 20  # bytes that may be claimed by anything
_WIDEST_RUN_LENGTHS = 1 << 15
_MOST_SEGMENTS = 10_000
_MOST_EMBEDDED = 20
_EMBEDDED = re.compile(rb"II[*+]\0|MM\0[*+]")


def claims_too_much(file: BinaryIO) -> str:
    """Why an image must not be opened, beginning with "it"; "" where it may.

    Args:
        file: Read from its first byte on.
    """
    file.seek(0)
    head = file.read(64)
    if head[:4] in _TIFF_HEADS:
        return tags_claim_too_much(file)
    if head[:3] == b"\xff\xd8\xff":
        return _jpeg(file)
    if head[4:8] == b"ftyp":
        file.seek(0)
        data = file.read()
        found = itertools.islice(_EMBEDDED.finditer(data), _MOST_EMBEDDED)
        problems = (tags_claim_too_much(io.BytesIO(data[one.start() :])) for one in found)
        return next(filter(None, problems), "")
    if head[:2] == b"BM" and len(head) >= 34:
        width, compression = int.from_bytes(head[18:22], "little"), head[30]
        if compression in (1, 2) and head[14] >= 40 and width > _WIDEST_RUN_LENGTHS:
            return "its rows are longer than run lengths are used for"
    return ""


def canvas_of(file: BinaryIO) -> tuple[int, int]:
    """Width and height of a WebP's canvas, for which memory is taken as soon as it is opened.

    Returns:
        (0, 0) for what is no WebP with a canvas.
    """
    file.seek(0)
    head = file.read(30)
    if head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X" or len(head) < 30:
        return 0, 0
    width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    return width, height


def tags_claim_too_much(file: BinaryIO) -> str:
    """The same for a TIFF, or for the tags of EXIF alone."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    order = _TIFF_HEADS.get(head[:4])
    if order is None:
        return ""
    big = b"+" in head[2:4]
    entry = struct.Struct(("<" if order == "little" else ">") + ("HHQQ" if big else "HHII"))
    at = int.from_bytes(head[8:16] if big else head[4:8], order)
    if at >= size:
        return ""
    file.seek(at)
    count = int.from_bytes(file.read(8 if big else 2), order)
    data = file.read(min(count * entry.size, size))
    claimed = 0
    for start in range(0, len(data) - entry.size + 1, entry.size):
        _, kind, values, place = entry.unpack_from(data, start)
        length = values * (_TYPE_BYTES[kind] if kind < len(_TYPE_BYTES) else 0)
        if place + length <= size:  # what is not there is not read
            claimed += length
    most = _SHARED * size + _SMALL
    return "its tags claim more than the file has" if claimed > most else ""


def _jpeg(file: BinaryIO) -> str:
    """EXIF, whose segments Pillow joins, and the tags of several images."""
    exif, at = [], 2
    for _ in range(_MOST_SEGMENTS):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xDA, 0xD9):
            break
        length = int.from_bytes(head[2:], "big")
        if head[1] in (0xE1, 0xE2):
            segment = file.read(max(0, length - 2))
            if segment.startswith(b"Exif\0\0"):
                exif.append(segment[6:])
            elif segment.startswith(b"MPF\0"):
                problem = tags_claim_too_much(io.BytesIO(segment[4:]))
                if problem:
                    return problem
        at += 2 + length
    return tags_claim_too_much(io.BytesIO(b"".join(exif)))
