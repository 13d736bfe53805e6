"""The methods that are compared: what a method is, what it may know, and how its knob is set.

A method is a way of choosing options, with a knob or without. Its knob is set on the calibrate
split; then it is asked on the test split, whose scores it never reads.

Notation for shapes: N examples of the log, n of one part or some rows of it, K options, D features,
P points of a curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from m3router.data.errors import NotLearnableError
from m3router.data.log.oracle_log import OracleLog
from m3router.router.cascade.rule import Cascade
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.price_curves import curve_prices
from m3router.router.evaluation.usage import LANGUAGE, LogUsage
from m3router.router.metrics.choices import best_fixed
from m3router.router.metrics.curves import POINTS, most_expensive_within
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.fitting import for_budget, for_max_loss
from m3router.router.policies.outcomes import Asked, Choice, Outcome, Prices, outcome_of
from m3router.router.policies.policy import Binding, Policy
from m3router.router.policies.price_sweep import choose_at
from m3router.router.text.numbers import plain

Rows = npt.NDArray[np.intp]
GOALS = {"saved_at_99": 0.99, "saved_at_100": 1.0}
"""Name -> share of the best fixed accuracy that is to be kept."""
CANDIDATES = 64
"""Settings that are tried on the calibration split; budgets are met more exactly than these."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A log as baselines see it: no score of the test split is in it.

    Attributes:
        options: names of the options, cheapest first.
        scores: (N, K); NaN in the test split and where an example has a gap.
        costs: (N, K) that choices go by: what is known of costs before an answer.
        confidence: (N, K) of the option's own answer; NaN where unknown.
        logprob: (N, K) of the option's own answer, in nats; NaN where unknown.
        lengths: (N, K) tokens of the answers; NaN where unknown.
        datasets: (N,).
        questions: (N,).
        groups: (N,).
        rows: part -> its complete rows: fit, tune, calibrate and test.
        sizes: (N, K) pixels of the image at each option, else its tokens, else `costs`.
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
    sizes: Floats
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
        costs: Floats | None = None,
        features: Callable[[Rows], Floats] | None = None,
        blocks: Mapping[str, int] | None = None,
    ) -> Known:
        """What is known of a log whose parts have these rows; costs are the log's where None."""
        scores = np.full(log.scores.shape, np.nan)
        for part in ("fit", "tune", "calibrate"):
            scores[rows[part]] = log.scores[rows[part]]
        return cls(
            options=log.options,
            scores=scores,
            costs=log.costs if costs is None else costs,
            confidence=_column(log, "confidence"),
            logprob=_column(log, "logprob"),
            lengths=_column(log, "answer_tokens"),
            datasets=log.datasets.astype(str),
            questions=log.questions.astype(str),
            groups=log.groups.astype(str),
            rows=rows,
            sizes=_sizes(log, log.costs if costs is None else costs),
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
                f"the log's {of} are those of reference answers, which are not known beforehand"
            )
        return values


class Method(Protocol):
    """A way of choosing options."""

    @property
    def about(self) -> str:
        """What it does, one sentence."""
        ...

    @property
    def knob(self) -> str | None:
        """What is turned, "price" or "threshold"; None where there is nothing to turn."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Feature blocks that it reads, which decides what a peek costs."""
        ...

    @property
    def p(self) -> Floats | None:
        """Probabilities (N, K) that it estimates; None without."""
        ...

    def settings(self, rows: Rows, *, points: int) -> list[float]:
        """Values of the knob whose mean costs are those of `m3router.router.metrics.curves.places`.

        Beginning with the most expensive or with the cheapest.
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
        about: what it does, one sentence.
        p: (N, K) in [0, 1], finite wherever it is asked.
        costs: (N, K) of the options by themselves, as they are known before an answer.
        reads: feature blocks that it reads.
    """

    about: str
    p: Floats
    costs: Floats
    reads: tuple[str, ...] = ()
    knob: str | None = "price"

    def settings(self, rows: Rows, *, points: int) -> list[float]:
        """Prices whose mean costs are spread over the range, ascending."""
        return curve_prices(self.p[rows], self.routed(rows), points=points)

    def asks(self, rows: Rows, setting: float) -> Asked:
        """The best option at a price."""
        choice = choose_at(self.p[rows], self.routed(rows), setting)
        return Asked.once(choice, options=self.p.shape[1])

    def calls(self, rows: Rows) -> Floats:
        """The gain in probability from the first to the last option."""
        return np.asarray(self.p[rows][:, -1] - self.p[rows][:, 0])

    def routed(self, rows: Rows) -> Floats:
        """Costs (n, K) that choices go by."""
        return routed_costs(self.costs[rows], self.reads)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One option for each example, whatever the price.

    Attributes:
        about: what it does, one sentence.
        choice: (N,) option; only read where it is asked.
        options: K.
        reads: feature blocks that it reads.
    """

    about: str
    choice: Choice
    options: int
    reads: tuple[str, ...] = ()
    knob: str | None = None
    p: Floats | None = None

    def settings(self, rows: Rows, *, points: int) -> list[float]:
        """There is one setting."""
        return [0.0]

    def asks(self, rows: Rows, setting: float) -> Asked:
        """The option, whatever the setting."""
        return Asked.once(self.choice[rows], options=self.options)

    def calls(self, rows: Rows) -> None:
        """None: it has no knob."""
        return None


@dataclass(frozen=True, kw_only=True)
class Part:
    """The rows of one part: scores, costs and gflops (n, K), groups and chance (n,).

    `said` are codes (n, K) of the answers, equal codes for equal answers; None where some answer
    is not known. `usage` is what else answers used; None where nobody asks.
    """

    rows: npt.NDArray[np.intp]
    scores: Floats
    costs: Floats
    gflops: Floats | None
    groups: np.ndarray
    chance: Floats
    said: npt.NDArray[np.integer] | None = None
    usage: LogUsage | None = None

    @property
    def amounts(self) -> dict[str, Floats]:
        """Name -> (n, K) what each option uses by itself beside its cost, NaN where not known."""
        found = {} if self.gflops is None else {LANGUAGE: self.gflops}
        return found if self.usage is None else found | self.usage.alone(self.gflops)

    def spent(
        self, asked: Asked, *, reads: Sequence[str], gflops: Floats | None
    ) -> dict[str, Floats]:
        """Name -> (n,) what asking used, where it is known of all rows; see `LogUsage.spent`."""
        found = {} if gflops is None else {LANGUAGE: gflops}
        if self.usage is not None:
            found |= self.usage.spent(asked, reads=reads, language=gflops)
        return {name: values for name, values in found.items() if np.isfinite(values).all()}

    def outcome(self, asked: Asked, *, reads: Sequence[str]) -> Outcome:
        """What asking led to, behind a router that reads these feature blocks."""
        work = self.gflops
        return outcome_of(
            asked,
            scores=self.scores,
            costs=Prices(alone=self.costs, routed=routed_costs(self.costs, reads)),
            gflops=None if work is None else Prices(alone=work, routed=routed_costs(work, reads)),
        )


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way of turning the knob.

    Attributes:
        name: of the row.
        asked: what it asks on the test split.
        policy: how it was chosen.
        against: option (n,) that its regret is against; None for that of the whole table.
    """

    name: str
    asked: Asked
    policy: Mapping[str, Any] | None = None
    against: npt.NDArray[np.intp] | None = None


@dataclass(frozen=True, kw_only=True)
class AppliedMethod:
    """One way of choosing on the test split.

    Attributes:
        about: what it does, one sentence.
        reads: feature blocks that it reads.
        settings: for the rows of the table.
        knob: "price" or "threshold"; None without a curve.
        values: (P,) values of the knob along the curve.
        curve: what each of them asks.
        goals: name in `GOALS` -> the cheapest setting that reached it on the calibration split.
        p: (n, K) probabilities, None without.
        calls: (n,) how much each example calls for the last option instead of the first.
    """

    about: str
    reads: tuple[str, ...]
    settings: Sequence[Setting]
    knob: str | None = None
    values: Sequence[float] = ()
    curve: Sequence[Asked] = ()
    goals: Mapping[str, Setting] = field(default_factory=dict)
    p: Floats | None = None
    calls: Floats | None = None


def apply_method(
    method: Method,
    calibrate: Part,
    test: Part,
    *,
    budgets: Sequence[float],
    binding: Binding,
    policies: Mapping[str, Policy] | None = None,
    reference: str = "",
) -> AppliedMethod:
    """Set a method's knob on the calibration split and ask it on the test split.

    Args:
        method: not read outside of the two parts.
        calibrate: with its scores.
        test: its scores are not read.
        budgets: mean costs, one setting for each.
        binding: what policies belong to.
        policies: further policies of a method with probabilities, calibrated before.
        reference: name of the option that policies for budgets are compared with, "" for the last.

    Raises:
        DataError: for a budget below the cheapest option.
    """
    if isinstance(method, Priced):
        chosen = _policies(method, calibrate, budgets, binding, reference)
        settings = [
            _by_policy(name, policy, method, test)
            for name, policy in {**(policies or {}), **chosen}.items()
        ]
        goals = {
            goal: _by_policy(goal, _saving(method, calibrate, share, binding), method, test)
            for goal, share in GOALS.items()
        }
    elif method.knob is None:
        return AppliedMethod(
            about=method.about,
            reads=method.reads,
            settings=[Setting(name="as it is", asked=method.asks(test.rows, 0.0))],
        )
    else:
        tried = _TriedSettings(method, calibrate, test, binding.options)
        settings = [tried.within(budget) for budget in budgets]
        goals = {goal: tried.keeping(goal, share) for goal, share in GOALS.items()}
    values = method.settings(test.rows, points=POINTS)
    return AppliedMethod(
        about=method.about,
        reads=method.reads,
        settings=settings,
        knob=method.knob,
        values=values,
        curve=[method.asks(test.rows, value) for value in values],
        goals=goals,
        p=None if method.p is None else method.p[test.rows],
        calls=method.calls(test.rows),
    )


def cascade_settings(
    cascades: Mapping[str, Cascade], known: Known, p: Floats, test: Part, *, reads: Sequence[str]
) -> list[Setting]:
    """What cascades that were calibrated before ask on the test split.

    Raises:
        MismatchError: when a cascade belongs to other options.
    """
    settings, rows = [], test.rows
    alone = known.costs[rows]
    routed = routed_costs(alone, reads)
    for name, cascade in cascades.items():
        cascade.check_fits(options=known.options)
        beliefs = cascade.rule.believe(p[rows], known.confidence[rows], known.logprob[rows])
        asked = cascade.rule.ask(p[rows], routed, alone, beliefs, cascade.price)
        policy = {
            "kind": "cascade",
            "reference": cascade.reference,
            "guarantee": dict(cascade.guarantee),
            "value": cascade.price,
            "knob": dict(cascade.knob),
            "calibration": dict(cascade.calibration),
            "fallback": False,
            "reason": "",
        }
        against = np.full(len(rows), cascade.reference_index, dtype=np.intp)
        settings.append(Setting(name=name, asked=asked, policy=policy, against=against))
    return settings


def budget_name(budget: float) -> str:
    """Name of the setting for a budget.

    >>> budget_name(36.0)
    'budget 36'
    """
    return f"budget {plain(budget)}"


def describe(policy: Policy) -> dict[str, Any]:
    """A policy as the evaluation tells it."""
    return {
        "kind": policy.kind,
        "lam": policy.lam,
        "cost_scale": policy.cost_scale,
        "reference": policy.reference,
        "cap": policy.cap,
        "knob": dict(policy.knob),
        "calibration": dict(policy.calibration),
        "guarantee": dict(policy.guarantee),
        "fallback": policy.fallback,
        "reason": policy.reason,
    }


def _policies(
    method: Priced, part: Part, budgets: Sequence[float], binding: Binding, reference: str
) -> dict[str, Policy]:
    p, costs = method.p[part.rows], method.routed(part.rows)
    paid = routed_costs(part.costs, method.reads)
    return {
        budget_name(budget): for_budget(
            p, costs, budget=budget, binding=binding, reference=reference, paid=paid
        )
        for budget in budgets
    }


def _saving(method: Priced, part: Part, share: float, binding: Binding) -> Policy:
    """The cheapest policy with a share of the best fixed accuracy, on the calibration split."""
    best = _best(part)
    loss = (1 - share) * part.scores[:, best].mean()
    return for_max_loss(
        method.p[part.rows],
        method.routed(part.rows),
        scores=part.scores,
        max_loss_points=100 * float(loss),
        binding=binding,
        reference=binding.options[best],
        paid=routed_costs(part.costs, method.reads),
    )


def _by_policy(name: str, policy: Policy, method: Priced, test: Part) -> Setting:
    costs = method.routed(test.rows)
    choice = policy.choose(method.p[test.rows], costs)
    asked = Asked.once(choice, options=test.scores.shape[1])
    against = policy.reference_choice(costs)
    return Setting(name=name, asked=asked, policy=describe(policy), against=against)


def _best(part: Part) -> int:
    return best_fixed(part.scores, part.costs)


class _TriedSettings:
    """Settings of a method without probabilities, tried on the calibration split."""

    def __init__(self, method: Method, part: Part, test: Part, options: Sequence[str]) -> None:
        self.method, self.part, self.test, self.options = method, part, test, options
        self.values = method.settings(part.rows, points=CANDIDATES)
        found = [self._outcome(value) for value in self.values]
        self.cost = np.array([one.cost.mean() for one in found])
        self.accuracy = np.array([one.score.mean() for one in found])

    def within(self, budget: float) -> Setting:
        """The most expensive setting within a mean cost, to `curves.NEAR`; else the cheapest."""
        knob = {"budget": float(budget)}
        inside, beyond = self.cost <= budget * (1 + 1e-9), self.cost > budget * (1 + 1e-9)
        if not inside.any():
            return self._setting(budget_name(budget), self.values[int(self.cost.argmin())], knob)
        best = int(np.argmax(np.where(inside, self.cost, -np.inf)))
        value = self.values[best]
        if beyond.any():
            next_to = int(np.argmin(np.where(beyond, np.abs(np.arange(len(beyond)) - best), 1e9)))
            value = most_expensive_within(self._cost_at, value, self.values[next_to], budget)
        return self._setting(budget_name(budget), value, knob)

    def keeping(self, goal: str, share: float) -> Setting:
        """The cheapest setting with a share of the best fixed accuracy; else that option."""
        best = _best(self.part)
        target = share * float(self.part.scores[:, best].mean())
        enough = self.accuracy >= target - 1e-12
        knob = {"share_of_best_fixed": share}
        if enough.any():
            place = int(np.argmin(np.where(enough, self.cost, np.inf)))
            return self._setting(goal, self.values[place], knob)
        n, k = self.test.scores.shape
        reason = (
            f"no {self.method.knob} reaches the accuracy {target:.4f} on the "
            f"{len(self.part.rows)} calibration examples (best {self.accuracy.max():.4f})"
        )
        asked = Asked.once(np.full(n, best, dtype=np.intp), options=k)
        policy = {
            "kind": "fixed",
            "reference": self.options[best],
            "knob": knob,
            "fallback": True,
            "reason": reason,
        }
        return Setting(name=goal, asked=asked, policy=policy)

    def _outcome(self, value: float) -> Outcome:
        asked = self.method.asks(self.part.rows, value)
        return self.part.outcome(asked, reads=self.method.reads)

    def _cost_at(self, value: float) -> float:
        return float(self._outcome(value).cost.mean())

    def _setting(self, name: str, value: float, knob: dict[str, float]) -> Setting:
        found = self._outcome(value)
        policy = {
            "kind": self.method.knob,
            "value": float(value),
            "knob": knob,
            "calibration": {
                "n": len(self.part.rows),
                "mean_cost": float(found.cost.mean()),
                "accuracy": float(found.score.mean()),
            },
            "fallback": False,
            "reason": "",
        }
        return Setting(name=name, asked=self.method.asks(self.test.rows, value), policy=policy)


def _sizes(log: OracleLog, costs: Floats) -> Floats:
    """What grows with an image's area (N, K), where it is known and differs between options."""
    scored = np.isfinite(log.scores)
    for name in ("pixels", "image_tokens"):
        sizes = _column(log, name)
        known = np.isfinite(sizes[scored]).all()
        if known and (sizes[scored.all(axis=1)].std(axis=1) > 0).any():
            return sizes
    return costs


def _column(log: OracleLog, name: str) -> npt.NDArray[np.float64]:
    wide = log.laid_out(name)
    return np.asarray(wide, dtype=np.float64)
