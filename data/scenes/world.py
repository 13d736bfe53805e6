"""The procedural world of the embedded model: what stands in a scene, and where.

A scene is laid out on a grid of square cells, each as large as one patch of the vision tower.
How fine a look a question needs is decided by what is drawn: one large tag is readable from a
single pooled token, a catalogue of two dozen small entries only from unpooled ones. A printed
glyph is 1, 2, 4 or 8 cells wide and stands on multiples of its width, as the pooling windows of
576, 144, 36 and 9 tokens do. Every scene follows from ``(WORLD_VERSION, seed)`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WORLD_VERSION = 2
CELLS = 24
"""Cells along one side of a scene; the tower sees CELLS x CELLS patches."""
_MOST = 9
"""Largest value of a bar."""

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (40, 160, 70),
    "blue": (40, 80, 220),
    "yellow": (245, 210, 40),
    "orange": (245, 130, 30),
    "purple": (130, 50, 170),
    "pink": (250, 150, 190),
    "cyan": (60, 200, 220),
    "brown": (130, 80, 40),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "gray": (150, 150, 150),
    "black": (25, 25, 25),
    "beige": (230, 215, 180),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
# fmt: off
WORDS = (
    "cat", "dog", "sun", "cup", "box", "hat", "pen", "key", "car", "bus", "map",
    "egg", "ice", "jam", "leg", "nut", "owl", "pig", "rat", "toy", "van", "web",
)
# fmt: on
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing in a scene; positions and sizes in cells.

    Attributes:
        kind: ``shape``, ``tag`` (two digits), ``sign`` (a word), ``bar`` (letter, value) or
            ``entry`` (letter, digit). A bar's letter and value are printed left of it.
        row: Topmost cell.
        col: Leftmost cell.
        height: Cells from top to bottom.
        width: Cells from left to right.
        color: A key of :data:`COLORS`.
        shape: A member of :data:`SHAPES`, for shapes.
        text: What is printed on it, for all others; for a bar its label and its value.
        scale: Cells along one side of a printed glyph: 1, 2, 4 or 8; 0 for shapes.
    """

    kind: str
    row: int
    col: int
    height: int
    width: int
    color: str
    shape: str = ""
    text: str = ""
    scale: int = 0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A background and the items on it; none overlap."""

    seed: int
    background: str
    layout: str
    items: tuple[Item, ...]


class _Board:
    """Keeps track of free cells and unused colours while a scene is filled."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.items: list[Item] = []
        self._taken = np.zeros((CELLS, CELLS), dtype=bool)
        self._colors = {kind: list(rng.permutation(list(COLORS))) for kind in ("tag", "sign")}

    def pick(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def choice(self, values: tuple[str, ...] | list[str]) -> str:
        return str(values[self.rng.integers(len(values))])

    def place(
        self, height: int, width: int, *, margin: int = 0, step: int = 1
    ) -> tuple[int, int] | None:
        """A free block on multiples of ``step``, or None where twelve tries found none."""
        if height > CELLS or width > CELLS:
            return None
        for _ in range(12):
            row = self.pick(0, (CELLS - height) // step) * step
            col = self.pick(0, (CELLS - width) // step) * step
            near = self._taken[
                max(0, row - margin) : row + height + margin,
                max(0, col - margin) : col + width + margin,
            ]
            if not near.any():
                return row, col
        return None

    def add(self, item: Item) -> None:
        self._taken[item.row : item.row + item.height, item.col : item.col + item.width] = True
        self.items.append(item)

    def add_shape(self, low: int, high: int, *, margin: int = 0) -> None:
        size = self.pick(low, high)
        spot = self.place(size, size, margin=margin)
        if spot:
            color, shape = self.choice(list(COLORS)), self.choice(SHAPES)
            row, col = spot
            self.add(
                Item(
                    kind="shape",
                    row=row,
                    col=col,
                    height=size,
                    width=size,
                    color=color,
                    shape=shape,
                )
            )

    def add_text(self, kind: str, scales: tuple[int, ...], *, margin: int = 0) -> None:
        """A tag (two digits) or a sign (a word) in a colour no other one of its kind has."""
        scale = scales[self.rng.integers(len(scales))]
        text = f"{self.pick(10, 99)}" if kind == "tag" else self.choice(WORDS)
        spot = self.place(scale, scale * len(text), margin=margin, step=scale)
        if spot and self._colors[kind]:
            row, col = spot
            self.add(
                Item(
                    kind=kind,
                    row=row,
                    col=col,
                    height=scale,
                    width=scale * len(text),
                    color=self._colors[kind].pop(),
                    text=text,
                    scale=scale,
                )
            )

    def add_any(self, shape: tuple[int, int], text: tuple[int, ...], *, margin: int = 0) -> None:
        """A shape, a tag or a sign; (low, high) sizes for shapes, scales for glyphs."""
        kind = self.choice(["shape", "shape", "tag", "tag", "sign"])
        if kind == "shape":
            self.add_shape(*shape, margin=margin)
        else:
            self.add_text(kind, text, margin=margin)


def _poster(board: _Board) -> None:
    """One large thing; half of the time with a few tiny ones beside it."""
    kind = board.choice(["shape", "tag", "tag", "sign"])
    if kind == "shape":
        board.add_shape(12, 20)
    else:
        board.add_text(kind, (8,))
    if board.rng.random() < 0.5:
        for _ in range(board.pick(1, 4)):
            board.add_any((1, 2), (1, 2))


def _few(board: _Board) -> None:
    """Things of middle size with room around them."""
    for _ in range(board.pick(3, 8)):
        board.add_any((3, 7), (2, 4, 4), margin=1)


def _many(board: _Board) -> None:
    """Small things, close together."""
    for _ in range(board.pick(14, 28)):
        board.add_any((1, 3), (1, 1, 2))


def _chart(board: _Board) -> None:
    """Bars that lie above each other, each with its letter and its value on its left."""
    scale = board.pick(1, 2)
    unit = board.pick(1, 2)
    pitch = scale * board.pick(1, 2)
    count = board.pick(3, min(9, CELLS // pitch))
    spot = board.place(count * pitch, 2 * scale + _MOST * unit, step=scale)
    assert spot is not None  # the board is empty, and 2 * 2 + 9 * 2 cells fit
    top, left = spot
    letters = board.rng.permutation(list(LETTERS))[:count]
    colors = board.rng.permutation(list(COLORS))
    for index, letter in enumerate(letters):
        value = board.pick(1, _MOST)
        board.add(
            Item(
                kind="bar",
                row=top + index * pitch,
                col=left,
                height=scale,
                width=2 * scale + value * unit,
                color=str(colors[index]),
                text=f"{letter}{value}",
                scale=scale,
            )
        )
    for _ in range(board.pick(0, 3)):
        board.add_any((1, 3), (1, 2))


def _catalogue(board: _Board) -> None:
    """Entries of a letter and a digit in rows and columns, packed or spaced."""
    scale = 2 if board.rng.random() < 0.3 else 1
    height, width = scale * board.pick(1, 2), scale * board.pick(2, 3)
    rows = board.pick(3, min(8, CELLS // height))
    cols = min(board.pick(2, 5), CELLS // width, len(LETTERS) // rows)
    spot = board.place(rows * height, cols * width, step=scale)
    assert spot is not None  # the board is empty
    letters = board.rng.permutation(list(LETTERS))
    color = board.choice(list(COLORS))
    for index in range(rows * cols):
        row, col = divmod(index, cols)
        board.add(
            Item(
                kind="entry",
                row=spot[0] + row * height,
                col=spot[1] + col * width,
                height=scale,
                width=2 * scale,
                color=color,
                text=f"{letters[index]}{board.pick(0, 9)}",
                scale=scale,
            )
        )
    for _ in range(board.pick(0, 4)):
        board.add_any((1, 4), (1, 2))


_LAYOUTS: dict[str, tuple[float, Callable[[_Board], None]]] = {
    "poster": (0.22, _poster),
    "few": (0.22, _few),
    "many": (0.22, _many),
    "chart": (0.17, _chart),
    "catalogue": (0.17, _catalogue),
}


def make_scene(seed: int) -> Scene:
    """The scene of a seed, any whole number from 0; it alone decides the scene."""
    rng = np.random.default_rng([WORLD_VERSION, seed])
    names = list(_LAYOUTS)
    layout = names[rng.choice(len(names), p=[_LAYOUTS[name][0] for name in names])]
    background = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    board = _Board(rng)
    _LAYOUTS[layout][1](board)
    return Scene(seed=seed, background=background, layout=layout, items=tuple(board.items))
