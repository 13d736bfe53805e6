"""What each visual token stands for in the image: boxes of a pooled grid, or heat maps of queries.

A family says it (:meth:`m3router.m3core.checkpoints.families.base.Family.visualize`); drawing it is
left to whoever shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from m3router.m3core.matryoshka.models.anyres import unpadded
from m3router.m3core.matryoshka.pooling import AVERAGE

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in parts of a view's width and height, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What the tower sees: one square, or squares side by side that make one image.

    Attributes:
        name: What it is, in words.
        image: RGB, of ``rows x columns`` squares.
        side: Tokens along one side of a square, unpooled.
        pooling: A name in :data:`m3router.m3core.matryoshka.pooling.POOLINGS`.
        rows: Squares on top of each other.
        columns: Squares side by side.
        size: (height, width) of the original, where tokens of the padding are cut off.
    """

    name: str
    image: Image.Image
    side: int
    pooling: str
    rows: int = 1
    columns: int = 1
    size: tuple[int, int] | None = None

    def boxes(self, scale: int) -> list[Box]:
        """What each token of a scale stands for that the language model receives."""
        across = math.isqrt(scale)
        cells = (self.rows * across, self.columns * across)
        kept = (slice(0, cells[0]), slice(0, cells[1]))
        if self.size is not None:
            kept = unpadded(self.size, cells)
        found = []
        for row in range(self.rows):
            for column in range(self.columns):
                for place, box in enumerate(token_boxes(self.side, scale, self.pooling)):
                    down, right = divmod(place, across)
                    at = (row * across + down, column * across + right)
                    if all(k.start <= i < k.stop for i, k in zip(at, kept, strict=True)):
                        found.append(self._placed(box, row, column))
        return found

    def _placed(self, box: Box, row: int, column: int) -> Box:
        left, top, right, bottom = box
        return (
            (column + left) / self.columns,
            (row + top) / self.rows,
            (column + right) / self.columns,
            (row + bottom) / self.rows,
        )


@dataclass(frozen=True, kw_only=True)
class TokenHeat:
    """Where single visual tokens look, for models whose tokens have no place in a grid.

    Attributes:
        image: RGB, the square that the tower sees.
        maps: From indices of tokens to their heat maps (T, S, S), at least 0; raises
            MismatchError where there is no such token.
    """

    image: Image.Image
    maps: Callable[[Sequence[int]], np.ndarray]


Sight = list[View] | TokenHeat
"""What a model sees of an image: views whose tokens are pooled, or tokens with heat maps."""


def token_boxes(side: int, scale: int, pooling: str) -> Iterator[Box]:
    """The part of a square view that each token of a scale is made of, in order.

    Args:
        side: Tokens along one side, unpooled.
        scale: Tokens afterwards.
        pooling: A name in :data:`m3router.m3core.matryoshka.pooling.POOLINGS`.
    """
    across = math.isqrt(scale)
    window = side // across
    for place in range(scale):
        row, column = divmod(place, side if pooling == "sequential" else across)
        width = 1
        if pooling == AVERAGE:
            row, column, width = row * window, column * window, window
        elif pooling == "spatial":
            row, column = row * window + window // 2, column * window + window // 2
        yield (column / side, row / side, (column + width) / side, (row + width) / side)
