"""How deep and how many: a look at JSON text before anything parses it.

A parser that meets 100 000 brackets runs out of stack or time, and one that meets ten million
empty lists out of memory: 20 MB of ``[],`` become half a gigabyte. Both are seen in one pass, which
stops where it has seen enough and can be interrupted for others.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np

_BLOCK = 1 << 16  # bytes looked at together: half a millisecond, and memory stays flat
_COUNTED = 1 << 20  # bytes in which marks are only counted: a millisecond
_QUOTE, _COMMA = ord('"'), ord(",")


@dataclass(frozen=True)
class Shape:
    """Of a JSON text.

    Attributes:
        depth: Lists and objects within each other, at most; a bare value has 0.
        marks: Brackets that open, and commas: at least the number of values less one.
    """

    depth: int
    marks: int


@dataclass
class _Meter:
    """A shape that grows with the blocks of a text."""

    shape: Shape = field(default_factory=lambda: Shape(0, 0))
    _inside: int = 0  # a string: 1
    _level: int = 0
    _kept: bytes = b""  # a backslash whose fellow is in the next block

    def add(self, block: bytes) -> None:
        """Take the next bytes in."""
        text = self._kept + block
        self._kept = b""
        if b"\\" in text:
            if (len(text) - len(text.rstrip(b"\\"))) % 2:
                text, self._kept = text[:-1], b"\\"
            # In a string backslashes pair up from the left: of a run one is left, or none.
            text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        if not text:
            return
        bytes_ = np.frombuffer(text, np.uint8)
        quotes = np.cumsum(bytes_ == _QUOTE) + self._inside
        outside = quotes % 2 == 0
        lower = bytes_ | 0x20  # [ and { differ in this bit only, as do ] and }
        opens = (lower == ord("{")) & outside
        closes = (lower == ord("}")) & outside
        levels = np.cumsum(opens.astype(np.int32) - closes.astype(np.int32)) + self._level
        marks = int(opens.sum()) + int(((bytes_ == _COMMA) & outside).sum())
        self.shape = Shape(max(self.shape.depth, int(levels.max())), self.shape.marks + marks)
        self._inside, self._level = int(quotes[-1]) % 2, int(levels[-1])


def shape_of(text: bytes) -> Shape:
    r"""Measure a JSON text in one pass, with strings and their escapes understood.

    Where the text is not valid JSON, neither number is below what a parser meets before it finds
    out.

    Args:
        text: UTF-8 or ASCII without zero bytes; in UTF-16 quotes and brackets look different.

    Returns:
        Its shape.

    >>> shape_of(b'{"a": [1, "[[[ \\" ]"]}')
    Shape(depth=2, marks=3)
    """
    meter = _Meter()
    for start in range(0, len(text), _BLOCK):
        meter.add(text[start : start + _BLOCK])
    return meter.shape


def looking(text: bytes, max_depth: int, max_marks: int) -> Generator[None, None, bool]:
    """Find out whether a JSON text is deeper, or has more values, than is let in.

    Most texts are told apart by counting alone: images in base64 have no brackets or commas.

    Yields:
        After each millisecond of work, about.

    Returns:
        Whether it is.
    """
    opens = commas = 0
    for start in range(0, len(text), _COUNTED):
        end = start + _COUNTED
        opens += text.count(b"[", start, end) + text.count(b"{", start, end)
        commas += text.count(b",", start, end)
        if end < len(text):
            yield
    if opens <= max_depth and opens + commas <= max_marks:
        return False
    meter = _Meter()
    for start in range(0, len(text), _BLOCK):
        if start:
            yield
        meter.add(text[start : start + _BLOCK])
        if meter.shape.depth > max_depth or meter.shape.marks > max_marks:
            return True
    return False


def too_deep(text: bytes, max_depth: int, max_marks: int) -> bool:
    """What :func:`looking` finds out, without a pause."""
    look = looking(text, max_depth, max_marks)
    while True:
        try:
            next(look)
        except StopIteration as end:
            return bool(end.value)
