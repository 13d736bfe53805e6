"""Whether a video's file is cut short, by the sizes that its own parts state.

A header's duration does not tell: it may include a last frame that is held, an empty edit or
another track. The outer parts of the usual containers say how many bytes follow.

Sources: ISO 14496-12, 4.2 (MP4, MOV), RFC 8794 and 9559 (EBML, Matroska, WebM), AVI (RIFF).
"""

from __future__ import annotations

import os
import struct
from enum import Enum
from typing import BinaryIO

MAX_PARTS = 1_000_000
"""Parts that are walked in one file."""

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = 0x18538067
_UNKNOWN_LENGTHS = frozenset((1 << 7 * width) - 1 for width in range(1, 9))
_SLACK = 16  # bytes: some writers count a header twice


class End(Enum):
    """What a file says of its own end.

    Attributes:
        WHOLE: All bytes that its parts state are there.
        CUT: Some are not.
        UNKNOWN: It states none.
    """

    WHOLE = "whole"
    CUT = "cut"
    UNKNOWN = "unknown"


def end_of(file: BinaryIO) -> End:
    """Whether a file holds as many bytes as its parts state.

    Args:
        file: The video; its place is moved.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == _EBML:
        return _matroska(file, size)
    if head[:4] == b"RIFF" and head[8:] == b"AVI ":
        return _avi(head, size)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return _boxes(file, size)
    return End.UNKNOWN


def _boxes(file: BinaryIO, size: int) -> End:
    """The boxes of an MP4; one in fragments (``moof``) may still lack whole ones at its end."""
    at, fragments = 0, False
    for _ in range(MAX_PARTS):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            break
        length, kind = struct.unpack_from(">I4s", head)
        fragments = fragments or kind == b"moof"
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack_from(">Q", head, 8)
        if length == 0:
            break  # it reaches to the end, wherever that is
        at += max(length, 8)
        if at > size:
            return End.CUT
    return End.UNKNOWN if fragments else End.WHOLE


def _matroska(file: BinaryIO, size: int) -> End:
    at = 0
    for _ in range(16):  # the header, then the segment; perhaps something void between
        file.seek(at)
        head = file.read(12)
        try:
            name, width = _number(head, 0, keep_marker=True)
            length, used = _number(head, width)
        except (IndexError, ValueError):
            return End.UNKNOWN
        if name == _SEGMENT:
            if length in _UNKNOWN_LENGTHS and length == (1 << 7 * used) - 1:
                return End.UNKNOWN
            return End.CUT if at + width + used + length > size else End.WHOLE
        at += width + used + length
    return End.UNKNOWN


def _number(data: bytes, at: int, *, keep_marker: bool = False) -> tuple[int, int]:
    """A number of EBML's variable width, and that width."""
    width = 9 - data[at].bit_length()
    if width > 8 or at + width > len(data):
        raise ValueError("no number")
    value = int.from_bytes(data[at : at + width], "big")
    return (value if keep_marker else value & ((1 << 7 * width) - 1)), width


def _avi(head: bytes, size: int) -> End:
    """NOTE: larger ones have further ``RIFF`` parts, which are not looked at."""
    (length,) = struct.unpack_from("<I", head, 4)
    if length in (0, 0xFFFFFFFF):
        return End.UNKNOWN
    return End.CUT if 8 + length > size + _SLACK else End.WHOLE
