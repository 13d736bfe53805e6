"""Policies with a guarantee: the cheapest whose regret is small with a stated confidence.

Notation for shapes: N questions of one part, K options.

The regret of a policy is P(right at the reference option and wrong as routed), for scores between
0 and 1 the mean of max(0, s_reference - s_routed). The reference is the option that is best on the
calibrate part, or one that is named; `router.references` says what stands for it under a cap.

The rule `argmin_k r_k(x) + price * cost_k(x)`, where r_k is the estimated regret of option k,
takes nearly always the reference at price 0 and gets cheaper as the price rises. Prices are
listed on the tune part, without labels, and tested on the calibrate part in that order until one
is not certified (fixed-sequence testing; Angelopoulos et al., Learn then Test, 2021,
arXiv:2110.01052). Whatever the estimates are worth, the guarantee holds for pictures drawn like
those of the calibrate part; good estimates make it cheap. See docs/guarantees.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from router import risk
from router.estimators.base import Floats
from router.knobs import always_reference, check_scores, measured, with_cap
from router.policy import Binding, Policy
from router.references import chosen as reference_of
from router.sweep import LAST, check_inputs, sweep

STEPS = 250
"""Most prices that are tested."""
POWER = 0.8
"""Probability of success at the sample sizes that are advised."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Labelled questions, to judge a policy on.

    Attributes:
        p: the router's probabilities (N, K).
        costs: (N, K).
        scores: (N, K) in [0, 1].
        groups: picture of each question (N,).
        most: most questions about any picture, in this part or elsewhere.
    """

    p: Floats
    costs: Floats
    scores: Floats
    groups: npt.NDArray
    most: int


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be guaranteed.

    Attributes:
        max_regret: alpha, most P(right at the reference and wrong as routed), in (0, 1).
        confidence: 1 - delta, in (0, 1), over the draw of the calibrate part.
        bound: a name in `router.risk.BOUNDS`; None for `router.risk.default_bound`.
        cap: most cost of any single answer, None for no cap.
        reference: name of the option that regret is against; None for the best one of the
            calibrate part.
    """

    max_regret: float
    confidence: float = 0.95
    bound: str | None = None
    cap: float | None = None
    reference: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            DataError: when one is not between 0 and 1, or the bound unknown.
        """
        for name, value in (("max_regret", self.max_regret), ("confidence", self.confidence)):
            if not 0 < value < 1:
                raise DataError(
                    f"{name} must lie between 0 and 1, such as 0.01 or 0.95; it is {value}."
                )
        if self.bound is not None:
            risk.bound_named(self.bound)

    @property
    def delta(self) -> float:
        """Probability at which the guarantee may fail."""
        return round(1 - self.confidence, 12)


def safe_to_cheap(
    p: Floats, costs: Floats, *, cap: float | None = None, reference: int = LAST
) -> Floats:
    """At most `STEPS` prices of the rule against regret, ascending: the order of the tests.

    Spread so that each lowers the mean cost by about the same factor.

    Args:
        p: probabilities (N, K) on the tune part; its labels are not looked at.
        costs: (N, K).
        cap: most cost of any single answer.
        reference: index of the option that regret is against, -1 for the last.

    Returns:
        Prices (M,) of one unit of cost; none when no price makes a difference.

    Raises:
        DataError: when the tune part is empty or not finite, or the cap below the cheapest
            option of an example.
    """
    steps = sweep(p, costs, regret=True, cap=cap, reference=reference)
    prices, cost = steps.prices[1:], np.log(np.maximum(steps.cost[1:], 1e-12))
    if len(prices) <= STEPS:
        return prices
    wanted = np.linspace(cost[0], cost[-1], STEPS)
    nearest = np.searchsorted(-cost, -wanted).clip(0, len(cost) - 1)
    return prices[np.unique(nearest)]


def for_max_regret(part: Labelled, *, prices: Floats, target: Target, binding: Binding) -> Policy:
    """The cheapest policy whose regret is at most the target's with the target's confidence.

    When no price is certified, the policy is the reference option; `reason` then says how many
    pictures would be needed.

    Args:
        part: the calibrate part; pictures drawn like those that the policy will meet.
        prices: see `safe_to_cheap`; must not depend on labels of the calibrate part.
        target: what is to be guaranteed.
        binding: what the policy will belong to.

    Returns:
        A policy whose `guarantee` says what was certified, see `described`.

    Raises:
        DataError: when the part is too small to certify the target even without any regret, is
            empty, misshapen, or not finite; for a bound that is not valid for these scores; or
            for a cap below the cheapest option of an example.
    """
    p, costs = check_inputs(part.p, part.costs)
    scores = check_scores(part.scores, p.shape)
    _, picture = np.unique(part.groups, return_inverse=True)
    part = replace(part, groups=picture)  # numbers: sorted again for every price
    bound = target.bound or risk.default_bound(scores, part.most)
    knob = {"max_regret": target.max_regret, "confidence": target.confidence}
    named = reference_of(
        target.reference, binding.options, scores=scores, costs=costs, cap=target.cap
    )
    target = replace(target, reference=named)
    fixed = always_reference(costs, binding, reference=named, cap=target.cap, knob=knob)
    refuse_too_small(regrets(fixed, part), target, bound)
    ladder = [
        Policy(
            binding=binding,
            kind="regret",
            lam=float(price) * fixed.cost_scale,
            cost_scale=fixed.cost_scale,
            reference=named,
            cap=target.cap,
            knob=with_cap(knob, target.cap),
        )
        for price in prices
    ]
    p_values = _p_values(ladder, part, target, bound)
    certified = risk.fixed_sequence(p_values, delta=target.delta)
    chosen = ladder[certified - 1] if certified else fixed
    chosen = measured(chosen, p, costs, scores)
    fixed = measured(fixed, p, costs, scores)
    if not chosen.calibration["mean_cost"] < fixed.calibration["mean_cost"]:
        cause = (
            f"regret of at most {target.max_regret:g} is certified at confidence "
            f"{target.confidence:g} for no cheaper policy on {len(p)} questions about "
            f"{len(np.unique(picture))} pictures"
        )
        chosen = fixed.fall_back(cause, advice=_what_it_takes(ladder, part, target, bound))
    return replace(chosen, guarantee=described(regrets(chosen, part), target, bound))


def regrets(policy: Policy, part: Labelled) -> risk.Losses:
    """Regret of each question, summed by picture.

    Raises:
        DataError: when the part is empty, misshapen or not finite, or for a cap below the
            cheapest option of an example.
    """
    rows = np.arange(len(part.p))
    routed = part.scores[rows, policy.choose(part.p, part.costs)]
    against = part.scores[rows, policy.reference_choice(part.costs)]
    return risk.by_picture(np.maximum(0.0, against - routed), part.groups, most=part.most)


def described(losses: risk.Losses, target: Target, bound: str) -> dict[str, Any]:
    """What is guaranteed and on what evidence, JSON-able.

    Returns:
        "max_regret", "reference", "confidence", "bound", "p_value", the observed "regret",
        "upper_limit" (of the regret, by this policy's losses alone, at this confidence),
        "pictures", "questions" and "most" questions about a picture.
    """
    return {
        "max_regret": target.max_regret,
        "reference": target.reference,
        "confidence": target.confidence,
        "bound": bound,
        "p_value": risk.bound_named(bound)(losses, target.max_regret),
        "regret": losses.risk,
        "upper_limit": risk.upper_limit(losses, delta=target.delta, bound=bound),
        "pictures": losses.pictures,
        "questions": losses.questions,
        "most": losses.most,
    }


def _p_values(ladder: list[Policy], part: Labelled, target: Target, bound: str) -> Iterator[float]:
    p_value = risk.bound_named(bound)
    for policy in ladder:
        yield p_value(regrets(policy, part), target.max_regret)


class UncertifiedError(DataError):
    """A part is too small for a target; the message says so in words and numbers alone."""


def refuse_too_small(losses: risk.Losses, target: Target, bound: str) -> None:
    """Refuse a part on which no losses at all would not be evidence enough.

    Raises:
        UncertifiedError: naming the pictures that it has and that are needed.
    """
    if risk.bound_named(bound)(losses, target.max_regret) > target.delta:
        least = risk.pictures_needed(losses, target.max_regret, delta=target.delta, bound=bound)
        raise UncertifiedError(
            f"The calibrate part is too small for a regret of at most {target.max_regret:g} at "
            f"confidence {target.confidence:g}: it has {losses.questions} questions about "
            f"{losses.pictures} pictures, and even without a single regret at least {least} such "
            f"pictures are needed (bound {bound!r}). Label more pictures, or ask for less."
        )


def _what_it_takes(ladder: list[Policy], part: Labelled, target: Target, bound: str) -> str:
    """How many pictures would certify the cheapest policy with some room below the target."""
    seen = [(policy, regrets(policy, part)) for policy in ladder]
    if not seen:
        return "No price changes a choice"
    useful = [one for one in seen if 0 < one[1].risk <= target.max_regret / 2] or [
        min(seen, key=lambda one: one[1].risk)
    ]
    policy, losses = useful[-1]
    cost = measured(policy, part.p, part.costs).calibration["mean_cost"]
    found = f"The policy of mean cost {cost:.4g} had a regret of {losses.risk:.2g} there: "
    needed = risk.pictures_needed(
        losses, target.max_regret, delta=target.delta, bound=bound, power=POWER
    )
    if needed is None:
        return f"{found}no number of pictures certifies that"
    return f"{found}about {needed} such pictures would certify it with probability {POWER:g}"


def known(policy: Policy) -> Mapping[str, Any]:
    """The policy's guarantee.

    Raises:
        DataError: when it has none.
    """
    if not policy.guarantee:
        raise DataError(
            f"The policy was calibrated with {dict(policy.knob)}, without a guarantee. Calibrate "
            "one with --max-regret."
        )
    return policy.guarantee
