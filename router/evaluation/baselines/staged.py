"""From coarse to fine without any learning: stop at the first answer that is sure enough.

The usual cascade over models of rising cost (FrugalGPT, Chen et al., arXiv 2305.05176, with the
answer's own confidence in place of a learned scorer). Every answer on the way is paid for.

Notation for shapes: N examples, n rows, K options.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m3router.router.estimators.base import Floats
from m3router.router.evaluation.methods import Known, Rows
from m3router.router.metrics.curves import places
from m3router.router.policies.outcomes import Asked

STEPS = 400
"""Thresholds that are looked at to find those of the wanted costs."""


@dataclass(frozen=True, kw_only=True)
class Staged:
    """Options asked in order until a signal reaches the threshold; the last one always answers.

    Attributes:
        about: what it does, one sentence.
        signal: (N, K), higher is surer.
        costs: (N, K) of the options.
    """

    about: str
    signal: Floats
    costs: Floats
    knob: str | None = "threshold"
    reads: tuple[str, ...] = ()
    p: Floats | None = None

    def settings(self, rows: Rows, *, points: int) -> list[float]:
        """Thresholds from the most expensive, which nothing reaches, to the cheapest."""
        inner = self.signal[rows][:, :-1]
        if not inner.size:
            return [0.0]
        spread = np.quantile(inner, np.linspace(1, 0, STEPS), method="lower")
        tried = np.unique([*spread, np.nextafter(inner.max(), np.inf)])[::-1]
        cost = np.array([(self.costs[rows] * self.asks(rows, one).options).sum() for one in tried])
        wanted = places(float(cost.min()), float(cost.max()), points=points)
        # The cost falls along the thresholds.
        nearest = np.searchsorted(-cost, -wanted).clip(0, len(cost) - 1)
        return [float(one) for one in tried[np.unique([0, *nearest, len(tried) - 1])]]

    def asks(self, rows: Rows, setting: float) -> Asked:
        """Everything up to the first signal of at least the threshold."""
        signal = self.signal[rows]
        sure = signal >= setting
        sure[:, -1] = True
        final = np.argmax(sure, axis=1)
        options = np.arange(signal.shape[1]) <= final[:, None]
        return Asked(first=np.zeros_like(final), final=final, options=options)

    def calls(self, rows: Rows) -> Floats:
        """How unsure the first option is."""
        return np.asarray(-self.signal[rows][:, 0])


def by_confidence(known: Known) -> Staged:
    """The signal is the top probability of the answer's first token.

    Raises:
        NotLearnableError: when the log has no confidences.
    """
    return Staged(
        about="Asks from coarse to fine until the first token is likely enough; pays for all.",
        signal=known.need_answers("confidence", of="confidences"),
        costs=known.costs,
    )


def by_logprob(known: Known) -> Staged:
    """The signal is the log-probability of the whole answer.

    Raises:
        NotLearnableError: when the log has no log-probabilities.
    """
    return Staged(
        about="Asks from coarse to fine until the whole answer is likely enough; pays for all.",
        signal=known.need_answers("logprob", of="log-probabilities"),
        costs=known.costs,
    )
