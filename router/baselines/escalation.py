"""The router with its own cascade, as one of the ways of choosing that are compared.

Notation for shapes: N examples of the log, n rows, K options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from data.errors import NotLearnableError
from router.baselines.base import Known, Rows
from router.cascade import STEPS, Beliefs, Stopping
from router.costs import routed_costs
from router.estimators.base import Floats
from router.outcomes import Asked, Prices
from router.stopping import Answered, learn_stopping, prices


@dataclass(frozen=True, kw_only=True)
class Escalating:
    """A router that asks again where an answer looks wrong; see `router.cascade`.

    Attributes:
        stopping: learned on the tune part.
        costs: (N, K) of the options by themselves.
        chances: (N, K) the router's probabilities.
        beliefs: what answers make us believe, of all N; 0 outside of calibrate and test.
        reads: see `Contender`.
    """

    stopping: Stopping
    costs: Floats
    chances: Floats
    beliefs: Beliefs
    reads: tuple[str, ...]
    about: str = "The router, asking a finer option where its answer looks wrong; pays for both."
    knob: str | None = "price"
    p: Floats | None = None

    def settings(self, rows: Rows, *, points: int) -> list[float]:
        """Prices; see `Contender`."""
        return prices(self.stopping, self.chances[rows], self._costs(rows), points=points)

    def asks(self, rows: Rows, setting: float) -> Asked:
        """Everything that is asked at a price; see `Contender`."""
        p, costs = self.chances[rows], self._costs(rows)
        beliefs = Beliefs(self.beliefs.right[rows], self.beliefs.later[rows])
        return self.stopping.ask(p, costs.routed, costs.alone, beliefs, setting)

    def calls(self, rows: Rows) -> None:
        """It asks more than one option; see `Contender`."""
        return None

    def describe(self) -> dict[str, Any]:
        """What was learned, JSON-able."""
        rule = self.stopping
        return {"eager": rule.eager, "margin": rule.margin, "steps": STEPS}

    def _costs(self, rows: Rows) -> Prices:
        alone = self.costs[rows]
        return Prices(alone=alone, routed=routed_costs(alone, self.reads))


def escalating(known: Known, p: Floats, *, reads: tuple[str, ...]) -> Escalating:
    """Learn when to ask again.

    Args:
        known: the log, without scores of the test part.
        p: (N, K) the router's probabilities.
        reads: feature blocks that the router reads.

    Raises:
        NotLearnableError: when the log has no confidences, or the probabilities of the tune part
            are not known.
    """
    confidence = known.need_answers("confidence", of="confidences")
    logprob = known.need_answers("logprob", of="log-probabilities")
    stopping = learn_stopping(tune_answers(known, p, reads=reads))
    chances = np.asarray(p, dtype=np.float64)
    n, k = chances.shape
    beliefs = Beliefs(np.zeros((n, k)), np.zeros((n, k, k)))
    for part in ("calibrate", "test"):
        rows = known.rows[part]
        found = stopping.beliefs(chances[rows], confidence[rows], logprob[rows])
        beliefs.right[rows], beliefs.later[rows] = found.right, found.later
    return Escalating(
        stopping=stopping, costs=known.costs, chances=chances, beliefs=beliefs, reads=reads
    )


def tune_answers(known: Known, p: Floats, *, reads: tuple[str, ...]) -> Answered:
    """What the tune part says; raises as `escalating`."""
    rows = known.rows["tune"]
    chances = np.asarray(p, dtype=np.float64)[rows]
    if not len(rows) or not np.all((chances >= 0) & (chances <= 1)):
        raise NotLearnableError("the router's probabilities of the tune part were not given")
    alone = known.costs[rows]
    return Answered(
        p=chances,
        confidence=known.confidence[rows],
        logprob=known.logprob[rows],
        scores=known.scores[rows],
        costs=Prices(alone=alone, routed=routed_costs(alone, reads)),
        groups=known.groups[rows],
    )
