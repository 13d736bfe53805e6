"""A PNG reduced to what its pixels need.

Pillow refuses a PNG as a whole when a text or colour profile in it is larger than its limits or
damaged, though neither has a part in the pixels. Chunks are those of PNG (W3C REC, 3rd edition).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_UPRIGHT = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")
"""Keywords of texts that may tell which side is up."""
_LONGEST_TEXT = 1 << 19  # bytes, half of what Pillow allows; compressed texts are measured


def only_pixels(file: BinaryIO) -> io.BytesIO | None:
    """Copy a PNG without what its pixels do not need.

    Args:
        file: From its first byte on.

    Returns:
        The image data, palette, transparency and orientation; None for what is not a PNG.
    """
    file.seek(0)
    if file.read(len(SIGNATURE)) != SIGNATURE:
        return None
    kept = io.BytesIO()
    kept.write(SIGNATURE)
    for kind, length, start in chunks(file):
        if kind not in _PIXELS and kind != b"eXIf" and kind not in _TEXTS:
            continue
        if kind not in _PIXELS and length > _LONGEST_TEXT:
            continue
        file.seek(start)
        chunk = file.read(length + 12)
        if kind in _PIXELS or _tells_orientation(kind, chunk):
            kept.write(chunk)
    kept.seek(0)
    return kept


def significant_bits(file: BinaryIO) -> int | None:
    """Bits of a sample that mean something, as an ``sBIT`` chunk tells; None where none does.

    Args:
        file: From its first byte on.
    """
    file.seek(0)
    if file.read(len(SIGNATURE)) != SIGNATURE:
        return None
    for kind, length, start in chunks(file):
        if kind == b"sBIT" and 1 <= length <= 4:
            file.seek(start + 8)
            colours = 3 if length > 2 else 1  # the last of 2 or 4 is of the alpha channel
            return max(file.read(length)[:colours], default=None)
        if kind in (b"IDAT", b"IEND"):
            break
    return None


def exif_of(file: BinaryIO) -> bytes:
    """What an ``eXIf`` chunk holds; empty where there is none.

    Args:
        file: From its first byte on, a PNG.
    """
    for kind, length, start in chunks(file):
        if kind == b"eXIf":
            file.seek(start + 8)
            return file.read(length)
    return b""


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, length of the body and place of each chunk, as far as the file goes.

    A length is no longer than the file, whatever the chunk says.
    """
    file.seek(0, 2)
    size, start = file.tell(), len(SIGNATURE)
    while True:
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, min(length, size), start
        if kind == b"IEND":
            return
        start += 12 + length


def _tells_orientation(kind: bytes, chunk: bytes) -> bool:
    """Whether a whole and undamaged chunk may hold an orientation, and is not larger inside."""
    body = chunk[8:-4]
    if chunk[-4:] != struct.pack(">I", zlib.crc32(kind + body)):
        return False
    if kind == b"eXIf":
        return True
    keyword = next((word for word in _UPRIGHT if body.startswith(word)), None)
    if keyword is None:
        return False
    if kind == b"iTXt":
        return body[len(keyword) : len(keyword) + 1] == b"\0"  # not compressed
    if kind == b"zTXt":
        packed = zlib.decompressobj()
        try:
            packed.decompress(body[len(keyword) + 1 :], _LONGEST_TEXT)
        except zlib.error:
            return False
        return not packed.unconsumed_tail
    return True
