"""How long the arithmetic of a run takes at the rate that this device multiplies matrices."""

from __future__ import annotations

import time

import torch

from m3core.models.base import MultiScaleModel

REPEATS = 5


def multiply_rate(model: MultiScaleModel) -> float:
    """Operations per second of a large matrix product on a model's device, in its number format.

    The best of a few products; a model without tensors is taken to run on the CPU in float32.
    """
    inner = getattr(model, "model", None)
    device = getattr(inner, "device", torch.device("cpu"))
    dtype = getattr(inner, "dtype", torch.float32)
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(REPEATS):
        _finish(device)
        began = time.perf_counter()
        torch.mm(left, right)
        _finish(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
