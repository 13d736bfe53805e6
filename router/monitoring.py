"""What fresh labelled traffic says about a policy that was calibrated before.

Notation for shapes: N questions of one part, K options.

A call raises an alarm although nothing changed with at most a stated probability: half of it is
for the regret, half for drift of the features. The evidence about the regret is a betting
process by default, so that its half covers all looks at one growing collection of traffic
together (`router.risk.betting_p_value`); the half for drift is spent at every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data.errors import DataError
from router import risk
from router.cascade import Cascade
from router.drift import Sample, shifts
from router.estimators.base import Floats
from router.guarantee import POWER, Labelled, regrets
from router.outcomes import Prices, outcome_of
from router.policy import Policy

HOLDS, VIOLATED, UNDECIDED, NO_TARGET = "holds", "violated", "not enough evidence", "no guarantee"


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """What a policy or a cascade made of labelled questions.

    Attributes:
        losses: regret by picture: how much better the finest option scored.
        cost: mean cost of everything that was asked.
        accuracy: mean score of the answers given in the end.
    """

    losses: risk.Losses
    cost: float
    accuracy: float


@dataclass(frozen=True, kw_only=True, eq=False)
class News:
    """What a cascade learns from answers: confidence and logprob (N, K), costs (N, K) by itself."""

    confidence: Floats
    logprob: Floats
    costs: Floats


def by_policy(policy: Policy, part: Labelled) -> Served:
    """What a policy makes of labelled questions."""
    taken = np.arange(len(part.p)), policy.choose(part.p, part.costs)
    return Served(
        losses=regrets(policy, part),
        cost=float(part.costs[taken].mean()),
        accuracy=float(part.scores[taken].mean()),
    )


def by_cascade(cascade: Cascade, part: Labelled, news: News) -> Served:
    """What a cascade makes of labelled questions, from first answer to last."""
    beliefs = cascade.rule.believe(part.p, news.confidence, news.logprob)
    asked = cascade.rule.ask(part.p, part.costs, news.costs, beliefs, cascade.price)
    costs = Prices(alone=news.costs, routed=part.costs)
    found = outcome_of(asked, scores=part.scores, costs=costs, gflops=None)
    lost = np.maximum(0.0, part.scores[:, -1] - found.score)
    return Served(
        losses=risk.by_picture(lost, part.groups, most=part.most),
        cost=float(found.cost.mean()),
        accuracy=float(found.score.mean()),
    )


def monitor(
    guarantee: Mapping[str, Any],
    *,
    calibrate: Served,
    fresh: Served,
    trained_on: Sample,
    features: Sample,
    false_alarm: float = 0.01,
    bound: str = "betting",
    seed: int = 0,
) -> dict[str, Any]:
    """Judge a policy on fresh traffic, and look for drift of the features.

    Args:
        guarantee: of the policy or cascade; empty without one.
        calibrate: what it made of the calibrate part, to compare with.
        fresh: what it made of labelled traffic that nothing was learned from.
        trained_on: features that the router was fitted on.
        features: of the fresh traffic.
        false_alarm: most probability of an alarm although nothing changed, in (0, 1).
        bound: a name in `router.risk.BOUNDS`.
        seed: of the test for drift.

    Returns:
        JSON-able: "alarm", "regret" (see `judged`), "drift" by block, "cost" and "accuracy" on
        both parts, "false_alarm".

    Raises:
        DataError: for a false-alarm rate outside of (0, 1), an unknown bound or one that is not
            valid for these scores, or fewer than two pictures.
    """
    if not 0 < false_alarm < 1:
        raise DataError(f"false_alarm must lie between 0 and 1, such as 0.01; it is {false_alarm}.")
    level = false_alarm / 2
    regret = judged(guarantee, fresh, level=level, bound=bound)
    drift = {
        name: {**asdict(one), "drifted": one.adjusted <= level}
        for name, one in shifts(trained_on, features, level=level, seed=seed).items()
    }
    drifted = any(one["drifted"] for one in drift.values())
    parts = {"calibrate": calibrate, "fresh": fresh}
    return {
        "alarm": drifted or regret["verdict"] == VIOLATED,
        "regret": regret,
        "drift": drift,
        "cost": {name: part.cost for name, part in parts.items()},
        "accuracy": {name: part.accuracy for name, part in parts.items()},
        "false_alarm": false_alarm,
    }


def judged(
    guarantee: Mapping[str, Any], fresh: Served, *, level: float, bound: str
) -> dict[str, Any]:
    """The regret on fresh traffic, against the guarantee if there is one.

    Args:
        guarantee: see `router.guarantee.described`; empty without one.
        fresh: what was made of labelled traffic.
        level: most probability of "violated" while the regret is within the guarantee.
        bound: a name in `router.risk.BOUNDS`.

    Returns:
        "verdict" ("holds" at the guarantee's confidence, "violated", "not enough evidence" or "no
        guarantee"), the observed "regret", its one-sided "lower_limit" at confidence 1 - level and
        "upper_limit" at the guarantee's, "p_value" of a regret above the guarantee,
        "pictures_needed" for "holds" (None where the observed regret is too large for any
        number), "pictures", "questions", "max_regret", "confidence" and "bound".
    """
    losses, kept = fresh.losses, guarantee
    alpha = kept.get("max_regret")
    delta = round(1 - kept.get("confidence", 0.95), 12)
    lower = risk.lower_limit(losses, delta=level, bound=bound)
    found: dict[str, Any] = {
        "verdict": NO_TARGET,
        "regret": losses.risk,
        "lower_limit": lower,
        "upper_limit": risk.upper_limit(losses, delta=delta, bound=bound),
        "p_value": None,
        "pictures_needed": None,
        "pictures": losses.pictures,
        "questions": losses.questions,
        "max_regret": alpha,
        "confidence": 1 - delta,
        "bound": bound,
    }
    if alpha is None:
        return found
    found["p_value"] = risk.bound_named(bound)(losses, alpha)
    if risk.bound_named(bound)(losses.flipped(), 1 - alpha) <= level:
        return {**found, "verdict": VIOLATED}
    if found["p_value"] <= delta:
        return {**found, "verdict": HOLDS}
    needed = risk.pictures_needed(losses, alpha, delta=delta, bound=bound, power=POWER)
    return {**found, "verdict": UNDECIDED, "pictures_needed": needed}
