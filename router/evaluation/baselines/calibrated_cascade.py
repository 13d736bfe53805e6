"""A cascade at its best without features: calibrated signals, the best chain, the best stops.

What an answer says about itself, how likely its first token was and all of it, becomes a
probability that it is right, for each option by a logistic regression. A *chain* is some of the
options from coarse to fine. At every price the chain, and at each of its stages whether to go on,
are chosen for the largest mean of score - price * cost on the fit and tune splits. The stops come
from the end of the chain backwards: what going on is worth is regressed on the probability of the
answer in hand (least-squares value functions; Longstaff and Schwartz, Review of Financial Studies
14, 2001), and the cascade stops where that probability is at least as much.

FrugalGPT (Chen et al., arXiv 2305.05176) learns chain and thresholds for a budget in the same
spirit, with a scorer that reads the answer's text.

Notation for shapes: N examples, n rows, K options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import numpy.typing as npt

from m3router.data.errors import NotLearnableError
from m3router.router.cascade.rule import odds
from m3router.router.estimators.base import Floats
from m3router.router.estimators.logistic import LogisticEstimator
from m3router.router.evaluation.baselines.classes import sampled
from m3router.router.evaluation.methods import Known, Rows
from m3router.router.metrics.curves import ladder
from m3router.router.policies.outcomes import Asked

PENALTY = 1.0
MOST = 6000
"""Examples that are learned from at most: a plan has a dozen numbers, and one is made per price."""
MOST_OPTIONS = 8
"""Options above which chains have at most `LONGEST` stages, as there are 2^K - 1 in all."""
LONGEST = 3

Array = npt.NDArray[np.float64]
Chain = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What is asked at one price.

    Attributes:
        chain: options, from coarse to fine.
        onwards: for each stage but the last, weights of what going on is worth.
    """

    chain: Chain
    onwards: tuple[Array, ...]


@dataclass(frozen=True, kw_only=True)
class CalibratedCascade:
    """Which options are asked in which order, and where it stops, at every price.

    Attributes:
        chances: (N, K) probability that an option's own answer is right, given what it looks like.
        scores: (N, K); only read in `learnt`.
        costs: (N, K) of the options by themselves.
        learnt: rows that plans are learned from.
        options: K.
    """

    chances: Floats
    scores: Floats
    costs: Floats
    learnt: Rows
    about: str = (
        "Asks the best chain of options, going on while that is worth more than the answer in "
        "hand, whose confidence and log-probability are calibrated; pays for all."
    )
    knob: str | None = "price"
    reads: tuple[str, ...] = ()
    p: Floats | None = None
    _plans: dict[float, Plan] = field(default_factory=dict, repr=False, compare=False)
    _known: list[_Regression] = field(default_factory=list, repr=False, compare=False)

    def settings(self, rows: Rows, *, points: int) -> list[float]:
        """Prices whose mean costs are spread over the range, ascending."""

        def cost_at(price: float) -> float:
            return float((self.asks(rows, price).options * self.costs[rows]).sum(axis=1).mean())

        return ladder(cost_at, self.costs[rows], points=points)

    def asks(self, rows: Rows, setting: float) -> Asked:
        """Every option up to where the cascade stops."""
        plan = self.plan(setting)
        options = np.zeros((len(rows), self.scores.shape[1]), dtype=bool)
        final = np.full(len(rows), plan.chain[-1], dtype=np.intp)
        going = np.ones(len(rows), dtype=bool)
        for option, weights in zip(plan.chain, (*plan.onwards, None), strict=True):
            options[:, option] = going
            final[going] = option
            if weights is not None:
                chance = self.chances[rows, option]
                going = going & (chance < read(chance) @ weights)
        first = np.full(len(rows), plan.chain[0], dtype=np.intp)
        return Asked(first=first, final=final, options=options)

    def calls(self, rows: Rows) -> None:
        """None: it asks more than one option."""
        return None

    def plan(self, price: float) -> Plan:
        """The best chain at a price, with its stops."""
        if price not in self._plans:
            self._plans[price] = self._best(price)
        return self._plans[price]

    def _best(self, price: float) -> Plan:
        scores, chances = self.scores[self.learnt], np.asarray(self.chances[self.learnt], float)
        spent = price * self.costs[self.learnt]
        if not self._known:
            self._known.extend(_Regression.of(chance) for chance in chances.T)
        worth: dict[Chain, Array] = {}  # chain -> (n,) what asking it brings, costs paid
        weights: dict[Chain, Array] = {}  # chain -> what going on behind its first option is worth
        best: tuple[float, Chain] | None = None
        for chain in chains(scores.shape[1]):
            option, rest = chain[0], chain[1:]
            gain = scores[:, option]
            if rest:
                known = self._known[option]
                weights[chain] = known.weights(worth[rest])
                onwards = chances[:, option] < known.read @ weights[chain]
                gain = np.where(onwards, worth[rest], gain)
            worth[chain] = gain - spent[:, option]
            value = float(worth[chain].mean())
            if best is None or value > best[0]:
                best = value, chain
        assert best is not None  # there is at least one option
        chain = best[1]
        return Plan(chain, tuple(weights[chain[i:]] for i in range(len(chain) - 1)))


@dataclass(frozen=True)
class _Regression:
    """Least squares on what stopping is decided by: (n, 4), and what makes weights of a target."""

    read: Array
    solver: Array

    @classmethod
    def of(cls, chance: Array) -> _Regression:
        known = read(chance)
        gram = known.T @ known + PENALTY * np.diag([1.0, 1.0, 1.0, 0.0])
        return cls(known, np.asarray(np.linalg.solve(gram, known.T), dtype=np.float64))

    def weights(self, target: Array) -> Array:
        return np.asarray(self.solver @ target)


def fit(known: Known) -> CalibratedCascade:
    """Learn what answers say about themselves.

    Raises:
        NotLearnableError: when the log has no confidences or log-probabilities, or nothing to
            learn from.
    """
    confidence = known.need_answers("confidence", of="confidences")
    logprob = known.need_answers("logprob", of="log-probabilities")
    said = np.isfinite(confidence) & np.isfinite(logprob)
    learnt = sampled(known.learnt[said[known.learnt].all(axis=1)], most=MOST)
    if not len(learnt):
        raise NotLearnableError("the fit and tune splits have no complete example")
    used = np.concatenate([learnt, known.rows["calibrate"], known.rows["test"]])
    chances = np.full(known.scores.shape, np.nan)
    for k in range(known.scores.shape[1]):
        signal = np.column_stack([odds(confidence[used, k]), odds(np.exp(logprob[used, k]))])
        signal = np.hstack([signal, signal**2 / 10])
        estimator = LogisticEstimator(C=PENALTY)
        estimator.fit(signal[: len(learnt)], known.scores[learnt][:, [k]])
        chances[used, k] = estimator.predict(signal)[:, 0]
    return CalibratedCascade(chances=chances, scores=known.scores, costs=known.costs, learnt=learnt)


def chains(options: int) -> Sequence[Chain]:
    """All chains over so many options, each after those that it ends in.

    >>> chains(2)
    [(0,), (1,), (0, 1)]
    """
    longest = options if options <= MOST_OPTIONS else LONGEST
    return [chain for size in range(1, longest + 1) for chain in combinations(range(options), size)]


def read(chance: Floats) -> Array:
    """What stopping is decided by, (n, 4), from the probability of the answer in hand (n,)."""
    return np.column_stack([odds(chance), chance, chance**2, np.ones_like(chance)])
