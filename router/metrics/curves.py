"""Curves of accuracy over mean cost: where to look at them, and what is read off them.

Notation for shapes: n examples, K options, P points of a curve; B samples (any leading shape, also
none), such as the draws of a bootstrap.

A curve is what a way of choosing reaches as its knob turns. Every way of choosing, the router
among them, is looked at in the same `POINTS` places, close together where costs are low. Between
two places it is a straight line, which tossing a coin between them reaches.

NOTE: RouterBench (arXiv 2403.12031) takes the non-decreasing convex hull of the points, chosen on
the very examples that are then measured. That picks the luckiest points: the more there are, the
further above the truth (0.7, 0.25 and 0.1 points on 40, 200 and 800 images with all points:
`experiments.intervals.hull`), and no bootstrap interval covers. Here nothing is chosen on the
measured examples. For probabilities that are calibrated the curve is concave by itself, so that
both agree in the limit. Which fixed options are worth mixing is chosen on other examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3router.router.metrics.choices import Array, Floats

POINTS = 160
"""Places of every curve. With twice as many, AIQ moved by at most 0.015 points on 400 simulated
questions and 0.005 on 3 000 (`tests/router/test_curves.py` has the world)."""
DECADES = 3.0
"""The places begin at 10^-DECADES of the whole range above the cheapest cost."""
RUNGS = 64
"""Prices that are measured to find where the places are."""
NOTHING = 1e-4
"""Probability that is not worth a thought: what all costs weigh at the lowest price above 0."""
HALVINGS = 40
NEAR = 0.001
"""Share of a budget within which a knob is near enough to it."""
CLOSE = 1e-9  # relative: means that are equal in theory may differ in their last digits


@dataclass(frozen=True)
class Curves:
    """Curves through points, straight between them.

    Attributes:
        cost: (B, P), rising.
        accuracy: (B, P).
    """

    cost: Array
    accuracy: Array

    def at(self, cost: Array) -> Array:
        """Accuracy (B,) at mean costs (B,); NaN below the first point, flat after the last."""
        before, after, share = self.between(cost)
        y0, y1 = _entry(self.accuracy, before), _entry(self.accuracy, after)
        known = np.asarray(cost) >= self.cost[..., 0] * (1 - CLOSE)
        return np.where(known, y0 + share * (y1 - y0), np.nan)

    def between(self, cost: Array) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Array]:
        """Which two points to mix for mean costs (B,): before, after, and the share of the latter.

        Costs outside of the curve's count as its ends.
        """
        x = self.cost
        cost = np.clip(np.asarray(cost, dtype=np.float64), x[..., 0], x[..., -1])
        after = np.clip((x < cost[..., None]).sum(axis=-1), 0, x.shape[-1] - 1)
        before = np.maximum(after - 1, 0)
        x0, x1 = _entry(x, before), _entry(x, after)
        share = np.divide(cost - x0, x1 - x0, out=np.ones_like(x0), where=x1 > x0)
        return before, after, np.clip(share, 0.0, 1.0)

    def area(self, low: float, high: float) -> Array:
        """AIQ: mean accuracy (B,) over costs in [low, high]; 0 below the first point.

        NaN unless low < high. After RouterBench (arXiv 2403.12031), without its hull; see the
        module.
        """
        if not low < high:
            return np.full(self.cost.shape[:-1], np.nan)
        x = np.clip(self.cost, low, high)
        rise, run = np.diff(self.accuracy, axis=-1), np.diff(self.cost, axis=-1)
        slope = np.divide(rise, run, out=np.zeros_like(rise), where=run > 0)
        begin, y = self.cost[..., :-1], self.accuracy[..., :-1]
        left, right = (y + slope * (end - begin) for end in (x[..., :-1], x[..., 1:]))
        inner = (np.diff(x, axis=-1) * (left + right) / 2).sum(axis=-1)
        beyond = (high - x[..., -1]) * self.accuracy[..., -1]
        return np.asarray((inner + beyond) / (high - low))

    def cost_of(self, accuracy: Array) -> Array:
        """Least mean cost (B,) at which the curve has accuracies (B,); NaN where it never does."""
        target = np.asarray(accuracy, dtype=np.float64)[..., None] - 1e-12
        enough = self.accuracy >= target
        first = np.argmax(enough, axis=-1)
        before = np.maximum(first - 1, 0)
        x0, x1 = _entry(self.cost, before), _entry(self.cost, first)
        y0, y1 = _entry(self.accuracy, before), _entry(self.accuracy, first)
        share = np.divide(target[..., 0] - y0, y1 - y0, out=np.ones_like(y0), where=y1 > y0)
        return np.where(enough.any(axis=-1), x0 + np.clip(share, 0, 1) * (x1 - x0), np.nan)


def curves(cost: Array, accuracy: Array) -> Curves:
    """Curves through points (B, P), whose costs go up or down with their place.

    In a draw, means of costs may go back by a little where a knob does not make every single
    question cheaper; the most expensive so far then counts.
    """
    x, y = np.broadcast_arrays(
        np.asarray(cost, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    )
    if x[..., 0].mean() > x[..., -1].mean():
        x, y = x[..., ::-1], y[..., ::-1]
    return Curves(np.maximum.accumulate(x, axis=-1), y)


def places(low: float, high: float, *, points: int = POINTS) -> Array:
    """Mean costs (P,) at which a curve is looked at, from `low` to `high`, rising.

    Evenly spaced in the logarithm of what is spent above `low`: at five options from 1 to 576
    tokens a third of the places lie below 7 tokens, and a third above 63.
    """
    steps = np.logspace(-DECADES, 0.0, max(points - 1, 1))
    return np.concatenate([[low], low + (high - low) * steps])


def ladder(
    cost_at: Callable[[float], float], costs: Floats, *, points: int = POINTS
) -> list[float]:
    """Prices, ascending, at which a way of choosing is near the mean costs of `places`.

    For what is not a choice between probabilities, so that its breakpoints are not known: costs
    are measured at `RUNGS` prices, and the prices between them are interpolated.

    Args:
        cost_at: mean cost at a price; falls as the price rises, at least on the whole.
        costs: (n, K) of the options.
        points: most prices.
    """
    most = float(costs.max())
    above = costs - costs.min(axis=1, keepdims=True)
    if not above.max() > 0:
        return [0.0]
    # From where all costs weigh nothing to where going beyond the cheapest option is worth no
    # probability; one example in a hundred may have options that are nearer to each other.
    step = float(np.quantile(np.where(above > 0, above, np.inf).min(axis=1), 0.01))
    tried = np.concatenate([[0.0], np.geomspace(NOTHING / most, max(1.0 / step, 1 / most), RUNGS)])
    found = np.minimum.accumulate([cost_at(float(price)) for price in tried])
    wanted = places(float(found[-1]), float(found[0]), points=points)
    # np.interp wants rising costs, so both run from the highest price down.
    prices = np.exp(np.interp(wanted, found[:0:-1], np.log(tried[:0:-1])))
    chosen = {0.0, float(tried[-1]), *prices.tolist()}
    return sorted(chosen)


def most_expensive_within(
    cost_at: Callable[[float], float], inside: float, outside: float, budget: float
) -> float:
    """The knob of highest mean cost within a budget, found by halving.

    Args:
        cost_at: mean cost at a value of the knob.
        inside: a value whose cost is within the budget.
        outside: a value whose cost is beyond it.
        budget: most mean cost.

    Returns:
        A value between the two, or `inside`, whose cost is within the budget: nearer to it than
        `NEAR`, unless the cost jumps there.
    """
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        if middle in (inside, outside):
            break
        cost = cost_at(middle)
        if cost > budget:
            outside = middle
            continue
        inside = middle
        if cost >= budget * (1 - NEAR):
            break
    return inside


def _entry(values: Array, at: npt.NDArray[np.intp]) -> Array:
    return np.take_along_axis(values, at[..., None], axis=-1)[..., 0]
