"""Scales: how many visual tokens the language model receives for one image grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

from data.errors import MismatchError

M3_SCALES = (1, 9, 36, 144, 576)
"""The nested scales of M3 (Cai et al., ICLR 2025, section 3.1)."""


@dataclass(frozen=True)
class ScaleGrid:
    """The scales of a model, coarsest first.

    Attributes:
        scales: Visual tokens at each scale, ascending. The last one is the unpooled grid.
        side: Tokens along one side of the unpooled grid.

    Raises:
        MismatchError: If a scale is not the square of a whole number that divides ``side``, if
            the scales do not ascend, or if the last one is not ``side`` squared.
    """

    scales: tuple[int, ...] = M3_SCALES
    side: int = 24

    def __post_init__(self) -> None:
        """Check the scales against the side."""
        if not self.scales or list(self.scales) != sorted(set(self.scales)):
            raise MismatchError(f"scales must ascend without repetition, got {self.scales}")
        for scale in self.scales:
            root = math.isqrt(max(scale, 0))
            if scale < 1 or root * root != scale or self.side % root:
                raise MismatchError(
                    f"scale {scale} does not nest in a {self.side} x {self.side} grid: it must be "
                    f"the square of a divisor of {self.side}"
                )
        if self.scales[-1] != self.side**2:
            raise MismatchError(
                f"the finest scale must be the whole grid of {self.side**2} tokens, "
                f"got {self.scales[-1]}"
            )

    def __len__(self) -> int:
        """Number of scales."""
        return len(self.scales)

    @property
    def finest(self) -> int:
        """Visual tokens of the unpooled grid."""
        return self.scales[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """The scales as the options of an oracle log."""
        return tuple(str(scale) for scale in self.scales)

    def check(self, scale: int) -> int:
        """Return ``scale`` if it is in the grid; never silently another one.

        Raises:
            MismatchError: If it is not; the message lists the grid.
        """
        if scale not in self.scales:
            listed = ", ".join(self.names)
            raise MismatchError(
                f"scale {scale} is not in this model's grid; choose one of {listed}"
            )
        return scale
