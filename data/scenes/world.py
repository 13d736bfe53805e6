"""The procedural world of the embedded model: what stands in a scene, and where.

A scene is laid out on a grid of square cells, each as large as one patch of the vision tower.
How fine a look a question needs is decided by what is drawn: one large tag is readable from a
single pooled token, a catalogue of two dozen small entries only from unpooled ones. Every scene
follows from ``(WORLD_VERSION, seed, cells)`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WORLD_VERSION = 1
CELLS = 24
"""Cells along one side of a scene; the tower sees CELLS x CELLS patches."""

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
            ``entry`` (letter, digit).
        row: Topmost cell.
        col: Leftmost cell.
        height: Cells from top to bottom.
        width: Cells from left to right.
        color: A key of :data:`COLORS`.
        shape: A member of :data:`SHAPES`, for shapes.
        text: What is printed on it, for all others; for a bar its label and its value.
        scale: Cells along one side of a printed glyph; 0 for shapes.
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
    cells: int
    background: str
    layout: str
    items: tuple[Item, ...]


class _Board:
    """Keeps track of free cells and unused colours while a scene is filled."""

    def __init__(self, rng: np.random.Generator, cells: int) -> None:
        self.rng = rng
        self.cells = cells
        self.items: list[Item] = []
        self._taken = np.zeros((cells, cells), dtype=bool)
        self._colors = {kind: list(rng.permutation(list(COLORS))) for kind in ("tag", "sign")}

    def pick(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def choice(self, values: tuple[str, ...] | list[str]) -> str:
        return str(values[self.rng.integers(len(values))])

    def place(self, height: int, width: int, *, margin: int = 0) -> tuple[int, int] | None:
        """A free block of cells, or None where twelve tries found none."""
        if height > self.cells or width > self.cells:
            return None
        for _ in range(12):
            row = self.pick(0, self.cells - height)
            col = self.pick(0, self.cells - width)
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
        spot = self.place(scale, scale * len(text), margin=margin)
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
    half = board.cells // 2
    kind = board.choice(["shape", "tag", "tag", "sign"])
    if kind == "shape":
        board.add_shape(half - 2, board.cells - 4)
    elif kind == "tag":
        board.add_text("tag", (half // 2, half // 3 * 2))
    else:
        board.add_text("sign", (half // 3, half // 2))
    if board.rng.random() < 0.5:
        for _ in range(board.pick(1, 4)):
            board.add_any((1, 2), (1,))


def _few(board: _Board) -> None:
    """Things of middle size with room around them."""
    for _ in range(board.pick(board.cells // 6, board.cells // 3)):
        board.add_any((3, board.cells // 3), (2, 3, 4), margin=board.cells // CELLS)


def _many(board: _Board) -> None:
    """Small things, close together."""
    for _ in range(board.pick(board.cells // 2, board.cells)):
        board.add_any((1, 3), (1, 2))


def _chart(board: _Board) -> None:
    scale = board.pick(1, 2) if board.cells >= CELLS else 1
    unit = 2 if board.cells >= 18 + 2 * scale and board.rng.random() < 0.4 else 1
    pitch = scale + board.pick(0, 1)
    count = min(board.pick(3, 9), board.cells // pitch)
    tallest = 9 if unit * 9 + 2 * scale <= board.cells else 8
    spot = board.place(tallest * unit + 2 * scale, count * pitch)
    if spot is None:
        return
    top, left = spot
    labels = board.rng.permutation(list(LETTERS))[:count]
    colors = board.rng.permutation(list(COLORS))
    for index, label in enumerate(labels):
        value = board.pick(1, tallest)
        missing = (tallest - value) * unit
        board.add(
            Item(
                kind="bar",
                row=top + missing,
                col=left + index * pitch,
                height=value * unit + 2 * scale,
                width=scale,
                color=str(colors[index]),
                text=f"{label}{value}",
                scale=scale,
            )
        )
    for _ in range(board.pick(0, 3)):
        board.add_any((1, 3), (1, 2))


def _catalogue(board: _Board) -> None:
    """Entries of a letter and a digit in rows and columns, packed or spaced."""
    scale = 2 if board.cells >= CELLS and board.rng.random() < 0.25 else 1
    height, width = scale + board.pick(0, 1), 2 * scale + board.pick(0, 1)
    rows = min(board.pick(3, 8), board.cells // height)
    cols = min(board.pick(2, 5), board.cells // width, len(LETTERS) // rows)
    spot = board.place(rows * height, cols * width)
    if spot is None:
        return
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
    "poster": (0.26, _poster),
    "few": (0.22, _few),
    "many": (0.22, _many),
    "chart": (0.14, _chart),
    "catalogue": (0.16, _catalogue),
}


def make_scene(seed: int, *, cells: int = CELLS) -> Scene:
    """The scene of a seed.

    Args:
        seed: Any whole number from 0; it alone decides the scene.
        cells: Cells along one side, at least 12; smaller scenes serve the training of the tower.

    Raises:
        ValueError: If ``cells`` is below 12.
    """
    if cells < 12:
        raise ValueError(f"cells must be at least 12 (a chart needs 11), got {cells}")
    rng = np.random.default_rng([WORLD_VERSION, cells, seed])
    names = list(_LAYOUTS)
    layout = names[rng.choice(len(names), p=[_LAYOUTS[name][0] for name in names])]
    background = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    board = _Board(rng, cells)
    _LAYOUTS[layout][1](board)
    return Scene(
        seed=seed, cells=cells, background=background, layout=layout, items=tuple(board.items)
    )
