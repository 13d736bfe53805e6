"""What fresh labelled traffic says about a policy that was calibrated before.

Notation for shapes: N questions of one part, K options.

A call raises an alarm although nothing changed with at most a stated probability: half of it is
for the regret, half for drift of the features. The evidence about the regret is a betting
process by default, so that its half covers all looks at one growing collection of traffic
together (`router.risk.betting_p_value`); the half for drift is spent at every call.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from data.errors import DataError
from router import risk
from router.drift import Sample, shifts
from router.guarantee import POWER, Labelled, regrets
from router.policy import Policy

HOLDS, VIOLATED, UNDECIDED, NO_TARGET = "holds", "violated", "not enough evidence", "no guarantee"


def monitor(
    policy: Policy,
    *,
    calibrate: Labelled,
    fresh: Labelled,
    trained_on: Sample,
    features: Sample,
    false_alarm: float = 0.01,
    bound: str = "betting",
    seed: int = 0,
) -> dict[str, Any]:
    """Judge a policy on fresh traffic, and look for drift of the features.

    Args:
        policy: calibrated on `calibrate`.
        calibrate: the calibrate part, to compare with.
        fresh: labelled traffic that nothing was learned from.
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
    regret = judged(policy, fresh, level=level, bound=bound)
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
        "cost": {name: _mean(policy, part, part.costs) for name, part in parts.items()},
        "accuracy": {name: _mean(policy, part, part.scores) for name, part in parts.items()},
        "false_alarm": false_alarm,
    }


def judged(policy: Policy, fresh: Labelled, *, level: float, bound: str) -> dict[str, Any]:
    """The regret of a policy on fresh traffic, against its guarantee if it has one.

    Args:
        policy: any policy.
        fresh: labelled traffic.
        level: most probability of "violated" while the regret is within the guarantee.
        bound: a name in `router.risk.BOUNDS`.

    Returns:
        "verdict" ("holds" at the guarantee's confidence, "violated", "not enough evidence" or "no
        guarantee"), the observed "regret", its one-sided "lower_limit" at confidence 1 - level and
        "upper_limit" at the guarantee's, "p_value" of a regret above the guarantee,
        "pictures_needed" for "holds" (None where the observed regret is too large for any
        number), "pictures", "questions", "max_regret", "confidence" and "bound".
    """
    losses, kept = regrets(policy, fresh), policy.guarantee
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


def _mean(policy: Policy, part: Labelled, values: np.ndarray) -> float:
    choice = policy.choose(part.p, part.costs)
    return float(values[np.arange(len(values)), choice].mean())
