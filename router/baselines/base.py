"""What a baseline may know, and what it is: a way of choosing, with or without a knob.

Notation for shapes: N examples of the log, n rows of it, K options, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data.errors import NotLearnableError
from data.log.oracle_log import OracleLog
from router.analysis.curves import curve_prices
from router.costs import routed_costs
from router.estimators.base import Floats
from router.outcomes import Asked, Choice
from router.sweep import choose_at

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Known:
    """A log as baselines see it: no score of the test part is in it.

    Attributes:
        options: names of the options, cheapest first.
        scores: (N, K); NaN in the test part and where an example has a gap.
        costs: (N, K).
        confidence: (N, K) of the option's own answer; NaN where unknown.
        logprob: (N, K) of the option's own answer, in nats; NaN where unknown.
        lengths: (N, K) tokens of the answers; NaN where unknown.
        datasets: (N,).
        questions: (N,).
        groups: (N,).
        rows: part -> its complete rows: fit, tune, calibrate and test.
        references: whether the log holds probabilities of reference answers instead of answers;
            its confidences are then nothing that a deployed model knows.
        features: rows -> features (n, D) that the router reads; None without features.
        blocks: name -> width of the feature blocks that those are, side by side.
    """

    options: tuple[str, ...]
    scores: Floats
    costs: Floats
    confidence: Floats
    logprob: Floats
    lengths: Floats
    datasets: np.ndarray
    questions: np.ndarray
    groups: np.ndarray
    rows: Mapping[str, Rows]
    references: bool
    features: Callable[[Rows], Floats] | None = None
    blocks: Mapping[str, int] = field(default_factory=dict)

    @property
    def learnt(self) -> Rows:
        """Rows (n,) of fit and tune, where what needs no tuning is learned."""
        return np.concatenate([self.rows["fit"], self.rows["tune"]])

    @classmethod
    def of(
        cls,
        log: OracleLog,
        rows: Mapping[str, Rows],
        *,
        features: Callable[[Rows], Floats] | None = None,
        blocks: Mapping[str, int] | None = None,
    ) -> Known:
        """What is known of a log whose parts have these rows."""
        scores = np.full(log.scores.shape, np.nan)
        for part in ("fit", "tune", "calibrate"):
            scores[rows[part]] = log.scores[rows[part]]
        return cls(
            options=log.options,
            scores=scores,
            costs=log.costs,
            confidence=_column(log, "confidence"),
            logprob=_column(log, "logprob"),
            lengths=_column(log, "answer_tokens"),
            datasets=log.datasets.astype(str),
            questions=log.questions.astype(str),
            groups=log.groups.astype(str),
            rows=rows,
            references=log.metadata.get("asked") == "references",
            features=features,
            blocks=blocks or {},
        )

    def need_features(self) -> Callable[[Rows], Floats]:
        """The features.

        Raises:
            NotLearnableError: when there are none.
        """
        if self.features is None:
            raise NotLearnableError("no features were given")
        return self.features

    def need_answers(self, column: str, *, of: str) -> Floats:
        """What a log says about the options' own answers, (N, K): "confidence" or "logprob".

        Raises:
            NotLearnableError: when some are not known, or they are those of references.
        """
        values: Floats = getattr(self, column)
        used = np.concatenate([self.rows["tune"], self.rows["calibrate"], self.rows["test"]])
        lacking = int((~np.isfinite(values[used])).any(axis=1).sum())
        if lacking:
            some = "" if lacking == len(used) else f" for {lacking} of {len(used)} questions"
            raise NotLearnableError(f"the log has no {of}{some}")
        if self.references:
            raise NotLearnableError(
                f"the log's {of} are those of reference answers, which nobody knows beforehand"
            )
        return values


class Contender(Protocol):
    """A way of choosing options.

    Attributes:
        about: what it does, one sentence.
        knob: what is turned, "price" or "threshold"; None where there is nothing to turn.
        reads: feature blocks that it reads, which decides what a peek costs.
        p: (N, K) probabilities that it estimates; None without.
    """

    @property
    def about(self) -> str:
        """See the class."""
        ...

    @property
    def knob(self) -> str | None:
        """See the class."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """See the class."""
        ...

    @property
    def p(self) -> Floats | None:
        """See the class."""
        ...

    def settings(self, rows: Rows, *, points: int) -> list[float]:
        """Values of the knob whose mean costs are those of `router.analysis.curves.places`.

        Beginning with the dearest or with the cheapest.
        """
        ...

    def asks(self, rows: Rows, setting: float) -> Asked:
        """Which options it asks for these rows (n,) at a value of the knob."""
        ...

    def calls(self, rows: Rows) -> Floats | None:
        """How much the rows (n,) call for the last option instead of the first; None without."""
        ...


@dataclass(frozen=True, kw_only=True)
class Priced:
    """Probabilities, and the rule of every policy: argmax_k p_k - price * cost_k.

    Attributes:
        about: see `Contender`.
        p: (N, K) in [0, 1], finite wherever it is asked.
        costs: (N, K) of the options by themselves.
        reads: see `Contender`.
    """

    about: str
    p: Floats
    costs: Floats
    reads: tuple[str, ...] = ()
    knob: str | None = "price"

    def settings(self, rows: Rows, *, points: int) -> list[float]:
        """Prices; see `Contender`."""
        return curve_prices(self.p[rows], self._routed(rows), points=points)

    def asks(self, rows: Rows, setting: float) -> Asked:
        """The best option at a price; see `Contender`."""
        choice = choose_at(self.p[rows], self._routed(rows), setting)
        return Asked.once(choice, options=self.p.shape[1])

    def calls(self, rows: Rows) -> Floats:
        """The gain in probability; see `Contender`."""
        return np.asarray(self.p[rows][:, -1] - self.p[rows][:, 0])

    def _routed(self, rows: Rows) -> Floats:
        return routed_costs(self.costs[rows], self.reads)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One option for each example, whatever the price.

    Attributes:
        about: see `Contender`.
        choice: (N,) option; only read where it is asked.
        options: K.
        reads: see `Contender`.
    """

    about: str
    choice: Choice
    options: int
    reads: tuple[str, ...] = ()
    knob: str | None = None
    p: Floats | None = None

    def settings(self, rows: Rows, *, points: int) -> list[float]:
        """There is one setting; see `Contender`."""
        return [0.0]

    def asks(self, rows: Rows, setting: float) -> Asked:
        """The option; see `Contender`."""
        return Asked.once(self.choice[rows], options=self.options)

    def calls(self, rows: Rows) -> None:
        """It has no knob; see `Contender`."""
        return None


def _column(log: OracleLog, name: str) -> npt.NDArray[np.float64]:
    wide = log.laid_out(name)
    return np.asarray(wide, dtype=np.float64)
