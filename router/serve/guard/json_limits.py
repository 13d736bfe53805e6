"""How deep and how many: a look at JSON text before anything parses it.

A parser that meets 100 000 brackets runs out of stack or time, and one that meets ten million
empty lists out of memory: 20 MB of ``[],`` become half a gigabyte. Both are seen in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BLOCK = 1 << 18  # bytes looked at together, so that memory stays flat
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
    if b"\\" in text:
        # In a string backslashes pair up from the left, so what is left of a run is one or none.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    inside, level, deepest, marks = 0, 0, 0, 0
    for start in range(0, len(text), _BLOCK):
        block = np.frombuffer(text, np.uint8, min(_BLOCK, len(text) - start), start)
        quotes = np.cumsum(block == _QUOTE) + inside
        outside = quotes % 2 == 0
        lower = block | 0x20  # [ and { differ in this bit only, as do ] and }
        opens = (lower == ord("{")) & outside
        closes = (lower == ord("}")) & outside
        levels = np.cumsum(opens.astype(np.int32) - closes.astype(np.int32)) + level
        deepest = max(deepest, int(levels.max()))
        marks += int(opens.sum()) + int(((block == _COMMA) & outside).sum())
        inside, level = int(quotes[-1]) % 2, int(levels[-1])
    return Shape(deepest, marks)


def too_deep(text: bytes, max_depth: int, max_marks: int) -> bool:
    """Whether a JSON text is deeper, or has more values, than is let in.

    Most texts are told apart by counting alone: images in base64 have no brackets or commas.
    """
    opens = text.count(b"[") + text.count(b"{")
    if opens <= max_depth and opens + text.count(b",") <= max_marks:
        return False
    shape = shape_of(text)
    return shape.depth > max_depth or shape.marks > max_marks
