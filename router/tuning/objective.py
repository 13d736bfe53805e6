"""How good a trial is: the accuracy of its cost/accuracy curve at low and at high budgets.

Notation for shapes: N examples, K options, B budgets.

NOTE: averages run over the logarithm of the budget, not over the budget as AIQ does. From 1 to
576 tokens, three quarters of AIQ's range lie above 144, where all routers answer alike; on the
logarithm every step from one scale to the next counts about the same. Both halves are always
defined, which "the cost at 99 % of the best accuracy" is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from m3router.router.estimators.base import Floats
from m3router.router.metrics.hull import nondecreasing_hull
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.price_sweep import sweep

Array = npt.NDArray[np.float64]
OBJECTIVES = ("accuracy at low budgets", "accuracy at high budgets")
BUDGETS = 33
"""Points of a curve; odd, so that both halves share the middle one."""
TOLERANCE = 1e-9


def budgets(costs: Floats) -> Array:
    """Budgets (B,) from the cheapest option's mean cost to the most expensive's, for costs (N, K).

    Evenly spaced in the logarithm; in the cost itself where something is free.
    """
    means = np.mean(costs, axis=0)
    low, high = float(means.min()), float(means.max())
    spaced = np.geomspace if low > 0 else np.linspace
    points: Array = spaced(low, high, BUDGETS)
    return points


def curve(p: Floats, costs: Floats, scores: Floats, *, at: Array, blocks: Iterable[str]) -> Array:
    """Accuracy (B,) that a router reaches at each budget, mixing two prices where it must.

    Args:
        p: predicted probabilities (N, K).
        costs: (N, K) of the options by themselves; a thrown-away peek is added.
        scores: (N, K).
        at: budgets (B,).
        blocks: names of the feature blocks that the router reads.
    """
    steps = sweep(p, routed_costs(costs, blocks), scores=scores)
    x, y = nondecreasing_hull(steps.cost, steps.accuracy)
    reached: Array = np.interp(at, x, y)
    return reached


def halves(reached: Floats) -> tuple[float, float]:
    """Mean accuracy over the lower and over the upper half of the budgets (`OBJECTIVES`)."""
    middle = len(reached) // 2
    return float(np.mean(reached[: middle + 1])), float(np.mean(reached[middle:]))


def dominated(reached: Floats, earlier: Sequence[Floats]) -> bool:
    """Whether a curve is nowhere above the median of earlier curves, and somewhere below it.

    Args:
        reached: accuracies (B,).
        earlier: curves of earlier trials at the same rung, each (B,).
    """
    gain = np.asarray(reached) - np.median(np.asarray(earlier), axis=0)
    return bool(np.all(gain <= TOLERANCE) and np.any(gain < -TOLERANCE))


def overall(values: Sequence[float]) -> float:
    """One number of both objectives: their mean, the accuracy over all budgets alike."""
    return float(np.mean(values))
