"""The curve of probabilities under the rule of every policy: which prices, what they choose.

Notation for shapes: n examples, K options, P prices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3router.router.metrics.choices import Array, Floats, taken
from m3router.router.metrics.curves import POINTS, places
from m3router.router.policies.price_sweep import check_inputs, choose_at, sweep


def curve_prices(p: Floats, costs: Floats, *, points: int = POINTS) -> list[float]:
    """Prices, ascending, that reach the mean costs of `places` as nearly as any price does.

    Args:
        p: probabilities (n, K).
        costs: (n, K).
        points: most prices.
    """
    p, costs = check_inputs(p, costs)
    steps = sweep(p, costs)
    wanted = places(float(steps.cost[-1]), float(steps.cost[0]), points=points)
    # The mean cost falls as the price rises; the first price at or below each wanted cost.
    nearest = np.searchsorted(-steps.cost, -wanted).clip(0, len(steps.cost) - 1)
    nearest[0], nearest[-1] = len(steps.cost) - 1, 0
    return [float(price) for price in steps.prices[np.unique(nearest)]]


def curve_rows(
    p: Floats,
    scores: Floats,
    costs: Floats,
    prices: Sequence[float],
    *,
    paid: Floats | None = None,
) -> tuple[Array, Array]:
    """Cost (n, P) and score (n, P) of every example at every price; their means are the curve.

    Choices go by the costs (n, K); what counts is what is paid (n, K), where that is given.
    """
    choices = [choose_at(p, costs, price) for price in prices]
    spent = np.stack([taken(costs if paid is None else paid, one) for one in choices], axis=1)
    return spent, np.stack([taken(scores, choice) for choice in choices], axis=1)
