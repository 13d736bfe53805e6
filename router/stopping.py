"""Learning when a cascade stops; see `router.cascade`.

Notation for shapes: n examples of the tune part, K options.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data.errors import NotLearnableError
from router.analysis.curves import curve_prices
from router.analysis.hulls import concave_hulls
from router.cascade import Beliefs, Stopping, later_features, right_features
from router.estimators.base import Floats
from router.estimators.logistic import LogisticEstimator
from router.outcomes import Prices, outcome_of

FOLDS = 5
MOST = 10_000
"""Tune examples that are learned from at most, drawn at random by picture."""
EAGER = (1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
MARGINS = (0.0, 0.03, 0.1, 0.2)
PRICES = 24
PENALTY = 1.0


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Answers of the tune part.

    Attributes:
        p: (n, K) the router's probabilities.
        confidence: (n, K) in [0, 1], of each option's own answer.
        logprob: (n, K) in nats.
        scores: (n, K) in [0, 1].
        costs: of the options.
        groups: (n,) picture of each example.
    """

    p: Floats
    confidence: Floats
    logprob: Floats
    scores: Floats
    costs: Prices
    groups: npt.NDArray

    def take(self, rows: npt.NDArray) -> Answered:
        """Some of the examples."""
        costs = Prices(alone=self.costs.alone[rows], routed=self.costs.routed[rows])
        return Answered(
            p=self.p[rows],
            confidence=self.confidence[rows],
            logprob=self.logprob[rows],
            scores=self.scores[rows],
            costs=costs,
            groups=self.groups[rows],
        )


def learn_stopping(tune: Answered, *, seed: int = 0) -> Stopping:
    """Learn q and r, and choose how eager the cascade is and when it asks again.

    Raises:
        NotLearnableError: when the tune part has fewer pictures than folds.
    """
    pictures, member = np.unique(tune.groups, return_inverse=True)
    if len(pictures) < 2 * FOLDS:
        raise NotLearnableError(
            f"the tune part has {len(pictures)} pictures, too few to learn when to stop "
            f"(at least {2 * FOLDS})"
        )
    shuffled = np.random.default_rng(seed).permutation(len(pictures))[member.reshape(-1)]
    if len(tune.p) > MOST:
        kept = np.flatnonzero(shuffled < len(pictures) * MOST / len(tune.p))
        tune, shuffled = tune.take(kept), shuffled[kept]
    fold = shuffled % FOLDS
    n, k = tune.p.shape
    held = Beliefs(np.zeros((n, k)), np.zeros((n, k, k)))
    for number in range(FOLDS):
        inside = np.flatnonzero(fold == number)
        if not len(inside):
            continue
        part = tune.take(inside)
        fitted = _fit(tune.take(np.flatnonzero(fold != number)))
        found = fitted.beliefs(part.p, part.confidence, part.logprob)
        held.right[inside], held.later[inside] = found.right, found.later
    learned = _fit(tune)
    plain = area(learned, tune, held)
    tried = [(plain, learned)] + [
        (area(one, tune, held), one)
        for eager in EAGER
        for margin in MARGINS
        for one in [replace(learned, eager=eager, margin=margin)]
    ]
    best = max(tried, key=lambda pair: pair[0])[1]  # the first of equals: the plain router
    own = learned.beliefs(tune.p, tune.confidence, tune.logprob)
    return best if area(best, tune, own) >= plain else learned


def area(stopping: Stopping, tune: Answered, beliefs: Beliefs) -> float:
    """Area under the curve of a cascade, over the range of the options' mean costs (AIQ)."""
    points = [
        (found.cost.mean(), found.score.mean())
        for price in prices(stopping, tune.p, tune.costs, points=PRICES)
        for asked in [stopping.ask(tune.p, tune.costs.routed, tune.costs.alone, beliefs, price)]
        for found in [outcome_of(asked, scores=tune.scores, costs=tune.costs, gflops=None)]
    ]
    cost, accuracy = np.array(points).T
    means = tune.costs.alone.mean(axis=0)
    low, high = float(means.min()), float(means.max())
    if not low < high:
        return float(accuracy.max())
    return float(concave_hulls(cost, accuracy).area(low, high))


def prices(stopping: Stopping, p: Floats, costs: Prices, *, points: int) -> list[float]:
    """Prices from the dearest outcome to the cheapest, ascending.

    An eager cascade's first option changes at lower prices than a finer option is still asked at,
    so both the router's own prices and those divided by the eagerness are looked at.
    """
    own = curve_prices(p, costs.routed, points=points)
    if stopping.eager == 1.0 or stopping.margin is None:
        return own
    first = [price / stopping.eager for price in own]
    both = sorted({*own[:: 2 if len(own) > 2 else 1], own[-1], *first[::2], first[-1]})
    return both


def _fit(part: Answered) -> Stopping:
    """Q and r of all options and pairs, as weights."""
    k = part.p.shape[1]
    right = LogisticEstimator(C=PENALTY).fit(
        right_features(part.p, part.confidence, part.logprob), part.scores.reshape(-1, 1)
    )
    q = right.predict(right_features(part.p, part.confidence, part.logprob)).reshape(-1, k)
    pairs = np.broadcast_to(np.triu(np.ones((k, k), dtype=bool), 1), (len(part.p), k, k)).ravel()
    then = np.broadcast_to(part.scores[:, None, :], (len(part.p), k, k)).ravel()
    later_z = later_features(part.p, q, part.logprob)
    later = LogisticEstimator(C=PENALTY).fit(
        later_z[pairs] if pairs.any() else later_z, (then[pairs] if pairs.any() else then)[:, None]
    )
    return Stopping(right=_weights(right), later=_weights(later))


def _weights(fitted: LogisticEstimator) -> tuple[float, ...]:
    return (*map(float, fitted.coef_[:, 0]), float(fitted.bias_[0]))
