"""Where names stand in a plot: beside their point or line where there is room, else nowhere.

What has no place is told by the legend and where a pointer rests. Room is measured for a narrow
screen, so that a plot reads alike everywhere.

Notation for shapes: m places that are taken. Places are shares of the axes, (0, 0) lower left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LETTER, HEIGHT = 0.0235, 0.052
"""Room that a letter, and a line of text, take of a plot on a telephone."""
BESIDE = 0.02
"""Distance from a point to its name."""
CROWD = 12
"""Points of which each gets its name, even across a line."""
Spots = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]
"""Left, right, bottom and top."""
Place = tuple[float, float, str]
"""A spot, and the side of it where a name stands: "top left", "middle right", ..."""

AT_A_POINT = (
    "top left",
    "bottom right",
    "middle right",
    "middle left",
    "top right",
    "bottom left",
    "top center",
    "bottom center",
)
"""Sides of a point, the best one first."""
BELOW_A_POINT = (
    "bottom right",
    "top left",
    "middle right",
    "middle left",
    "bottom left",
    "top right",
)
AT_AN_END = ("middle right", "top center", "bottom center", "top left", "bottom left")


@dataclass(frozen=True, kw_only=True)
class Name:
    """A text that looks for a place.

    Attributes:
        text: what is written.
        wanted: where it may stand, the best place first.
        own: which part of what is taken it is the name of, where no other may be nearer to it;
            None for a point's.
    """

    text: str
    wanted: Sequence[Place]
    own: int | None = None

    @classmethod
    def of_point(cls, text: str, x: float, y: float, *, sides: Sequence[str] = AT_A_POINT) -> Name:
        """The name of a point."""
        return cls(text=text, wanted=[(x, y, side) for side in sides])

    @classmethod
    def of_line(cls, text: str, spots: Spots, *, own: int) -> Name:
        """The name of a line through spots (n, 2): at its end, else along it."""
        x, y = spots[-1].tolist()
        middle = along(spots, points=41)[30:7:-1].tolist()
        inside = [(a, b, side) for a, b in middle for side in ("top left", "bottom right")]
        return cls(text=text, wanted=[*((x, y, side) for side in AT_AN_END), *inside], own=own)


def box(name: str, x: float, y: float, side: str) -> Box:
    """The room of a text beside a point."""
    width, height = LETTER * len(name), HEIGHT
    vertical, horizontal = side.split()
    left = {
        "left": x - BESIDE - width,
        "center": x - width / 2,
        "right": x + BESIDE,
    }[horizontal]
    bottom = {"top": y + BESIDE, "middle": y - height / 2, "bottom": y - BESIDE - height}[vertical]
    return left, left + width, bottom, bottom + height


def places(names: Sequence[Name], taken: Sequence[Spots]) -> list[Place | None]:
    """A place for each name, in the order of their importance; None where there is none.

    A point's name may stand on lines where there is no other place, unless there are more than
    `CROWD` points; a line's may not.

    Args:
        names: what is written.
        taken: where each line and each set of marks is, (m, 2) each.
    """
    found: list[Place | None] = []
    boxes: list[Box] = []
    crowded = sum(name.own is None for name in names) > CROWD
    for name in names:
        others = [spots for k, spots in enumerate(taken) if k != name.own]
        rooms = [(place, box(name.text, *place)) for place in name.wanted]
        free = [
            one
            for one in rooms
            if _is_free(one[1], taken, boxes)
            and not (name.own is not None and _any_in(_between(one[1], *one[0][:2]), others))
        ]
        if not free and name.own is None and not crowded:  # rather across a line than not at all
            free = [one for one in rooms if _is_free(one[1], (), boxes)]
        found.append(free[0][0] if free else None)
        boxes += [free[0][1]] if free else []
    return found


def _is_free(room: Box, taken: Sequence[Spots], boxes: Sequence[Box]) -> bool:
    left, right, bottom, top = room
    if left < -0.01 or right > 1.01 or bottom < 0 or top > 1.04 or _any_in(room, taken):
        return False
    return not any(
        left < other[1] and other[0] < right and bottom < other[3] and other[2] < top
        for other in boxes
    )


def _between(room: Box, x: float, y: float) -> Box:
    """The gap from a spot to its name, and a little around: what is in it would get the name."""
    left, right, bottom, top = room
    near = min(max(x, left), right), min(max(y, bottom), top)
    (low, high), (under, over) = sorted((x, near[0])), sorted((y, near[1]))
    return low - 0.005, high + 0.005, under - 0.005, over + 0.005


def _any_in(room: Box, spots: Sequence[Spots]) -> bool:
    left, right, bottom, top = room
    return any(
        bool(
            (
                (one[:, 0] > left) & (one[:, 0] < right) & (one[:, 1] > bottom) & (one[:, 1] < top)
            ).any()
        )
        for one in spots
    )


def along(spots: Spots, *, points: int = 300) -> Spots:
    """A line (points, 2) through spots (n, 2), so that none of it is missed."""
    if len(spots) < 2:
        return spots
    at = np.linspace(0, len(spots) - 1, points)
    return np.column_stack([np.interp(at, np.arange(len(spots)), one) for one in spots.T])
