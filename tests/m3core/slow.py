"""Pooling and merging cell by cell, as references for the fast ones."""

from __future__ import annotations

import math

import numpy as np

from m3router.m3core.matryoshka.models.anyres import FLAT


def slow_merge(views, *, size, grid, newline, merge):
    """The merge cell by cell, from the description in the paper's code."""
    count, tokens, width = views.shape
    side = int(round(tokens**0.5))
    if merge == FLAT:
        return [views[v, t] for v in range(count) for t in range(tokens)]
    row = [views[0, t] for t in range(tokens)]
    total_rows, total_columns = grid.rows * side, grid.columns * side
    height, wide = size
    top = left = 0
    if wide / height > total_columns / total_rows:
        top = (total_rows - int(height * (total_columns / wide))) // 2
    else:
        left = (total_columns - int(wide * (total_rows / height))) // 2
    for r in range(top, total_rows - top):
        for c in range(left, total_columns - left):
            view = 1 + (r // side) * grid.columns + c // side
            row.append(views[view, (r % side) * side + c % side])
        row.append(newline)
    return row


def slow_pool(crop, tokens, pooling):
    side, target = math.isqrt(len(crop)), math.isqrt(tokens)
    window = side // target
    if pooling == "sequential":
        return np.stack([crop[place] for place in range(tokens)])
    pooled = []
    for r in range(target):
        for c in range(target):
            block = [
                crop[(r * window + i) * side + c * window + j]
                for i in range(window)
                for j in range(window)
            ]
            middle = (window // 2) * window + window // 2
            pooled.append(np.mean(block, axis=0) if pooling == "average" else block[middle])
    return np.stack(pooled)
