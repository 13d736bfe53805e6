"""The non-decreasing convex hull of points (cost, accuracy), and what is read off it.

Notation for shapes: P points of a curve, whose costs and accuracies are (P,) arrays; N examples, K
options.
"""

from __future__ import annotations

import numpy as np

from m3router.data.errors import DataError
from m3router.router.metrics.choices import Array, Choice, Floats


def pareto_front(cost: Floats, accuracy: Floats) -> Choice:
    """Indices of the points that no other point dominates, by rising cost.

    A point dominates another when it costs no more, is at least as accurate, and differs in
    one of the two; of equal points the first is kept. O(P log P): after sorting by cost, the
    front is where the running maximum of accuracy rises.
    """
    cost, accuracy = _points(cost, accuracy)
    order = np.lexsort((-accuracy, cost))
    ranked = accuracy[order]
    before = np.concatenate([[-np.inf], np.maximum.accumulate(ranked)[:-1]])
    return order[ranked > before]


def nondecreasing_hull(cost: Floats, accuracy: Floats) -> tuple[Array, Array]:
    """Vertices (cost, accuracy) of the non-decreasing convex hull, by rising cost.

    RouterBench (arXiv 2403.12031): two policies mixed at random reach every point
    between them, so the upper concave envelope is reachable; to the right of the most accurate
    point the hull stays flat, because a higher budget need not be spent.
    """
    front = pareto_front(cost, accuracy)
    hull: list[int] = []
    x, y = np.asarray(cost, dtype=np.float64)[front], np.asarray(accuracy, np.float64)[front]
    for i in range(len(front)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) > (y[i] - y[a]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    return x[hull], y[hull]


def worth_mixing(scores: Floats, costs: Floats) -> list[int]:
    """The options that the best mixtures mix, by rising mean cost: those on the hull."""
    cost, accuracy = np.mean(costs, axis=0), np.mean(scores, axis=0)
    x, y = nondecreasing_hull(cost, accuracy)
    return [
        int(np.flatnonzero((cost == a) & (accuracy == b))[0]) for a, b in zip(x, y, strict=True)
    ]


def aiq(cost: Floats, accuracy: Floats, *, low: float, high: float) -> float:
    """Average improvement in quality: mean accuracy of the hull over costs in [low, high].

    RouterBench (arXiv 2403.12031), 1 / (high - low) times the integral of the
    non-decreasing convex hull. Below the hull's first point nothing can be answered: 0.

    NOTE: the published code divides by the largest cost instead of (high - low), which differs
    from the paper's formula; this is the paper's.

    Raises:
        DataError: unless low < high.
    """
    if not low < high:
        raise DataError(f"AIQ needs a range of costs, low < high; it got {low} and {high}.")
    x, y = nondecreasing_hull(cost, accuracy)
    start = max(low, x[0])
    if start >= high:
        return 0.0
    inner = x[(x > start) & (x < high)]
    grid = np.concatenate([[start], inner, [high]])
    return float(np.trapezoid(np.interp(grid, x, y), grid) / (high - low))


def _points(cost: Floats, accuracy: Floats) -> tuple[Array, Array]:
    x: Array = np.asarray(cost, dtype=np.float64)
    y: Array = np.asarray(accuracy, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise DataError(f"A curve needs (P,) costs and accuracies; got {x.shape} and {y.shape}.")
    if not np.all(np.isfinite(x) & np.isfinite(y)):
        raise DataError("The costs and accuracies of a curve must be finite.")
    return x, y
