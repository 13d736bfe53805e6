"""What a picture's bytes are, and where the picture ends.

A file can be two things at once: a picture for one program, an archive or a page for another. The
usual way is to put the second thing behind the first's end, which decoders never look at. Each
rule here walks one format's own lengths, without decoding anything, and says where it ends.

Sources: PNG (W3C REC, 5), JPEG (ITU-T T.81, B.1; CIPA DC-007 for several pictures in a file),
GIF89a (sections 18 to 27), BMP (``BITMAPV5HEADER``), WebP (RFC 9649, 2.3), Netpbm (ppm(5)), AVIF
(ISO 14496-12, 4.2). TIFF and JPEG 2000 are left out: a TIFF's parts may lie anywhere, so nobody
can say where it ends, and both have large decoders in C that OpenAI's interface needs not either.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

MAX_PARTS = 200_000
"""Chunks, segments, blocks or tags that are walked in one picture."""
MAX_SCANS = 100
"""Of a JPEG, which a decoder goes through the whole picture for. Encoders write about ten."""

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_GAP = rb"(?:\s|#[^\n]{0,1000}\n){1,100}"
_PNM_HEAD = re.compile(rb"P([1-6])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})", re.A)
_PNM_DEPTH = re.compile(_GAP + rb"(\d{1,5})\s", re.A)
_PNM_DIGITS = re.compile(rb"[\s\d]*", re.A)


class EndingError(Exception):
    """The picture has no end where it should; the message says why, beginning with "it"."""


def format_of(data: bytes) -> str:
    """Which format the first bytes say, one of :data:`FORMATS`; "" for none."""
    for name, signature in _SIGNATURES.items():
        if signature.match(data):
            return name
    return ""


def end_of(name: str, data: bytes) -> int:
    """Where the picture ends.

    Args:
        name: As :func:`format_of` says.
        data: All bytes, the picture at their beginning.

    Returns:
        The number of bytes that belong to it, at most ``len(data)``.

    Raises:
        EndingError: If it has no end of its own within the bytes, or is made of too many parts.
    """
    try:
        end = _ENDS[name](data)
    except (struct.error, IndexError, OverflowError) as error:
        raise EndingError("it is truncated") from error
    if end > len(data):
        raise EndingError("it is truncated")
    return end


def _png(data: bytes) -> int:
    at = 8
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND":
            return at
    raise EndingError("it has too many chunks")


def _jpeg(data: bytes) -> int:
    """NOTE: further whole JPEGs right behind belong to it (previews, gain maps of phones)."""
    end = _one_jpeg(data, 0)
    for _ in range(16):
        if data[end : end + 3] != b"\xff\xd8\xff":
            break
        end = _one_jpeg(data, end)
    return end


def _one_jpeg(data: bytes, start: int) -> int:
    at, scans = start + 2, 0
    for _ in range(MAX_PARTS):
        # Between segments any marker may be next; after a scan the next that ends it.
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            raise EndingError("it is truncated")
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:
            return at
        if marker == 0x01:
            continue
        scans += marker == 0xDA
        if scans > MAX_SCANS:
            raise EndingError(f"it has more than {MAX_SCANS} scans")
        (length,) = struct.unpack_from(">H", data, at)
        at += length
    raise EndingError("it has too many segments")


def _gif(data: bytes) -> int:
    at = 13 + _gif_palette(data[10])
    for _ in range(MAX_PARTS):
        if at == len(data):
            return at  # NOTE: some writers leave the trailer out
        kind = data[at]
        if kind == 0x3B:
            return at + 1
        if kind == 0x21:
            at = _gif_blocks(data, at + 2)
        elif kind == 0x2C:
            at = _gif_blocks(data, at + 11 + _gif_palette(data[at + 9]))
        else:
            raise EndingError("it is damaged between two of its frames")
    raise EndingError("it has too many frames")


def _gif_palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_blocks(data: bytes, at: int) -> int:
    for _ in range(MAX_PARTS):
        length = data[at]
        at += 1 + length
        if length == 0:
            return at
    raise EndingError("it has too many blocks")


def _bmp(data: bytes) -> int:
    offset, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packed, stored = 0, 0
    else:
        width, height, _, bits, packed, stored = struct.unpack_from("<iiHHII", data, 18)
    if offset - 14 - header > 4 * 256 + 16:
        raise EndingError("it has a gap before its pixels")
    end = offset + (stored if packed in (1, 2) else (width * bits + 31) // 32 * 4 * abs(height))
    if header >= 124:
        place, length = struct.unpack_from("<II", data, 14 + 112)
        end = max(end, 14 + place + length if length else 0)
    return end


def _webp(data: bytes) -> int:
    (length,) = struct.unpack_from("<I", data, 4)
    return 8 + length + length % 2 if 8 + length < len(data) else 8 + length


def _pnm(data: bytes) -> int:
    head = _PNM_HEAD.match(data)
    if head is None:
        raise EndingError("its header is damaged")
    kind, width, height = (int(text) for text in head.groups())
    if kind in (1, 4):
        at, deep = head.end() + 1, 0
    else:
        depth = _PNM_DEPTH.match(data, head.end())
        if depth is None:
            raise EndingError("its header is damaged")
        at, deep = depth.end(), int(depth.group(1))
    if kind <= 3:
        found = _PNM_DIGITS.match(data, at)
        return found.end() if found else at
    row = (width + 7) // 8 if kind == 4 else width * (3 if kind == 6 else 1) * (1 + (deep > 255))
    return at + row * height


def _avif(data: bytes) -> int:
    """NOTE: a last box may say that it reaches to the end of the file, whatever that holds."""
    at = 0
    for _ in range(MAX_PARTS):
        if at == len(data):
            return at
        length, kind = struct.unpack_from(">I4s", data.ljust(at + 8, b"\0"), at)
        if kind not in _AVIF_BOXES:
            return at
        if length == 0:
            return len(data)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
        at += max(length, 8)
    raise EndingError("it has too many boxes")


_AVIF_BOXES = {b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip", b"uuid"}

_SIGNATURES = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.S),
    "BMP": re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.S),
    "PPM": re.compile(rb"P[1-6][\s#]"),
    "AVIF": re.compile(rb"....ftyp(?:....){0,60}?(?:avif|avis)", re.S),
}

_ENDS: dict[str, Callable[[bytes], int]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "GIF": _gif,
    "WEBP": _webp,
    "BMP": _bmp,
    "PPM": _pnm,
    "AVIF": _avif,
}

FORMATS = tuple(_ENDS)
"""What is taken from strangers, by the names of ``data.images.FORMATS``."""
