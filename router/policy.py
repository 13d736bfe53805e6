"""Policies: from estimated probabilities and costs to one option per example.

Notation for shapes: N examples, K options.

The rule is argmax_k p_k(x) - lam * cost_k(x) / cost_scale, ties to the cheaper option. Its
price is chosen on the calibrate part among all that make a difference there (`router.sweep`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.errors import DataError, MismatchError
from router.artefacts import SEAL, read_sealed, write_sealed
from router.estimators.base import Floats
from router.sweep import Choice, check_inputs, choose_at, sweep

KIND = "policy"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Binding:
    """What a policy belongs to; it is refused elsewhere.

    Attributes:
        options: names of the options, cheapest first.
        cost_unit: unit of its costs.
        router: fingerprint of the router whose probabilities it was calibrated on.
        split: fingerprint of the split whose calibrate part it was calibrated on.
    """

    options: tuple[str, ...]
    cost_unit: str
    router: str
    split: str


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A rule that picks an option; see the module's docstring.

    Attributes:
        binding: what it belongs to.
        kind: "price" for the rule with `lam`, "finest" for always the last option.
        lam: price of `cost_scale` units of cost, in probability, at least 0.
        cost_scale: mean cost of the finest option in the calibrate part.
        knob: what was asked for, such as {"budget": 64.0}.
        calibration: "n", "mean_cost" and, where scores were given, "accuracy" it reached there.
        fallback: whether no price met the target, so that the finest option is used.
        reason: why, when `fallback`.
    """

    binding: Binding
    kind: Literal["price", "finest"]
    lam: float
    cost_scale: float
    knob: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, float] = field(default_factory=dict)
    fallback: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        """Check the rule.

        Raises:
            DataError: for an unknown kind, a negative price, or a scale that is not positive.
        """
        if self.kind not in ("price", "finest"):
            raise DataError(f"A policy is of kind 'price' or 'finest', not {self.kind!r}.")
        if not (math.isfinite(self.lam) and self.lam >= 0):
            raise DataError(f"A policy's price must be finite and at least 0, not {self.lam}.")
        if not (math.isfinite(self.cost_scale) and self.cost_scale > 0):
            raise DataError(f"A policy's cost scale must be positive, not {self.cost_scale}.")

    @property
    def price(self) -> float:
        """Price of one unit of cost, in probability."""
        return self.lam / self.cost_scale

    def choose(self, p: Floats, costs: Floats) -> Choice:
        """Option indices (N,) for probabilities and costs, both (N, K).

        Raises:
            DataError: when they are misshapen, not finite, or probabilities outside [0, 1].
            MismatchError: when K is not the number of options.
        """
        p, costs = check_inputs(p, costs)
        self._check_width(p.shape[1])
        if self.kind == "finest":
            return np.full(len(p), p.shape[1] - 1, dtype=np.intp)
        return choose_at(p, costs, self.price)

    def decide(self, p: Floats, costs: Floats) -> int:
        """Option index for one example, p and costs (K,); equal to `choose` on one row.

        Raises:
            DataError: when a probability or cost is not finite.
            MismatchError: when K is not the number of options.
        """
        self._check_width(len(p))
        self._check_width(len(costs))
        price, best, total = self.price, 0, 0.0
        best_value, best_cost = -math.inf, math.inf
        # Plain floats: at a handful of options this is several times faster than NumPy.
        for k, (probability, cost) in enumerate(zip(p.tolist(), costs.tolist(), strict=True)):
            value = probability - price * cost
            total += value
            if value > best_value or (value == best_value and cost < best_cost):
                best, best_value, best_cost = k, value, cost
        if not math.isfinite(total):
            raise DataError(f"Probabilities and costs must be finite; got {p} and {costs}.")
        return len(self.binding.options) - 1 if self.kind == "finest" else best

    def check_fits(self, *, options: Sequence[str], router: str = "", split: str = "") -> None:
        """Refuse another grid, router or split; "" leaves the router or split unchecked.

        Raises:
            MismatchError: naming both sides.
        """
        ours = self.binding
        if tuple(options) != ours.options:
            raise MismatchError(
                f"The policy chooses between {list(ours.options)}, but is used with "
                f"{list(options)}. Calibrate a policy on these options."
            )
        for what, mine, theirs in (("router", ours.router, router), ("split", ours.split, split)):
            if theirs and mine != theirs:
                raise MismatchError(
                    f"The policy was calibrated for the {what} {mine[:12] or '(none)'}, but is "
                    f"used with the {what} {theirs[:12]}. Calibrate it again."
                )

    def write(self, path: Path) -> None:
        """Write policy.json, sealed with its own SHA-256."""
        write_sealed(path, {"kind": KIND, "schema": SCHEMA, "policy": asdict(self)})

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read what `write` wrote.

        Raises:
            DataError: when it is missing, cut short, edited, newer, or not a valid policy.
        """
        payload = read_sealed(path, kind=KIND, schema=SCHEMA)
        try:
            entries: dict[str, Any] = dict(payload["policy"])
            binding = entries.pop("binding")
            options = tuple(binding.pop("options"))
            return cls(binding=Binding(options=options, **binding), **entries)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} (seal {payload[SEAL][:12]}) is no policy: {error}.") from error

    def _check_width(self, k: int) -> None:
        if k != len(self.binding.options):
            raise MismatchError(
                f"The policy chooses between the {len(self.binding.options)} options "
                f"{list(self.binding.options)}, but got {k} probabilities or costs."
            )


def for_budget(p: Floats, costs: Floats, *, budget: float, binding: Binding) -> Policy:
    """The policy of the lowest price whose mean cost on the calibrate part is within budget.

    The lowest price has the highest expected accuracy, the mean of p at the chosen options.

    Args:
        p: probabilities (N, K) on the calibrate part.
        costs: (N, K) in `binding.cost_unit`.
        budget: most mean cost per example.
        binding: what the policy will belong to.

    Raises:
        DataError: when the budget is below the mean cost of the cheapest option, or the
            calibrate part is empty or not finite.
    """
    p, costs = check_inputs(p, costs)
    least = costs.min(axis=1).mean()
    if not budget >= least:
        raise DataError(
            f"The budget must be at least {least:.6g} {binding.cost_unit}, the mean cost of the "
            f"cheapest option on the calibrate part; it is {budget:.6g}. Raise the budget."
        )
    steps = sweep(p, costs)
    knob = {"budget": float(budget)}
    first = int(np.argmax(steps.cost <= budget * (1 + 1e-9)))
    policy = _priced(p, costs, price=steps.prices[first], knob=knob, binding=binding)
    # The sweep's sums are rounded: the policy is judged by its own choices.
    for price in steps.prices[first + 1 :]:
        if policy.calibration["mean_cost"] <= budget:
            break
        policy = _priced(p, costs, price=price, knob=knob, binding=binding)
    return policy


def for_max_loss(
    p: Floats, costs: Floats, *, scores: Floats, max_loss_points: float, binding: Binding
) -> Policy:
    """The cheapest policy at most `max_loss_points` below the finest option's accuracy.

    Judged by the accuracy on the calibrate part, without a confidence bound. When no price
    qualifies, the policy is the finest option and says so in `fallback` and `reason`.

    Args:
        p: probabilities (N, K) on the calibrate part.
        costs: (N, K).
        scores: (N, K) in [0, 1], what each option really scored there.
        max_loss_points: percentage points; negative asks to be better than the finest option.
        binding: what the policy will belong to.

    Raises:
        DataError: when the calibrate part is empty, misshapen or not finite.
    """
    p, costs = check_inputs(p, costs)
    scores = _checked_scores(scores, p.shape)
    target = scores[:, -1].mean() - max_loss_points / 100
    knob = {"max_loss_points": float(max_loss_points)}
    steps = sweep(p, costs, scores=scores)
    for price in steps.prices[steps.accuracy >= target - 1e-9][::-1]:
        policy = _priced(p, costs, price=price, knob=knob, binding=binding)
        policy = _with_accuracy(policy, p, costs, scores)
        if policy.calibration["accuracy"] >= target - 1e-12:
            return policy
    finest = Policy(
        binding=binding,
        kind="finest",
        lam=0.0,
        cost_scale=_cost_scale(costs),
        knob=knob,
        calibration={"n": len(p), "mean_cost": float(costs[:, -1].mean())},
        fallback=True,
        reason=(
            f"no price reaches the accuracy {target:.4f} on the {len(p)} calibration examples "
            f"(best {steps.accuracy.max():.4f}), so every example goes to the finest option, "
            f"{binding.options[-1]}"
        ),
    )
    return _with_accuracy(finest, p, costs, scores)


def _priced(
    p: Floats, costs: Floats, *, price: float, knob: Mapping[str, float], binding: Binding
) -> Policy:
    scale = _cost_scale(costs)
    policy = Policy(
        binding=binding, kind="price", lam=float(price) * scale, cost_scale=scale, knob=knob
    )
    cost = costs[np.arange(len(p)), policy.choose(p, costs)].mean()
    return replace(policy, calibration={"n": len(p), "mean_cost": float(cost)})


def _with_accuracy(policy: Policy, p: Floats, costs: Floats, scores: Floats) -> Policy:
    accuracy = scores[np.arange(len(p)), policy.choose(p, costs)].mean()
    return replace(policy, calibration={**policy.calibration, "accuracy": float(accuracy)})


def _cost_scale(costs: Floats) -> float:
    return float(costs[:, -1].mean()) or 1.0


def _checked_scores(scores: Floats, shape: tuple[int, ...]) -> Floats:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != shape or not np.all((scores >= 0) & (scores <= 1)):
        raise DataError(
            f"Scores must have shape {shape} and lie in [0, 1] without gaps; they have shape "
            f"{scores.shape}. Drop examples with gaps (--gaps drop) first."
        )
    return scores
