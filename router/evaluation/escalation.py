"""The router with its own cascade, as one of the ways of choosing that are compared.

Notation for shapes: N examples of the log, n rows, K options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.errors import NotLearnableError
from m3router.router.cascade.learning import Answered, Learned, learn_cascade, spread_prices
from m3router.router.cascade.rule import STEPS
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.methods import Known, Rows
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.outcomes import Asked, Prices


@dataclass(frozen=True, kw_only=True)
class Escalating:
    """A router that asks again where an answer looks wrong; see `m3router.router.cascade.rule`.

    Attributes:
        learned: on the tune split.
        costs: (N, K) of the options by themselves.
        chances: (N, K) the router's probabilities.
        beliefs: (N, K, K) what answers make us believe; 0 outside of calibrate and test.
        reads: feature blocks that the router reads.
    """

    learned: Learned
    costs: Floats
    chances: Floats
    beliefs: npt.NDArray[np.float64]
    reads: tuple[str, ...]
    about: str = "The router, asking a finer option where its answer looks wrong; pays for both."
    knob: str | None = "price"
    p: Floats | None = None

    def settings(self, rows: Rows, *, points: int) -> list[float]:
        """Prices whose mean costs are spread over the range, ascending."""
        return spread_prices(self._costs(rows), lambda price: self.asks(rows, price), points=points)

    def tuned_prices(self, *, points: int) -> list[float]:
        """Prices from the tune split alone, ascending, for tests in a fixed order."""
        return spread_prices(self.learned.tune.costs, self.tuned_asks, points=points)

    def tuned_asks(self, price: float) -> Asked:
        """Everything that is asked of the tune split at a price, by beliefs of other folds."""
        tune, rule = self.learned.tune, self.learned.rule(price)
        return rule.ask(tune.p, tune.costs.routed, tune.costs.alone, self.learned.held, price)

    def asks(self, rows: Rows, setting: float) -> Asked:
        """Everything that is asked at a price."""
        p, costs = self.chances[rows], self._costs(rows)
        rule = self.learned.rule(setting)
        return rule.ask(p, costs.routed, costs.alone, self.beliefs[rows], setting)

    def calls(self, rows: Rows) -> None:
        """None: it asks more than one option."""
        return None

    def describe(self) -> dict[str, Any]:
        """What was learned, JSON-able."""
        return {"asks_again": self.learned.helps, "steps": STEPS}

    def _costs(self, rows: Rows) -> Prices:
        alone = self.costs[rows]
        return Prices(alone=alone, routed=routed_costs(alone, self.reads))


def escalating(known: Known, p: Floats, *, reads: tuple[str, ...]) -> Escalating:
    """Learn when to ask again.

    Args:
        known: the log, without scores of the test split.
        p: (N, K) the router's probabilities.
        reads: feature blocks that the router reads.

    Raises:
        NotLearnableError: when the log has no confidences, or the probabilities of the tune split
            are not known.
    """
    confidence = known.need_answers("confidence", of="confidences")
    logprob = known.need_answers("logprob", of="log-probabilities")
    learned = learn_cascade(tune_answers(known, p, reads=reads))
    chances = np.asarray(p, dtype=np.float64)
    n, k = chances.shape
    beliefs = np.zeros((n, k, k))
    for part in ("calibrate", "test"):
        rows = known.rows[part]
        beliefs[rows] = learned.plain.believe(chances[rows], confidence[rows], logprob[rows])
    return Escalating(
        learned=learned, costs=known.costs, chances=chances, beliefs=beliefs, reads=reads
    )


def tune_answers(known: Known, p: Floats, *, reads: tuple[str, ...]) -> Answered:
    """What the tune split says; raises as `escalating`."""
    rows = known.rows["tune"]
    chances = np.asarray(p, dtype=np.float64)[rows]
    if not len(rows) or not np.all((chances >= 0) & (chances <= 1)):
        raise NotLearnableError("the router's probabilities of the tune split were not given")
    alone = known.costs[rows]
    return Answered(
        p=chances,
        confidence=known.confidence[rows],
        logprob=known.logprob[rows],
        scores=known.scores[rows],
        costs=Prices(alone=alone, routed=routed_costs(alone, reads)),
        groups=known.groups[rows],
    )
