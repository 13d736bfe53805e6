"""Nested average pooling of visual tokens, as pure functions.

Notation for shapes: ``S`` tokens along one side of the grid, ``D`` width of a token, ``m`` tokens
after pooling; the square root of ``m`` divides ``S``. Tokens stand in raster order.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from data.errors import MismatchError


def average_pool(features: torch.Tensor, tokens: int) -> torch.Tensor:
    """Average-pool a square grid of tokens to fewer (M3, section 3.1: ``avg_pool2d``).

    Pooling is nested: a coarse set is the average of any finer one. It is applied after the
    projector, as in the authors' ``llava_arch.py``.

    Args:
        features: Tokens of shape (..., S * S, D).
        tokens: Tokens wanted, ``m``.

    Returns:
        Tensor of shape (..., m, D).

    Raises:
        MismatchError: If the tokens form no square grid or ``m`` does not nest in it.
    """
    side, target = math.isqrt(features.shape[-2]), math.isqrt(max(tokens, 0))
    if side * side != features.shape[-2]:
        raise MismatchError(f"features hold {features.shape[-2]} tokens, which form no square grid")
    if tokens < 1 or target * target != tokens or side % target:
        raise MismatchError(
            f"{tokens} tokens do not nest in a {side} x {side} grid: "
            f"choose the square of a divisor of {side}"
        )
    if target == side:
        return features
    lead, width = features.shape[:-2], features.shape[-1]
    grid = features.reshape(-1, side, side, width).permute(0, 3, 1, 2)  # (-1, D, S, S)
    pooled = F.avg_pool2d(grid, side // target)
    return pooled.flatten(2).transpose(1, 2).reshape(*lead, tokens, width)


def detail_lost(tokens: torch.Tensor, coarse: int, fine: int) -> torch.Tensor:
    """What the finer scale shows beyond the coarser one.

    Args:
        tokens: Unpooled tokens, (S * S, D).
        coarse: Visual tokens of the coarser scale.
        fine: Visual tokens of the finer scale; a multiple of ``coarse``.

    Returns:
        (fine, D): each fine token less the coarse token that covers it.
    """
    finer = average_pool(tokens, fine)
    side, factor = round(fine**0.5), round((fine / coarse) ** 0.5)
    low = average_pool(tokens, coarse).reshape(side // factor, side // factor, -1)
    covering = low.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    return finer - covering.reshape(fine, -1)
