"""Learning a cascade; see `m3router.router.cascade.rule`.

Notation for shapes: n examples of the tune split, K options.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from m3router.data.errors import NotLearnableError
from m3router.router.cascade.rule import Array, Rule, Weights, known, seen
from m3router.router.estimators.base import Floats
from m3router.router.estimators.logistic import LogisticEstimator
from m3router.router.metrics.curves import curves, ladder
from m3router.router.policies.outcomes import Asked, Prices, outcome_of

FOLDS = 5
MOST = 10_000
"""Tune examples that are learned from at most, drawn at random by image."""
PRICES = 24
"""Places of the curve that the area on the tune split is taken over."""
PENALTY = 1.0


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Answers of the tune split.

    Attributes:
        p: (n, K) the router's probabilities.
        confidence: (n, K) in [0, 1], of each option's own answer.
        logprob: (n, K) in nats.
        scores: (n, K) in [0, 1].
        costs: of the options.
        groups: (n,) image of each example.
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


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What the tune split taught, for every price.

    Attributes:
        tune: its answers.
        plain: the rule that never asks again; holds the beliefs.
        held: (n, K, K) beliefs about the tune split, each learned from other images.
        helps: whether asking again was better than the plain router on the tune split.
    """

    tune: Answered
    plain: Rule
    held: Array
    helps: bool = True
    _rules: dict[float, Rule] = field(default_factory=dict, repr=False, compare=False)

    def rule(self, price: float) -> Rule:
        """The rule at a price: how much starting at each option is worth, learned for it."""
        if not self.helps:
            return self.plain
        if price not in self._rules:
            every = np.ones(len(self.tune.p), dtype=bool)
            start = _start(self.tune, self._futures(price), every)
            self._rules[price] = replace(self.plain, start=start)
        return self._rules[price]

    def asked(self, price: float, fold: npt.NDArray) -> Asked:
        """What would be asked on the tune split, each fold by what the others taught."""
        futures, tune = self._futures(price), self.tune
        first = np.zeros(len(fold), dtype=np.intp)
        for number in np.unique(fold):
            inside = fold == number
            rule = replace(self.plain, start=_start(tune, futures, ~inside))
            first[inside] = rule.first(tune.p[inside], tune.costs.routed[inside], price)
        return self._onwards(first, price)

    def _futures(self, price: float) -> Array:
        """(n, K): the score in the end less the price of all later answers, by first option."""
        tune = self.tune
        alone, rows = tune.costs.alone, np.arange(len(tune.p))
        futures = np.zeros(tune.p.shape)
        for k in range(tune.p.shape[1]):
            asked = self._onwards(np.full(len(rows), k, dtype=np.intp), price)
            later = np.where(asked.options, alone, 0.0).sum(axis=1) - alone[:, k]
            futures[:, k] = tune.scores[rows, asked.final] - price * later
        return futures

    def _onwards(self, first: npt.NDArray[np.intp], price: float) -> Asked:
        """What is asked on the tune split from first options (n,) on."""
        return self.plain.onwards(first, self.tune.costs.alone, self.held, price)


def learn_cascade(tune: Answered, *, seed: int = 0) -> Learned:
    """Learn what answers tell, and whether asking again helps.

    Raises:
        NotLearnableError: when the tune split has fewer images than folds.
    """
    images, member = np.unique(tune.groups, return_inverse=True)
    if len(images) < 2 * FOLDS:
        raise NotLearnableError(
            f"the tune split has {len(images)} image{'' if len(images) == 1 else 's'}, too "
            f"few to learn when to stop (at least {2 * FOLDS}): label more, or give it a larger "
            "share (`m3router train --split-share`)"
        )
    shuffled = np.random.default_rng(seed).permutation(len(images))[member.reshape(-1)]
    if len(tune.p) > MOST:
        kept = np.flatnonzero(shuffled < len(images) * MOST / len(tune.p))
        tune, shuffled = tune.take(kept), shuffled[kept]
    fold = shuffled % FOLDS
    held = np.zeros((*tune.p.shape, tune.p.shape[1]))
    for number in np.unique(fold):
        inside = np.flatnonzero(fold == number)
        part, rule = tune.take(inside), _beliefs(tune.take(np.flatnonzero(fold != number)))
        held[inside] = rule.believe(part.p, part.confidence, part.logprob)
    learned = Learned(tune=tune, plain=_beliefs(tune), held=held)

    def asked(price: float) -> Asked:
        return learned.asked(price, fold)

    # Each curve at places of its own: a cascade spends other sums at a price than its router.
    own = spread_prices(tune.costs, asked, points=PRICES)
    alone = spread_prices(tune.costs, plain(tune), points=PRICES)
    helps = area(tune, asked, own) > area(tune, plain(tune), alone)
    return replace(learned, helps=helps, _rules={})


def plain(tune: Answered) -> Callable[[float], Asked]:
    """What the router alone asks at a price."""
    nothing = Rule(beliefs=())
    return lambda price: Asked.once(
        nothing.first(tune.p, tune.costs.routed, price), options=tune.p.shape[1]
    )


def area(tune: Answered, asked: Callable[[float], Asked], listed: Sequence[float]) -> float:
    """Area under the curve over prices, over the range of the options' mean costs (AIQ)."""
    points = [
        (found.cost.mean(), found.score.mean())
        for price in listed
        for found in [outcome_of(asked(price), scores=tune.scores, costs=tune.costs, gflops=None)]
    ]
    cost, accuracy = np.array(points).T
    means = tune.costs.alone.mean(axis=0)
    low, high = float(means.min()), float(means.max())
    if not low < high:
        return float(accuracy.max())
    return float(curves(cost, accuracy).area(low, high))


def spread_prices(costs: Prices, asked: Callable[[float], Asked], *, points: int) -> list[float]:
    """Prices, ascending, at which `asked` is spread over mean costs; see `curves.ladder`."""
    return ladder(lambda price: float(costs.of(asked(price)).mean()), costs.alone, points=points)


def _beliefs(part: Answered) -> Rule:
    """The rule that never asks again, with what an answer at each option tells."""
    rows = []
    for k in range(part.p.shape[1]):
        read = seen(part.p, part.confidence[:, k], part.logprob[:, k])
        fitted = LogisticEstimator(C=PENALTY).fit(read, part.scores)
        rows.append(tuple(np.vstack([fitted.coef_, fitted.bias_]).ravel().tolist()))
    return Rule(beliefs=tuple(rows))


def _start(tune: Answered, futures: Array, rows: npt.NDArray[np.bool_]) -> Weights:
    """Ridge regression of the futures (n, K) on what the router knows."""
    read = np.column_stack([known(tune.p[rows]), np.ones(int(rows.sum()))])
    gram = read.T @ read + PENALTY * np.diag([*[1.0] * (read.shape[1] - 1), 0.0])
    weights = np.linalg.solve(gram, read.T @ futures[rows])
    return tuple(map(tuple, weights.tolist()))
