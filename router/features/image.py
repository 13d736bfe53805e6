"""What an image's tokens say about the detail in it, whatever the question.

The energy of what each step from a coarse scale to the next one adds tells how much is lost by
staying at the coarser scale. Pooling is nested, so with pooled scales these energies split the
variance of the unpooled tokens exactly. What a step adds is asked of the encoding, since it
depends on how the model makes its scales.
"""

from __future__ import annotations

import numpy as np
import torch

from m3router.m3core.matryoshka.base import VisualEncoding
from m3router.m3core.matryoshka.scales import ScaleGrid

VERSION = "image-1"
_MOST_REGIONS = 9


def image_features(encoding: VisualEncoding, grid: ScaleGrid) -> np.ndarray:
    """Features of one encoded image.

    Args:
        encoding: The image, encoded by the model.
        grid: The model's scales, K of them.

    Returns:
        float32 vector: the mean token (D); for each of the K - 1 steps the root mean square of
        the detail lost, by channel (D) and in all (1), and the largest share of one coarse
        region in it (1). Length D + (K - 1) * (D + 2).
    """
    parts = [encoding.features.float().mean(0)]
    for coarse, fine in zip(grid.scales[:-1], grid.scales[1:], strict=True):
        most = min(coarse, _MOST_REGIONS)
        regions = max((scale for scale in grid.scales if scale <= most), default=1)
        energy = encoding.detail(coarse, fine, regions=regions).square()  # (R, tokens, D)
        by_region = energy.mean((1, 2))
        parts += [
            energy.mean((0, 1)).sqrt(),
            energy.mean().sqrt()[None],
            (by_region.max() / by_region.mean().clamp(min=1e-12) / len(by_region))[None],
        ]
    return torch.cat(parts).cpu().numpy().astype(np.float32)
