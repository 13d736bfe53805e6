"""Ways of choosing, made ready to be measured: knobs set on the calibrate part, asked on the test.

Notation for shapes: n examples of a part, K options, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from router.cascade import Cascade
from router.costs import routed_costs
from router.estimators.base import Floats
from router.evaluation.baselines.base import Contender, Known, Priced
from router.knobs import for_budget, for_max_loss
from router.metrics import choices
from router.metrics.curves import POINTS, dearest_within
from router.outcomes import Asked, Outcome, Prices, outcome_of
from router.policy import Binding, Policy

GOALS = {"saved_at_99": 0.99, "saved_at_100": 1.0}
"""Name -> share of the best fixed accuracy that is to be kept."""
CANDIDATES = 64
"""Settings that are tried on the calibrate part; budgets are met more exactly than these."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The rows of one part: scores, costs and gflops (n, K), groups and chance (n,).

    `said` are codes (n, K) of the answers, equal codes for equal answers; None where some answer
    is not known.
    """

    rows: npt.NDArray[np.intp]
    scores: Floats
    costs: Floats
    gflops: Floats | None
    groups: np.ndarray
    chance: Floats
    said: npt.NDArray[np.integer] | None = None

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
        asked: what it asks on the test part.
        policy: how it was chosen.
        against: option (n,) that its regret is against; None for that of the whole table.
    """

    name: str
    asked: Asked
    policy: Mapping[str, Any] | None = None
    against: npt.NDArray[np.intp] | None = None


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of choosing on the test part.

    Attributes:
        about: what it does, one sentence.
        reads: feature blocks that it reads.
        settings: for the rows of the table.
        knob: "price" or "threshold"; None without a curve.
        values: (P,) values of the knob along the curve.
        curve: what each of them asks.
        goals: name in `GOALS` -> the cheapest setting that reached it on the calibrate part.
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


def arm_of(
    contender: Contender,
    calibrate: Part,
    test: Part,
    *,
    budgets: Sequence[float],
    binding: Binding,
    policies: Mapping[str, Policy] | None = None,
    reference: str = "",
) -> Arm:
    """Set a contender's knob on the calibrate part and ask it on the test part.

    Args:
        contender: not read outside of the two parts.
        calibrate: with its scores.
        test: its scores are not read.
        budgets: mean costs, one setting for each.
        binding: what policies belong to.
        policies: further policies of a contender with probabilities, calibrated before.
        reference: name of the option that policies for budgets are compared with, "" for the last.

    Raises:
        DataError: for a budget below the cheapest option.
    """
    if isinstance(contender, Priced):
        chosen = _policies(contender, calibrate, budgets, binding, reference)
        settings = [
            _by_policy(name, policy, contender, test)
            for name, policy in {**(policies or {}), **chosen}.items()
        ]
        goals = {
            goal: _by_policy(goal, _saving(contender, calibrate, share, binding), contender, test)
            for goal, share in GOALS.items()
        }
    elif contender.knob is None:
        return Arm(
            about=contender.about,
            reads=contender.reads,
            settings=[Setting(name="as it is", asked=contender.asks(test.rows, 0.0))],
        )
    else:
        tried = _Tried(contender, calibrate, test, binding.options)
        settings = [tried.within(budget) for budget in budgets]
        goals = {goal: tried.keeping(goal, share) for goal, share in GOALS.items()}
    values = contender.settings(test.rows, points=POINTS)
    return Arm(
        about=contender.about,
        reads=contender.reads,
        settings=settings,
        knob=contender.knob,
        values=values,
        curve=[contender.asks(test.rows, value) for value in values],
        goals=goals,
        p=None if contender.p is None else contender.p[test.rows],
        calls=contender.calls(test.rows),
    )


def cascade_settings(
    cascades: Mapping[str, Cascade], known: Known, p: Floats, test: Part, *, reads: Sequence[str]
) -> list[Setting]:
    """What cascades that were calibrated before ask on the test part.

    Raises:
        MismatchError: when a cascade belongs to other options.
    """
    settings, rows = [], test.rows
    routed = routed_costs(test.costs, reads)
    for name, cascade in cascades.items():
        cascade.check_fits(options=known.options)
        beliefs = cascade.rule.believe(p[rows], known.confidence[rows], known.logprob[rows])
        asked = cascade.rule.ask(p[rows], routed, test.costs, beliefs, cascade.price)
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
    return f"budget {budget:.6g}"


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
    contender: Priced, part: Part, budgets: Sequence[float], binding: Binding, reference: str
) -> dict[str, Policy]:
    p, costs = contender.p[part.rows], routed_costs(part.costs, contender.reads)
    return {
        budget_name(budget): for_budget(
            p, costs, budget=budget, binding=binding, reference=reference
        )
        for budget in budgets
    }


def _saving(contender: Priced, part: Part, share: float, binding: Binding) -> Policy:
    """The cheapest policy with a share of the best fixed accuracy, on the calibrate part."""
    best = _best(part)
    loss = (1 - share) * part.scores[:, best].mean()
    return for_max_loss(
        contender.p[part.rows],
        routed_costs(part.costs, contender.reads),
        scores=part.scores,
        max_loss_points=100 * float(loss),
        binding=binding,
        reference=binding.options[best],
    )


def _by_policy(name: str, policy: Policy, contender: Priced, test: Part) -> Setting:
    costs = routed_costs(test.costs, contender.reads)
    choice = policy.choose(contender.p[test.rows], costs)
    asked = Asked.once(choice, options=test.scores.shape[1])
    against = policy.reference_choice(costs)
    return Setting(name=name, asked=asked, policy=describe(policy), against=against)


def _best(part: Part) -> int:
    return choices.best_fixed(part.scores, part.costs)


class _Tried:
    """Settings of a contender without probabilities, tried on the calibrate part."""

    def __init__(
        self, contender: Contender, part: Part, test: Part, options: Sequence[str]
    ) -> None:
        self.contender, self.part, self.test, self.options = contender, part, test, options
        self.values = contender.settings(part.rows, points=CANDIDATES)
        found = [self._outcome(value) for value in self.values]
        self.cost = np.array([one.cost.mean() for one in found])
        self.accuracy = np.array([one.score.mean() for one in found])

    def within(self, budget: float) -> Setting:
        """The dearest setting within a mean cost, to `curves.NEAR`; else the cheapest of all."""
        knob = {"budget": float(budget)}
        inside, beyond = self.cost <= budget * (1 + 1e-9), self.cost > budget * (1 + 1e-9)
        if not inside.any():
            return self._setting(budget_name(budget), self.values[int(self.cost.argmin())], knob)
        best = int(np.argmax(np.where(inside, self.cost, -np.inf)))
        value = self.values[best]
        if beyond.any():
            next_to = int(np.argmin(np.where(beyond, np.abs(np.arange(len(beyond)) - best), 1e9)))
            value = dearest_within(self._cost_at, value, self.values[next_to], budget)
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
            f"no {self.contender.knob} reaches the accuracy {target:.4f} on the "
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
        asked = self.contender.asks(self.part.rows, value)
        return self.part.outcome(asked, reads=self.contender.reads)

    def _cost_at(self, value: float) -> float:
        return float(self._outcome(value).cost.mean())

    def _setting(self, name: str, value: float, knob: dict[str, float]) -> Setting:
        found = self._outcome(value)
        policy = {
            "kind": self.contender.knob,
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
        return Setting(name=name, asked=self.contender.asks(self.test.rows, value), policy=policy)
