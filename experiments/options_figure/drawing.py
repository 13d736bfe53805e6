"""The recorded answers as pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from m3router.data.scenes.drawing import render
from m3router.data.scenes.world import make_scene
from m3router.m3core.matryoshka.pooling import AVERAGE
from m3router.m3core.matryoshka.views import View
from m3router.router.visualize.contact_sheet import HEIGHT, Panel, letters, sheet, wrap
from m3router.router.visualize.token_grid import MEANS, drawn

RECORDED = Path(__file__).parent / "results" / "options.json"
LOOKED, LARGE, SMALL = "tag", "large", "small"
"""Names of the recorded rows: what `m3router look` shows, and the two questions of one scene."""

_LOOKED_AT = ("1", "36", "576")
_SIDE = 24  # tokens along one side of the shipped model's grid
_WIDTH, _MARGIN = 1600, 36
_LEFT = 340  # where the columns begin
_CELL, _PICTURE = 244, 212
_TITLE, _LARGE, _TEXT = 36, 27, 22  # letters, in pixels; half of that in a README
_INK, _PALE, _PAPER = (25, 28, 33), (85, 92, 102), (255, 255, 255)
_RIGHT, _WRONG, _ROUTER, _LIT = (0, 104, 74), (178, 60, 0), (0, 104, 163), (226, 240, 250)
_TRACK = (218, 223, 229)
_SURE = 0.995  # above it, a share would be rounded to all


def read() -> dict[str, dict[str, Any]]:
    """The recorded rows by name."""
    rows: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text(encoding="utf-8"))["rows"]
    return rows


def looked() -> Image.Image:
    """What `m3router look` draws of a question at three scales."""
    row = read()[LOOKED]
    view = _view(row["seed"])
    said = {scale: row["answers"][scale] for scale in _LOOKED_AT}
    panels = [
        Panel(
            image=drawn(view, int(scale)),
            title=_tokens(scale),
            note=view.name,
            text=answer["text"],
            foot=f"{answer['confidence']:.0%} sure",
        )
        for scale, answer in said.items()
    ]
    about = f"embedded: pooling average. {MEANS}"
    return sheet(row["question"], about, panels, image=view.image)


def options() -> Image.Image:
    """One scene and two questions, asked at every scale, with what the router takes."""
    rows = read()
    asked = [rows[LARGE], rows[SMALL]]
    page = Image.new("RGB", (_WIDTH, 1000), _PAPER)
    draw = ImageDraw.Draw(page)
    y = _write(draw, (_MARGIN, 26), "One image, asked at every option", _TITLE, bold=True)
    least, most = (_needs(row) for row in asked)
    told = f"One question needs {least}, the other {most}. The router tells them apart beforehand."
    y = _write(draw, (_MARGIN, y), told, _LARGE - 2, ink=_PALE)
    y = _scene(page, draw, y + 18, asked[0])
    for row in asked:
        draw.line((_MARGIN, y, _WIDTH - _MARGIN, y), fill=_TRACK, width=2)
        y = _question(draw, y + 14, row)
    draw.line((_MARGIN, y, _WIDTH - _MARGIN, y), fill=_TRACK, width=2)
    y += 14
    told = (
        f"{MEANS} Bars: how likely each option is right, as the router estimates it before any "
        "answer. Real answers of the shipped model and a router trained on other scenes."
    )
    for line in wrap(told, _TEXT, _WIDTH - 2 * _MARGIN):
        y = _write(draw, (_MARGIN, y), line, _TEXT, ink=_PALE)
    return page.crop((0, 0, _WIDTH, y + 24))


def _scene(page: Image.Image, draw: ImageDraw.ImageDraw, y: int, row: Mapping[str, Any]) -> int:
    """The image, and what each scale keeps of it; returns where the next thing begins."""
    view = _view(row["seed"])
    places = [(_MARGIN, "the image", view.image)]
    for column, scale in enumerate(row["answers"]):
        title = _tokens(scale).replace("visual ", "")
        places.append((_LEFT + column * _CELL, title, drawn(view, int(scale))))
    for x, title, image in places:
        below = _write(draw, (x, y), title, _LARGE, bold=True)
        page.paste(image.resize((_PICTURE, _PICTURE), Image.Resampling.LANCZOS), (x, below + 4))
        draw.rectangle(
            (x, below + 4, x + _PICTURE - 1, below + 3 + _PICTURE), outline=(128, 128, 128)
        )
    return below + _PICTURE + 24


def _question(draw: ImageDraw.ImageDraw, y: int, row: Mapping[str, Any]) -> int:
    """A question with its answers; returns where the next thing begins."""
    line = y + 8
    for words in wrap(row["question"], _LARGE, _LEFT - _MARGIN - 24, bold=True):
        line = _write(draw, (_MARGIN, line), words, _LARGE, bold=True)
    _write(draw, (_MARGIN, line), f"right: {row['expected']}", _TEXT, ink=_PALE)
    for column, (scale, answer) in enumerate(row["answers"].items()):
        x, taken = _LEFT + column * _CELL, scale == row["chosen"]
        if taken:
            frame = (x - 14, y, x + _PICTURE + 13, y + 122)
            draw.rounded_rectangle(frame, 10, fill=_LIT, outline=_ROUTER, width=4)
        right = _right(row, answer)
        said = f"{'✓' if right else '✗'} {answer['text']}"
        below = _write(draw, (x, y + 8), said, _LARGE, bold=True, ink=_RIGHT if right else _WRONG)
        likely = row["estimates"][scale]
        draw.rectangle((x, below + 4, x + 119, below + 21), fill=_TRACK)
        draw.rectangle((x, below + 4, x + round(119 * likely), below + 21), fill=_ROUTER)
        share = "> 99 %" if likely > _SURE else f"{100 * likely:.0f} %"
        _write(draw, (x + 130, below - 1), share, _TEXT)
        if taken:
            _write(draw, (x, below + 27), "router takes this", _TEXT, bold=True, ink=_ROUTER)
    return y + 136


def _needs(row: Mapping[str, Any]) -> str:
    """The fewest tokens from which on every answer is right."""
    needed = ""
    for scale, answer in reversed(row["answers"].items()):
        if not _right(row, answer):
            break
        needed = _tokens(scale).replace("visual ", "")
    return needed


def _right(row: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    found: bool = answer["text"].strip().lower() == row["expected"].lower()
    return found


def _view(seed: int) -> View:
    """A drawn scene as the shipped model's tower sees it."""
    scene = Image.fromarray(render(make_scene(seed)))
    image = scene.resize((HEIGHT, HEIGHT), Image.Resampling.BICUBIC)
    return View(name="padded square", image=image, side=_SIDE, pooling=AVERAGE)


def _tokens(scale: str) -> str:
    return f"{scale} visual token{'' if scale == '1' else 's'}"


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    words: str,
    size: int,
    *,
    bold: bool = False,
    ink: tuple[int, int, int] = _INK,
) -> int:
    """Write a line; returns where the next one begins."""
    draw.text(place, words, fill=ink, font=letters(size, bold))
    return place[1] + round(1.35 * size)
