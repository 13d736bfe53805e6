"""From a square grid of visual tokens to fewer tokens, as pure functions.

Average pooling is what Matryoshka models are trained with; the two ways of sampling are the
training-free heuristics that M3 compares it with (Cai et al., ICLR 2025, Tables 4 and 6).

Notation for shapes: ``S`` tokens along one side of the grid, ``D`` width of a token, ``m`` tokens
afterwards; the square root of ``m`` divides ``S``. Tokens stand in raster order.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch.nn import functional as F

from m3router.data.errors import MismatchError


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
    side, target = _sides(features, tokens)
    if target == side:
        return features
    lead, width = features.shape[:-2], features.shape[-1]
    grid = features.reshape(-1, side, side, width).permute(0, 3, 1, 2)  # (-1, D, S, S)
    pooled = F.avg_pool2d(grid, side // target)
    return pooled.flatten(2).transpose(1, 2).reshape(*lead, tokens, width)


def spatial_sample(features: torch.Tensor, tokens: int) -> torch.Tensor:
    """Keep one token of each pooling window, the one at its centre (M3, Figure 5 b).

    NOTE: the paper shows a regular grid of cells but states no offset, and the published code
    has average pooling only. At an even window the centre is the token below and to the right.
    The corner is ruled out by Table 4: there, one spatially sampled token scores otherwise than
    one sequentially sampled token, which would both be the image's first.

    Args:
        features: Tokens of shape (..., S * S, D).
        tokens: Tokens wanted, ``m``.

    Returns:
        Tensor of shape (..., m, D), in raster order.

    Raises:
        MismatchError: If the tokens form no square grid or ``m`` does not nest in it.
    """
    side, target = _sides(features, tokens)
    window = side // target
    lead, width = features.shape[:-2], features.shape[-1]
    grid = features.reshape(*lead, side, side, width)
    kept = grid[..., window // 2 :: window, window // 2 :: window, :]
    return kept.reshape(*lead, tokens, width)


def sequential_sample(features: torch.Tensor, tokens: int) -> torch.Tensor:
    """Keep the first tokens in raster order (M3, Figure 5 a).

    NOTE: the paper defines it by a figure only. The first ``m``, not every (S * S / m)-th, is our
    reading of Table 4: 36 tokens spread over the sequence would cover the image nearly as well
    as 36 on a grid, but score 44.8 instead of 60.1.

    Args:
        features: Tokens of shape (..., S * S, D).
        tokens: Tokens wanted, ``m``.

    Returns:
        Tensor of shape (..., m, D).

    Raises:
        MismatchError: If the tokens form no square grid or ``m`` does not nest in it.
    """
    _sides(features, tokens)
    return features[..., :tokens, :]


AVERAGE = "average"
POOLINGS: Mapping[str, Callable[[torch.Tensor, int], torch.Tensor]] = MappingProxyType(
    {AVERAGE: average_pool, "spatial": spatial_sample, "sequential": sequential_sample}
)
"""The ways to reduce a grid, by name."""


def pool(features: torch.Tensor, tokens: int, pooling: str = AVERAGE) -> torch.Tensor:
    """Reduce tokens (..., S * S, D) to (..., tokens, D) by the pooling of that name.

    Raises:
        MismatchError: As the pooling's own function, or if there is none of that name.
    """
    return POOLINGS[check_pooling(pooling)](features, tokens)


def check_pooling(pooling: str) -> str:
    """Return the name of a pooling if there is one.

    Raises:
        MismatchError: If there is none; the message lists the names.
    """
    if pooling not in POOLINGS:
        close = difflib.get_close_matches(pooling, POOLINGS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise MismatchError(f"unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}.{hint}")
    return pooling


def detail_by_region(
    features: torch.Tensor, coarse: int, fine: int, *, regions: int
) -> torch.Tensor:
    """What a finer average-pooled scale shows beyond a coarser one, by region of the image.

    Args:
        features: Unpooled tokens, (S * S, D).
        coarse: Tokens of the coarser scale.
        fine: Tokens of the finer scale; it nests in the coarser one.
        regions: Square regions to sort the detail into; a scale no finer than ``fine``.

    Returns:
        (regions, fine / regions, D), float32: each fine token less the coarse token that covers
        it.

    Raises:
        MismatchError: If a scale does not nest in the grid.
    """
    finer = average_pool(features.float(), fine)
    low = average_pool(features.float(), coarse)
    side, across, width = math.isqrt(fine), math.isqrt(regions), features.shape[-1]
    factor, window = side // math.isqrt(coarse), side // across
    grid = low.reshape(side // factor, side // factor, width)
    covering = grid.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    detail = finer.reshape(side, side, width) - covering
    squares = detail.reshape(across, window, across, window, width).transpose(1, 2)
    return squares.reshape(regions, window * window, width)


def _sides(features: torch.Tensor, tokens: int) -> tuple[int, int]:
    """Sides of the grid and of the wanted one."""
    side, target = math.isqrt(features.shape[-2]), math.isqrt(max(tokens, 0))
    if side * side != features.shape[-2]:
        raise MismatchError(f"features hold {features.shape[-2]} tokens, which form no square grid")
    if tokens < 1 or target * target != tokens or side % target:
        raise MismatchError(
            f"{tokens} tokens do not nest in a {side} x {side} grid: "
            f"choose the square of a divisor of {side}"
        )
    return side, target
