"""Non-decreasing concave hulls of many curves at once, for bootstrap draws.

Notation for shapes: B draws (any leading shape, also none), P points of a curve.

The pure functions in `router.analysis.metrics` say what is computed here for one curve; these
do the same steps for all draws together, which is what makes a thousand draws cheap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
CLOSE = 1e-9  # relative: means that are equal in theory may differ in their last digits


@dataclass(frozen=True)
class Hulls:
    """Vertices of the hulls, by rising cost; the last one is repeated to fill up.

    Attributes:
        cost: (B, P).
        accuracy: (B, P), non-decreasing.
    """

    cost: Array
    accuracy: Array

    def at(self, cost: Array) -> Array:
        """Accuracy (B,) at mean costs (B,); NaN below the first vertex, flat after the last."""
        x, y = self.cost, self.accuracy
        cost = np.asarray(cost, dtype=np.float64)
        right = np.clip((x < cost[..., None]).sum(axis=-1), 1, max(x.shape[-1] - 1, 1))
        if x.shape[-1] == 1:
            value = y[..., 0]
        else:
            x0, x1 = _entry(x, right - 1), _entry(x, right)
            y0, y1 = _entry(y, right - 1), _entry(y, right)
            share = np.divide(cost - x0, x1 - x0, out=np.ones_like(x0), where=x1 > x0)
            value = y0 + np.clip(share, 0.0, 1.0) * (y1 - y0)
        return np.where(cost >= x[..., 0] * (1 - CLOSE), value, np.nan)

    def weights(self, cost: Array) -> tuple[Array, Array, Array]:
        """Which two vertices to mix at mean costs (B,).

        Returns:
            Costs of the cheaper and of the dearer vertex, and the share of the dearer, all (B,).
        """
        x = self.cost
        cost = np.clip(np.asarray(cost, dtype=np.float64), x[..., 0], x[..., -1])
        right = np.clip((x < cost[..., None]).sum(axis=-1), 0, x.shape[-1] - 1)
        x0, x1 = _entry(x, np.maximum(right - 1, 0)), _entry(x, right)
        share = np.divide(cost - x0, x1 - x0, out=np.ones_like(x0), where=x1 > x0)
        return x0, x1, share

    def area(self, low: float, high: float) -> Array:
        """Mean accuracy (B,) over costs in [low, high], 0 below the first vertex (AIQ).

        NaN unless low < high.
        """
        if not low < high:
            return np.full(self.cost.shape[:-1], np.nan)
        x = np.clip(self.cost, low, high)
        width = np.diff(x, axis=-1)
        left = self._clipped(x[..., :-1], slice(None, -1))
        right = self._clipped(x[..., 1:], slice(None, -1))
        inner = (width * (left + right) / 2).sum(axis=-1)
        return (inner + (high - x[..., -1]) * self.accuracy[..., -1]) / (high - low)

    def _clipped(self, at: Array, part: slice) -> Array:
        """Accuracy at costs (B, P - 1) that lie on (or are clipped to) their own segments."""
        x0, y0 = self.cost[..., part], self.accuracy[..., part]
        rise = np.diff(self.accuracy, axis=-1)
        run = np.diff(self.cost, axis=-1)
        slope = np.divide(rise, run, out=np.zeros_like(rise), where=run > 0)
        return y0 + slope * (at - x0)


def concave_hulls(cost: Array, accuracy: Array) -> Hulls:
    """The non-decreasing concave hulls of points (B, P); see `metrics.nondecreasing_hull`.

    Andrew's monotone chain (1979), one stack per draw, all stacks moved together.
    """
    cost, accuracy = np.broadcast_arrays(
        np.asarray(cost, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    )
    shape = cost.shape
    x, y = cost.reshape(-1, shape[-1]), accuracy.reshape(-1, shape[-1])
    order = np.lexsort((-y, x), axis=-1)
    x, y = np.take_along_axis(x, order, axis=-1), np.take_along_axis(y, order, axis=-1)
    draws = np.arange(len(x))
    before = np.maximum.accumulate(y, axis=1)
    stack_x, stack_y = np.zeros_like(x), np.zeros_like(y)
    size = np.zeros(len(x), dtype=np.intp)
    for i in range(shape[-1]):
        new = np.ones(len(x), dtype=bool) if i == 0 else y[:, i] > before[:, i - 1]
        new &= np.isfinite(x[:, i] + y[:, i])
        size -= _dropped(stack_x, stack_y, size, x[:, i], y[:, i], new)
        at = draws[new]
        stack_x[at, size[at]], stack_y[at, size[at]] = x[at, i], y[at, i]
        size[at] += 1
    empty = size == 0
    last = np.maximum(size - 1, 0)[:, None]
    keep = np.minimum(np.arange(shape[-1])[None, :], last)
    hull_x = np.take_along_axis(stack_x, keep, axis=1)
    hull_y = np.take_along_axis(stack_y, keep, axis=1)
    hull_x[empty], hull_y[empty] = np.nan, np.nan
    return Hulls(hull_x.reshape(shape), hull_y.reshape(shape))


def hypervolumes(cost: Array, accuracy: Array, *, reference_cost: float) -> Array:
    """Areas (B,) that points (B, P) dominate up to a cost; see `metrics.hypervolume`."""
    cost, accuracy = np.broadcast_arrays(np.asarray(cost), np.asarray(accuracy))
    order = np.argsort(cost, axis=-1, kind="stable")
    x = np.minimum(np.take_along_axis(cost, order, axis=-1), reference_cost)
    best = np.maximum.accumulate(np.take_along_axis(accuracy, order, axis=-1), axis=-1)
    end = np.full((*x.shape[:-1], 1), reference_cost)
    return (np.diff(np.concatenate([x, end], axis=-1), axis=-1) * np.maximum(best, 0.0)).sum(-1)


def saved(cost: Array, accuracy: Array, *, target: Array, spent: Array) -> Array:
    """Shares (B,) of `spent` that the cheapest of points (B, P) reaching `target` saves.

    See `metrics.saved_at`; NaN where no point reaches the target, or nothing was spent.
    """
    reached = np.asarray(accuracy) >= np.asarray(target)[..., None] - 1e-12
    least = np.where(reached, cost, np.inf).min(axis=-1)
    spent = np.asarray(spent, dtype=np.float64)
    known = np.isfinite(least) & (spent > 0)
    share = np.divide(least, spent, out=np.full(np.shape(known), np.nan), where=known)
    return np.asarray(1 - share)


def _dropped(
    stack_x: Array,
    stack_y: Array,
    size: npt.NDArray[np.intp],
    x: Array,
    y: Array,
    new: npt.NDArray[np.bool_],
) -> npt.NDArray[np.intp]:
    """How many vertices of each stack lie on or below the line to the new point."""
    left = size.copy()
    active = np.flatnonzero(new & (left > 1))
    while len(active):
        top = left[active]
        ax, ay = stack_x[active, top - 2], stack_y[active, top - 2]
        bx, by = stack_x[active, top - 1], stack_y[active, top - 1]
        above = (by - ay) * (x[active] - ax) > (y[active] - ay) * (bx - ax)
        active = active[~above]
        left[active] -= 1
        active = active[left[active] > 1]
    return size - left


def _entry(values: Array, at: npt.NDArray[np.intp]) -> Array:
    return np.take_along_axis(values, at[..., None], axis=-1)[..., 0]
