"""Images with titles and captions, laid out on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HEIGHT = 384
"""Pixels of a panel's image from top to bottom."""
WIDEST = 2100
"""Pixels that a sheet is wide at most, unless a single panel is wider."""

_MARGIN, _GAP, _LINE = 24, 20, 1.35
_TITLE, _TEXT, _HEADING = 21, 18, 26
_INK, _PALE, _PAPER = (25, 28, 33), (96, 102, 112), (255, 255, 255)
_MOST_LINES = 8
_BESIDE = 300  # pixels that the heading needs to stand beside an image


@dataclass(frozen=True, kw_only=True)
class Panel:
    """An image with words above and below.

    Attributes:
        image: RGB, :data:`HEIGHT` pixels high.
        title: Above it, in bold.
        note: Below the title, pale; may be empty.
        text: Below the image, wrapped; may be empty.
        foot: Below the text, pale; may be empty.
    """

    image: Image.Image
    title: str
    note: str = ""
    text: str = ""
    foot: str = ""


def sheet(
    heading: str, note: str, panels: Sequence[Panel], *, image: Image.Image | None = None
) -> Image.Image:
    """Lay panels out side by side, in rows of about equal length.

    Args:
        heading: In large letters on top, wrapped.
        note: Below it, pale and wrapped.
        panels: At least one.
        image: What all panels are about, RGB; on top, with the heading beside it or below.

    Returns:
        The sheet, RGB.
    """
    about = (0, 0) if image is None else image.size
    cell = max(about[0], *(panel.image.width for panel in panels))
    room = max(1, (WIDEST - 2 * _MARGIN + _GAP) // (cell + _GAP))
    columns = math.ceil(len(panels) / math.ceil(len(panels) / room))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    width = 2 * _MARGIN + columns * (cell + _GAP) - _GAP
    inside = width - 2 * _MARGIN
    aside = about[0] + _GAP if image is not None and inside - about[0] - _GAP >= _BESIDE else 0
    fits = inside - aside
    top = [*_block(heading, _HEADING, fits, bold=True), *_block(note, _TEXT, fits, ink=_PALE)]
    below = 0 if aside or image is None else about[1] + _GAP
    opening = max(about[1] if aside else 0, below + _height(top)) + _GAP
    heads = [[_head(panel, cell) for panel in row] for row in rows]
    feet = [[_foot(panel, cell) for panel in row] for row in rows]
    tall = [
        max(map(_height, head)) + HEIGHT + _GAP // 2 + max(map(_height, foot)) + _GAP
        for head, foot in zip(heads, feet, strict=True)
    ]
    page = Image.new("RGB", (width, 2 * _MARGIN + opening + sum(tall)), _PAPER)
    draw = ImageDraw.Draw(page)
    if image is not None:
        page.paste(image, (_MARGIN, _MARGIN))
    _write(draw, top, _MARGIN + aside, _MARGIN + below)
    y = _MARGIN + opening
    for row, head, foot, height in zip(rows, heads, feet, tall, strict=True):
        middle = y + max(map(_height, head))
        for place, panel in enumerate(row):
            x = _MARGIN + place * (cell + _GAP)
            _write(draw, head[place], x, y)
            page.paste(panel.image, (x, middle))
            _write(draw, foot[place], x, middle + HEIGHT + _GAP // 2)
        y += height
    return page


@dataclass(frozen=True)
class _Line:
    words: str
    size: int
    bold: bool
    ink: tuple[int, int, int]

    @property
    def height(self) -> int:
        return round(self.size * _LINE)


def wrap(text: str, size: int, width: int, *, bold: bool = False) -> list[str]:
    """Break a text into lines, between words where that is possible.

    Args:
        text: Any text; white space of any kind separates words.
        size: Of the letters, in pixels.
        width: Pixels that a line may take.
        bold: Whether the letters are.

    Returns:
        Lines no wider than ``width``; at most a few, the last one then ends in an ellipsis.
    """
    font = letters(size, bold)
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while len(word) > 1 and font.getlength(word) > width:
            fits = _fitting(word, font, width)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    lines += [line] if line else []
    if len(lines) <= _MOST_LINES:
        return lines
    last = lines[_MOST_LINES - 1]
    while last and font.getlength(last + "…") > width:
        last = last[:-1]
    return [*lines[: _MOST_LINES - 1], last + "…"]


def _fitting(word: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """How many letters of a word fit on a line, by bisection; at least one."""
    low, high = 1, len(word)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if font.getlength(word[:middle]) <= width else (low, middle)
    return low


def _head(panel: Panel, width: int) -> list[_Line]:
    return [
        *_block(panel.title, _TITLE, width, bold=True),
        *_block(panel.note, _TEXT, width, ink=_PALE),
    ]


def _foot(panel: Panel, width: int) -> list[_Line]:
    return [
        *_block(panel.text, _TITLE, width),
        *_block(panel.foot, _TEXT, width, ink=_PALE),
    ]


def _block(
    text: str, size: int, width: int, *, bold: bool = False, ink: tuple[int, int, int] = _INK
) -> list[_Line]:
    return [_Line(words, size, bold, ink) for words in wrap(text, size, width, bold=bold)]


def _height(lines: Sequence[_Line]) -> int:
    return sum(line.height for line in lines) + (6 if lines else 0)


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[_Line], x: int, y: int) -> int:
    """Write lines below each other; returns where the next thing may begin."""
    for line in lines:
        draw.text((x, y), line.words, fill=line.ink, font=letters(line.size, line.bold))
        y += line.height
    return y + (6 if lines else 0)


@cache
def letters(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: the same letters on every machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)
