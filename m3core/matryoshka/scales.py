"""Scales: how many visual tokens the language model receives for one image grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from m3router.data.errors import MismatchError

M3_SCALES = (1, 9, 36, 144, 576)
"""The nested scales of M3 (Cai et al., ICLR 2025, section 3.1)."""


MQT_SCALES = (2, 4, 8, 16, 36, 64, 144, 256)
"""Token counts at which MQT-LLaVA is labelled by default (Hu et al., NeurIPS 2024); any will do."""

MQT_TRAINING_SCALES = tuple(range(2, 257, 2))
"""What MQT-LLaVA's second stage draws one m from at every step.

Source: ``get_matry_n`` in the authors' ``llava/model/multimodal_projector/builder.py``
(gordonhu608/MQT-LLaVA at 92c35d0), which writes ``range(2, 258, 2)``, the same numbers.
"""


def check_nesting(scales: Sequence[int], side: int) -> None:
    """Check that every scale is a pooling of a square grid of tokens.

    Args:
        scales: Visual tokens at each scale, ascending.
        side: Tokens along one side of the unpooled grid.

    Raises:
        MismatchError: If a scale is not the square of a whole number that divides ``side``, or if
            the last one is not ``side`` squared.
    """
    for scale in scales:
        root = math.isqrt(max(scale, 0))
        if scale < 1 or root * root != scale or side % root:
            raise MismatchError(
                f"scale {scale} does not nest in a {side} x {side} grid: it must be "
                f"the square of a divisor of {side}"
            )
    if scales[-1] != side**2:
        raise MismatchError(
            f"the finest scale must be the whole grid of {side**2} tokens, got {scales[-1]}"
        )


@dataclass(frozen=True)
class ScaleGrid:
    """The scales of a model, coarsest first.

    Attributes:
        scales: Visual tokens at each scale, ascending.
        side: Tokens along one side of the unpooled grid, of which the scales are poolings
            (:func:`check_nesting`); None where tokens form no grid and any counts will do, as
            with the first so many queries of MQT.

    Raises:
        MismatchError: If the scales do not ascend, or are not poolings of the grid, or (without a
            grid) if one is below 1.

    >>> ScaleGrid(scales=(2, 5, 7), side=None).finest
    7
    """

    scales: tuple[int, ...] = M3_SCALES
    side: int | None = 24

    def __post_init__(self) -> None:
        """Check the scales, against the side where there is one."""
        if not self.scales or list(self.scales) != sorted(set(self.scales)):
            raise MismatchError(f"scales must ascend without repetition, got {self.scales}")
        if self.side is not None:
            check_nesting(self.scales, self.side)
        elif self.scales[0] < 1:
            raise MismatchError(
                f"scale {self.scales[0]} is not a number of tokens: a scale must be 1 or more"
            )

    def __len__(self) -> int:
        """Number of scales."""
        return len(self.scales)

    @property
    def finest(self) -> int:
        """Visual tokens of the finest scale."""
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
