"""What knowing where to look is worth at every price: the curve of the corrected oracle.

Notation for shapes: n examples, K options, cheapest first by name, P prices.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from m3router.router.metrics.choices import Array, Floats
from m3router.router.metrics.curves import POINTS
from m3router.router.metrics.oracles import corrected_rows


def corrected_curve(
    scores: Floats,
    costs: Floats,
    chance: Floats,
    *,
    points: int = POINTS,
    repeats: npt.NDArray[np.bool_] | None = None,
) -> tuple[Array, Array]:
    """Scores (n, P) and costs (n, P) of the oracle corrected for chance, at rising prices.

    An oracle of knowledge pays for option k only where that is worth it: a right answer gains at
    most 1 - g over a guess at the cheapest option c, so at the price w it looks at the options with
    w (cost_k - cost_c) < 1 - g. Which those are depends on no answer, so the correction of these
    options alone (`m3router.router.metrics.oracles.corrected_rows`) estimates that oracle as it
    does the one of all options. At price 0 that is the whole oracle, at the highest the cheapest
    option.

    Args:
        scores: (n, K) in [0, 1].
        costs: (n, K).
        chance: (n,) in [0, 1).
        points: most prices beside 0.
        repeats: (n, K) where an answer is not a new guess, for the other end of the correction; see
            `m3router.router.metrics.oracles.corrected_oracle_rows`.
    """
    order = np.argsort(costs, axis=1, kind="stable")
    scores, costs = (np.take_along_axis(one, order, axis=1) for one in (scores, costs))
    if repeats is not None:
        repeats = np.take_along_axis(repeats, order, axis=1)
    k = scores.shape[1]
    tables = [
        found
        for m in range(1, k + 1)
        for same in [None if repeats is None else repeats[:, :m]]
        for found in [
            corrected_rows("first_correct", scores[:, :m], costs[:, :m], chance, repeats=same)
        ]
        if found is not None
    ]
    accuracy, cost = (np.stack([found[i] for found in tables], axis=1) for i in (0, 1))
    extra = costs - costs.min(axis=1, keepdims=True)
    gain = np.broadcast_to((1 - chance)[:, None], extra.shape)
    worth = np.divide(gain, extra, out=np.full(extra.shape, np.inf), where=extra > 0)
    edges = np.unique(worth[np.isfinite(worth)])
    if len(edges) > points:
        edges = np.unique(np.quantile(edges, np.linspace(0, 1, points), method="nearest"))
    rows = np.arange(len(extra))
    # At an edge itself the option is no longer worth its price.
    depths = [
        np.logical_and.accumulate(price < worth, axis=1)[:, 1:].sum(axis=1)
        for price in (0.0, *edges)
    ]
    return (
        np.stack([accuracy[rows, depth] for depth in depths], axis=1),
        np.stack([cost[rows, depth] for depth in depths], axis=1),
    )
