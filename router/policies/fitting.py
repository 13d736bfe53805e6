"""From what is asked for, such as a budget, to a policy; guarantees are in `guarantee`.

Notation for shapes: N examples of the calibration split, K options.

Prices are chosen among all that make a difference on the calibration split (`price_sweep`).
Everywhere `p` are probabilities (N, K) there, `costs` (N, K) are in `binding.cost_unit`, `binding`
is what the policy will belong to, and budget, price, cap and reference are the knobs of these names
(`m3router.router.policies.knobs`). Choices go by `costs`; `paid` (N, K) is what counts, where that
is something else (`m3router.router.policies.expected_costs`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from m3router.data.errors import DataError
from m3router.router.estimators.base import Floats
from m3router.router.metrics.choices import taken
from m3router.router.policies.policy import Binding, Policy
from m3router.router.policies.price_sweep import check_inputs, sweep
from m3router.router.policies.references import chosen
from m3router.router.text.numbers import plain


def for_price(
    p: Floats,
    costs: Floats,
    *,
    price: float,
    binding: Binding,
    cap: float | None = None,
    knob: Mapping[str, float] | None = None,
    reference: str = "",
    paid: Floats | None = None,
) -> Policy:
    """The policy of a given price; at price 0 it takes the option that is likeliest right.

    `knob` is what was asked for, when it was not this price; the reference "" is the last option.

    Raises:
        DataError: for a price that is negative or not finite, a cap below the cheapest option of
            an example, or when the calibration split is empty or not finite.
    """
    if not (math.isfinite(price) and price >= 0):
        raise DataError(f"A price must be finite and at least 0; it is {plain(price)}.")
    p, costs = check_inputs(p, costs)
    scale = _cost_scale(costs)
    policy = Policy(
        binding=binding,
        kind="price",
        lam=float(price) * scale,
        cost_scale=scale,
        reference=reference,
        cap=cap,
        knob=with_cap(knob or {"price": float(price)}, cap),
    )
    return measured(policy, p, costs, paid=paid)


def check_budget(budget: float, least: float, unit: str) -> None:
    """Refuse a budget that no routing keeps.

    Args:
        budget: mean cost per answer.
        least: mean cost of the cheapest option.
        unit: of both.

    Raises:
        DataError: when it is below.
    """
    if not budget >= least:
        raise DataError(
            f"The budget must be at least {plain(least)} {unit}, the mean cost of the cheapest "
            f"option on the calibration split; it is {plain(budget)}. Raise the budget."
        )


def for_budget(
    p: Floats,
    costs: Floats,
    *,
    budget: float,
    binding: Binding,
    cap: float | None = None,
    reference: str = "",
    paid: Floats | None = None,
) -> Policy:
    """The policy of the lowest price whose mean cost on the calibration split is within budget.

    The lowest price has the highest expected accuracy, the mean of p at the chosen options. The
    mean cost is of what was paid there; elsewhere it varies as means of samples do.

    Raises:
        DataError: when the budget is below the mean cost of the cheapest option or infinite, the
            cap below the cheapest option of an example, or the calibration split empty or not
            finite.
    """
    p, costs = check_inputs(p, costs)
    steps = sweep(p, costs, paid=paid, cap=cap)
    if paid is None:
        least = taken(costs, costs.argmin(axis=1)).mean()
    else:  # what is paid may rise with the price; sums of the sweep are rounded
        least = steps.cost.min() * (1 - 1e-12)
    check_budget(budget, least, binding.cost_unit)
    if math.isinf(budget):
        raise DataError("The budget must be finite; without one, give --price 0.")
    knob = {"budget": float(budget)}
    tried = []
    for price in steps.prices[steps.cost <= budget * (1 + 1e-9)]:
        policy = for_price(
            p,
            costs,
            price=price,
            binding=binding,
            cap=cap,
            knob=knob,
            reference=reference,
            paid=paid,
        )
        # The sweep's sums are rounded: the policy is judged by its own choices.
        if policy.calibration["mean_cost"] <= budget:
            return policy
        tried.append(policy)
    return min(reversed(tried), key=lambda policy: policy.calibration["mean_cost"])


def for_max_loss(
    p: Floats,
    costs: Floats,
    *,
    scores: Floats,
    max_loss_points: float,
    binding: Binding,
    cap: float | None = None,
    reference: str | None = None,
    paid: Floats | None = None,
) -> Policy:
    """The cheapest policy at most `max_loss_points` below the reference option's accuracy.

    Judged by the accuracy on the calibration split, without a confidence bound, and so optimistic:
    of many prices the cheapest is taken that looks good enough there. When no price qualifies, the
    policy is the reference option and says so in `fallback` and `reason`.

    Args:
        p: see the module.
        costs: see the module.
        scores: (N, K) in [0, 1], what each option really scored there.
        max_loss_points: percentage points; negative asks to be better than the reference.
        binding: see the module.
        cap: see the module; `m3router.router.policies.references` says what then stands for the
            reference.
        reference: None for the best one of these scores.
        paid: see the module.

    Raises:
        DataError: when the loss is not finite, the calibration split is empty, misshapen or not
            finite, the cap below the cheapest option of an example, or the reference unknown.
    """
    if not math.isfinite(max_loss_points):
        raise DataError(
            f"A maximal loss must be finite, in points; it is {plain(max_loss_points)}."
        )
    p, costs = check_inputs(p, costs)
    scores = check_scores(scores, p.shape)
    knob = {"max_loss_points": float(max_loss_points)}
    against = chosen(reference, binding.options, scores=scores, costs=costs, cap=cap)
    fixed = always_reference(costs, binding, reference=against, cap=cap, knob=knob)
    fixed = measured(fixed, p, costs, scores, paid=paid)
    target = fixed.calibration["accuracy"] - max_loss_points / 100
    steps = sweep(p, costs, scores=scores, cap=cap)
    for price in steps.prices[steps.accuracy >= target - 1e-9][::-1]:
        policy = for_price(
            p, costs, price=price, binding=binding, cap=cap, knob=knob, reference=against
        )
        policy = measured(policy, p, costs, scores, paid=paid)
        if policy.calibration["accuracy"] >= target - 1e-12:
            return policy
    return fixed.fall_back(
        f"no price reaches the accuracy {target:.4f} on the {len(p)} calibration examples "
        f"(best {steps.accuracy.max():.4f})"
    )


def always_reference(
    costs: Floats,
    binding: Binding,
    *,
    reference: str,
    cap: float | None,
    knob: Mapping[str, float],
) -> Policy:
    """The policy that always takes the reference, as the cap allows it; costs are (N, K)."""
    return Policy(
        binding=binding,
        kind="fixed",
        lam=0.0,
        cost_scale=_cost_scale(costs),
        reference=reference,
        cap=cap,
        knob=with_cap(knob, cap),
    )


def measured(
    policy: Policy,
    p: Floats,
    costs: Floats,
    scores: Floats | None = None,
    *,
    paid: Floats | None = None,
) -> Policy:
    """The policy with what it costs, and scores if given, on the calibration split; all (N, K)."""
    rows, choice = np.arange(len(p)), policy.choose(p, costs)
    spent = costs if paid is None else paid
    found = {"n": len(p), "mean_cost": float(spent[rows, choice].mean())}
    if scores is not None:
        found["accuracy"] = float(scores[rows, choice].mean())
    return replace(policy, calibration=found)


def with_cap(knob: Mapping[str, float], cap: float | None) -> dict[str, float]:
    """What was asked for, the cap included."""
    return dict(knob) if cap is None else {**knob, "cap": float(cap)}


def check_scores(scores: Floats, shape: tuple[int, ...]) -> Floats:
    """Validate scores (N, K); returns them as float64.

    Raises:
        DataError: when they are misshapen, have gaps or are outside of [0, 1].
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != shape or not np.all((scores >= 0) & (scores <= 1)):
        raise DataError(
            f"Scores must have shape {shape} and lie in [0, 1] without gaps; they have shape "
            f"{scores.shape}. Drop examples with gaps (--gaps drop) first."
        )
    return scores


def _cost_scale(costs: Floats) -> float:
    return float(costs[:, -1].mean()) or 1.0
