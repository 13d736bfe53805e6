"""What a picture's tokens say about the detail in it, whatever the question.

Pooling is nested, so the variance of the unpooled tokens splits exactly into what each step from
a coarse scale to the next one adds. The energy of each step tells how much is lost by staying
at the coarser scale.
"""

from __future__ import annotations

import numpy as np
import torch

from m3core.models.base import VisualEncoding
from m3core.pooling import average_pool
from m3core.scales import ScaleGrid

VERSION = "image-1"
_MOST_REGIONS = 9


def image_features(encoding: VisualEncoding, grid: ScaleGrid) -> np.ndarray:
    """Features of one encoded picture.

    Args:
        encoding: Tokens after the projector, (S * S, D).
        grid: The model's scales, K of them.

    Returns:
        float32 vector: the mean token (D); for each of the K - 1 steps the root mean square of
        the detail lost, by channel (D) and in all (1), and the largest share of one coarse
        region in it (1). Length D + (K - 1) * (D + 2).
    """
    tokens = encoding.features.float()
    mean = tokens.mean(0)
    parts = [mean]
    for coarse, fine in zip(grid.scales[:-1], grid.scales[1:], strict=True):
        detail = detail_lost(tokens, coarse, fine)  # (fine, D)
        energy = detail.square()
        regions = max(scale for scale in grid.scales if scale <= min(coarse, _MOST_REGIONS))
        by_region = average_pool(energy, regions).mean(-1)
        parts += [
            energy.mean(0).sqrt(),
            energy.mean().sqrt()[None],
            (by_region.max() / by_region.mean().clamp(min=1e-12) / len(by_region))[None],
        ]
    return torch.cat(parts).cpu().numpy().astype(np.float32)


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
