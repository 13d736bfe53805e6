"""A router's curve on some examples: which prices to look at, and what each example does there.

Notation for shapes: n examples, K options, P prices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router.analysis.metrics import Array, taken
from router.estimators.base import Floats
from router.sweep import check_inputs, choose_at, sweep


def curve_prices(p: Floats, costs: Floats, *, points: int) -> list[float]:
    """At most `points` prices whose mean costs are spread evenly from dearest to cheapest.

    Args:
        p: probabilities (n, K).
        costs: (n, K).
        points: most prices.
    """
    p, costs = check_inputs(p, costs)
    steps = sweep(p, costs)
    wanted = np.linspace(steps.cost[0], steps.cost[-1], points)
    # ascending copies: the mean cost falls as the price rises
    nearest = np.searchsorted(-steps.cost, -wanted).clip(0, len(steps.cost) - 1)
    nearest[0], nearest[-1] = 0, len(steps.cost) - 1
    return [float(price) for price in steps.prices[np.unique(nearest)]]


def curve_rows(
    p: Floats, scores: Floats, costs: Floats, prices: Sequence[float]
) -> tuple[Array, Array]:
    """Cost (n, P) and score (n, P) of every example at every price; their means are the curve."""
    choices = [choose_at(p, costs, price) for price in prices]
    spent = np.stack([taken(costs, choice) for choice in choices], axis=1)
    return spent, np.stack([taken(scores, choice) for choice in choices], axis=1)
