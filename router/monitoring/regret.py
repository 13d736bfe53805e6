"""What fresh labelled traffic says about a policy that was calibrated before.

Notation for shapes: N questions of one part, K options.

What is judged is the loss that the guarantee is about, the regret where there is none. Questions
are thinned to as many of an image as it counts, by the same draw.

Where nobody knows the right answer of a question, its regret lies between two bounds. Routing and
the reference option say the very same: then it is 0, whatever is right. They differ: then it is
between 0 and 1, a net loss between -1 and 1. Where the score of one of the two answers is known,
as by feedback of who asked, it is between what the other's being 0 and 1 would make of it. "Holds"
is told from the upper bounds, "violated" from the lower ones; both verdicts are valid for the true
loss, however many answers are judged and whichever those are.

A call raises an alarm although nothing changed with at most a stated probability: half of it is
for the regret, half for drift of the features. The evidence about the regret is a betting
process by default, so that its half covers all looks at one growing collection of traffic
together (`m3router.router.policies.risk_bounds.betting_p_value`); the half for drift is spent at
every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.router.cascade.rule import Cascade
from m3router.router.estimators.base import Floats
from m3router.router.monitoring.drift import Sample, shifts
from m3router.router.policies import risk_bounds as risk
from m3router.router.policies.guarantee import POWER, Labelled
from m3router.router.policies.outcomes import Choice, Prices
from m3router.router.policies.policy import Policy

HOLDS, VIOLATED, UNDECIDED, NO_TARGET = "holds", "violated", "not enough evidence", "no guarantee"


Texts = npt.NDArray[np.object_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """What a policy or a cascade made of labelled questions.

    Attributes:
        losses: regret or net loss by image: how much better the reference option scored; the most
            that it can be where that was not judged.
        sure: the same with the least that it can be.
        unjudged: questions whose loss is not known, but only lies between the two.
        cost: mean cost of everything that was asked.
        accuracy: mean score of the answers given in the end; None where some were not judged.
        agreement: share of them that say the very same as the reference option; None where
            answers are not known.
    """

    losses: risk.Losses
    sure: risk.Losses
    unjudged: int
    cost: float
    accuracy: float | None
    agreement: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class News:
    """What a cascade learns from answers: confidence and logprob (N, K), costs (N, K) by itself.

    `known` are the costs (N, K) that it goes by, where these are not known before; None for these.
    """

    confidence: Floats
    logprob: Floats
    costs: Floats
    known: Floats | None = None


def by_policy(policy: Policy, part: Labelled, answers: Texts | None = None) -> Served:
    """What a policy makes of labelled questions.

    Args:
        policy: the policy.
        part: the questions; where answers are given, scores may be NaN, each by itself: not judged.
        answers: (N, K) what each option said.
    """
    rows, final = np.arange(len(part.p)), policy.choose(part.p, part.costs)
    cost = float(part.spent[rows, final].mean())
    against = policy.reference_choice(part.costs)
    part = counted_by(policy.guarantee, part)
    gains = _gains(policy.guarantee)
    return _served(part, answers, final=final, against=against, cost=cost, gains=gains)


def counted_by(guarantee: Mapping[str, Any], part: Labelled) -> Labelled:
    """The part, an image counting with as many questions as the guarantee says."""
    if "most" not in guarantee:
        return part
    return replace(part, most=guarantee["most"], seed=guarantee.get("seed", part.seed))


def _gains(guarantee: Mapping[str, Any]) -> float:
    """How much of a gain the loss counts that a guarantee is about."""
    return 1.0 if guarantee.get("max_loss") is not None else 0.0


def by_cascade(
    cascade: Cascade, part: Labelled, news: News, answers: Texts | None = None
) -> Served:
    """What a cascade makes of labelled questions, from first answer to last; see `by_policy`."""
    beliefs = cascade.rule.believe(part.p, news.confidence, news.logprob)
    alone = news.costs if news.known is None else news.known
    asked = cascade.rule.ask(part.p, part.costs, alone, beliefs, cascade.price)
    cost = float(Prices(alone=news.costs, routed=part.spent).of(asked).mean())
    against = np.full(len(part.p), cascade.reference_index)
    part = counted_by(cascade.guarantee, part)
    gains = _gains(cascade.guarantee)
    return _served(part, answers, final=asked.final, against=against, cost=cost, gains=gains)


def _served(
    part: Labelled,
    answers: Texts | None,
    *,
    final: Choice,
    against: Choice,
    cost: float,
    gains: float,
) -> Served:
    """Compare the options (N,) of the answers given in the end with the reference's (N,)."""
    rows = np.arange(len(part.p))
    given, reference = part.scores[rows, final], part.scores[rows, against]
    same = np.zeros(len(rows), dtype=bool)
    if answers is not None:
        same = np.asarray(answers[rows, final] == answers[rows, against], dtype=bool)
    judged = np.isfinite(given) & np.isfinite(reference)
    nothing = ~judged & (same | (final == against))
    most, least = (
        np.where(nothing, 0.0, np.maximum(-gains, one - other))
        for one, other in (
            (np.nan_to_num(reference, nan=1.0), np.nan_to_num(given, nan=0.0)),
            (np.nan_to_num(reference, nan=0.0), np.nan_to_num(given, nan=1.0)),
        )
    )
    thinned = part.thinned()

    def losses(each: Floats) -> risk.Losses:
        return risk.of_sums(thinned.sums(each), thinned.sizes, most=thinned.most, low=0.0 - gains)

    return Served(
        losses=losses(most),
        sure=losses(least),
        unjudged=int((most > least)[thinned.rows].sum()),
        cost=cost,
        accuracy=float(given.mean()) if np.isfinite(given).all() else None,
        agreement=None if answers is None else float(same.mean()),
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
        calibrate: what it made of the calibration split, to compare with.
        fresh: what it made of labelled traffic that nothing was learned from.
        trained_on: features that the router was fitted on.
        features: of the fresh traffic.
        false_alarm: most probability of an alarm although nothing changed, in (0, 1).
        bound: a name in `m3router.router.policies.risk_bounds.BOUNDS`.
        seed: of the test for drift.

    Returns:
        JSON-able: "alarm", "regret" (see `judged`), "drift" by block, "cost", "accuracy" and
        "agreement" (see `Served`) on both parts, "false_alarm".

    Raises:
        DataError: for a false-alarm rate outside of (0, 1), an unknown bound or one that is not
            valid for these scores, or fewer than two images.
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
        "agreement": {name: part.agreement for name, part in parts.items()},
        "false_alarm": false_alarm,
    }


def judged(
    guarantee: Mapping[str, Any], fresh: Served, *, level: float, bound: str
) -> dict[str, Any]:
    """The regret or net loss on fresh traffic, against the guarantee if there is one.

    Args:
        guarantee: see `m3router.router.policies.guarantee.described`; empty without one.
        fresh: what was made of labelled traffic.
        level: most probability of "violated" while the regret is within the guarantee.
        bound: a name in `m3router.router.policies.risk_bounds.BOUNDS`.

    Returns:
        "verdict" ("holds" at the guarantee's confidence, "violated", "not enough evidence" or "no
        guarantee"), the observed "regret" (or net loss, where "max_loss" is guaranteed), its
        one-sided "lower_limit" at confidence 1 - level and "upper_limit" at the guarantee's,
        "p_value" of one above the guarantee, "pictures_needed" for "holds" (None where the
        observed one is too large for any number), "images" (also as "pictures"), "questions" that
        counted, "most" of an image, "max_regret", "max_loss", "confidence" and "bound";
        "unjudged", how many questions have a loss that is only known to lie between two bounds, 0
        and 1 where nothing is known (-1 and 1 in a net loss): "regret" counts them with the upper
        one, "regret_at_least" with the lower one.
    """
    losses, kept = fresh.losses, guarantee
    alpha = kept.get("max_loss", kept.get("max_regret"))
    delta = round(1 - kept.get("confidence", 0.95), 12)
    lower = risk.lower_limit(fresh.sure, delta=level, bound=bound)
    found: dict[str, Any] = {
        "verdict": NO_TARGET,
        "regret": losses.risk,
        "regret_at_least": fresh.sure.risk,
        "unjudged": fresh.unjudged,
        "lower_limit": lower,
        "upper_limit": risk.upper_limit(losses, delta=delta, bound=bound),
        "p_value": None,
        "pictures_needed": None,
        "images": losses.images,
        "pictures": losses.images,
        "questions": losses.questions,
        "most": losses.most,
        "max_regret": kept.get("max_regret"),
        "max_loss": kept.get("max_loss"),
        "confidence": 1 - delta,
        "bound": bound,
    }
    if alpha is None:
        return found
    found["p_value"] = risk.bound_named(bound)(losses, alpha, risk.Plan(delta=delta))
    within = risk.bound_named(bound)(
        fresh.sure.flipped(), fresh.sure.mirrored(alpha), risk.Plan(delta=level)
    )
    if within <= level:
        return {**found, "verdict": VIOLATED}
    if found["p_value"] <= delta:
        return {**found, "verdict": HOLDS}
    needed = risk.images_needed(losses, alpha, delta=delta, bound=bound, power=POWER)
    return {**found, "verdict": UNDECIDED, "pictures_needed": needed}
