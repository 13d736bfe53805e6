"""Policies: from estimated probabilities and costs to one option per example.

Notation for shapes: N examples, K options.

The rule is argmax_k p_k(x) - lam * cost_k(x) / cost_scale, ties to the cheaper option, among the
options within the cap. Policies are made by `m3router.router.policies.fitting` and, with a
guarantee, by `m3router.router.policies.guarantee`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, overload

import numpy as np

from m3router.data.errors import DataError, MismatchError
from m3router.data.paths import StrPath, as_path
from m3router.data.registry import unknown_name
from m3router.router.estimators.base import Floats
from m3router.router.policies.price_sweep import (
    LAST,
    Choice,
    Kind,
    allowed,
    check_inputs,
    choose_at,
    decide_at,
    reference_allowed,
    worths,
)
from m3router.router.sealed_files import SEAL, check_entries, read_sealed, write_sealed
from m3router.router.text.numbers import plain

KIND = "policy"
SCHEMA = 3  # 2: caps, the kind "regret" and guarantees; 3: the reference, "finest" is "fixed"


@dataclass(frozen=True, kw_only=True)
class Binding:
    """What a policy belongs to; it is refused elsewhere.

    Attributes:
        options: names of the options, cheapest first.
        cost_unit: unit of its costs.
        router: fingerprint of the router whose probabilities it was calibrated on.
        split: fingerprint of the split whose calibration split it was calibrated on.
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
        kind: "price" for the rule with `lam`; "regret" for that rule with 1 - P(right at the
            reference and wrong at k) in place of p_k (`price_sweep.worths`); "fixed" for
            always the reference.
        lam: price of `cost_scale` units of cost, in probability, at least 0.
        cost_scale: mean cost of the last option in the calibration split.
        reference: name of the option that losses and regrets are against, and that is used where
            nothing meets the target; "" for the last. Where the cap forbids it, see
            `reference_choice`.
        cap: most cost of any single answer, None for no cap.
        knob: what was asked for, such as {"budget": 64.0}.
        calibration: "n", "mean_cost" and, where scores were given, "accuracy" it reached there.
        guarantee: what was certified and how, see `m3router.router.policies.guarantee`; empty
            without one.
        fallback: whether no price met the target, so that the reference option is used.
        reason: why, when `fallback`.
    """

    binding: Binding
    kind: Kind
    lam: float
    cost_scale: float
    reference: str = ""
    cap: float | None = None
    knob: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, float] = field(default_factory=dict)
    guarantee: Mapping[str, Any] = field(default_factory=dict)
    fallback: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        """Check the rule.

        Raises:
            DataError: for an unknown kind or reference, a negative price or cap, or a scale that
                is not positive.
        """
        options = self.binding.options
        if not self.reference:
            object.__setattr__(self, "reference", options[-1])
        if self.reference not in options:
            raise DataError(
                f"A policy's reference must be one of its options {', '.join(options)}, not "
                f"{self.reference!r}."
            )
        if self.kind not in ("price", "regret", "fixed"):
            raise DataError(f"A policy is of kind 'price', 'regret' or 'fixed', not {self.kind!r}.")
        if self.cap is not None and not self.cap >= 0:
            raise DataError(f"A policy's cap must be at least 0, not {self.cap}.")
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
            DataError: when they are misshapen, not finite, or probabilities outside [0, 1], or
                when the cap is below the cheapest option of an example.
            MismatchError: when K is not the number of options.
        """
        p, costs = check_inputs(p, costs)
        self._check_width(p.shape[1])
        if self.kind == "fixed":
            return self.reference_choice(costs)
        worth = worths(
            p,
            costs,
            regret=self.kind == "regret",
            cap=self.cap,
            reference=self.reference_index,
        )
        return choose_at(worth, costs, self.price)

    @property
    def reference_index(self) -> int:
        """Place of the reference among the options."""
        return self.binding.options.index(self.reference)

    def reference_choice(self, costs: Floats) -> Choice:
        """What losses are against at costs (N, K): option indices (N,).

        The reference where the cap allows it, else the last allowed option before it in rank,
        else the cheapest allowed.

        Raises:
            DataError: when the cap is below the cheapest option of an example.
        """
        costs = np.asarray(costs, dtype=np.float64)
        return reference_allowed(allowed(costs, self.cap), costs, self.reference_index)

    @overload
    def decide(self, p: Mapping[str, float], costs: Mapping[str, float]) -> str: ...

    @overload
    def decide(self, p: Floats | Sequence[float], costs: Floats | Sequence[float]) -> int: ...

    def decide(
        self,
        p: Floats | Sequence[float] | Mapping[str, float],
        costs: Floats | Sequence[float] | Mapping[str, float],
    ) -> int | str:
        """The option for one example; equal to `choose` on one row.

        Args:
            p: probability of a correct answer at each option: (K,) in the order of the options, or
                by their names, such as an answer's `estimates`.
            costs: cost of each option, in the same form.

        Returns:
            The option's place for arrays, its name for names.

        Raises:
            DataError: when a probability is outside [0, 1] or a cost not finite or negative, or
                when the cap is below the cheapest option.
            MismatchError: when K is not the number of options, names are not those of the options,
                or one has names and the other has not.
        """
        if isinstance(p, Mapping) or isinstance(costs, Mapping):
            place = self.decide(self._in_order("p", p), self._in_order("costs", costs))
            return self.binding.options[place]
        p, costs = np.asarray(p, dtype=np.float64), np.asarray(costs, dtype=np.float64)
        self._check_width(len(p))
        self._check_width(len(costs))
        return decide_at(
            p.tolist(),
            costs.tolist(),
            self.price,
            kind=self.kind,
            cap=self.cap,
            reference=LAST if self.kind == "price" else self.reference_index,
        )

    def _in_order(self, what: str, values: Any) -> Floats:
        """Values by name, in the order of the options."""
        options = self.binding.options
        if not isinstance(values, Mapping):
            raise MismatchError(
                f"Of p and costs, {what} has no names: give both by the names of the options, "
                f"{', '.join(options)}, or both as arrays in that order."
            )
        named = {str(name): value for name, value in values.items()}
        for name in named:
            if name not in options:
                raise MismatchError(f"{what}: {unknown_name('option', name, options)}")
        missing = [name for name in options if name not in named]
        if missing:
            raise MismatchError(
                f"{what} has no value for {', '.join(missing)}: give one for each option."
            )
        return np.array([named[name] for name in options], dtype=np.float64)

    def fall_back(self, cause: str, *, advice: str = "") -> Policy:
        """This policy, of kind "fixed", as what remains when nothing qualifies, and why."""
        where = f"the reference option, {self.reference}"
        if self.cap is not None:
            where += f", or what stands for it within the cap of {plain(self.cap)}"
        reason = f"{cause}, so every example goes to {where}" + (f". {advice}" if advice else "")
        return replace(self, fallback=True, reason=reason)

    def check_fits(self, *, options: Sequence[str], router: str = "", split: str = "") -> None:
        """Refuse another grid, router or split; "" leaves the router or split unchecked.

        Raises:
            MismatchError: naming both sides.
        """
        ours = self.binding
        if tuple(options) != ours.options:
            raise MismatchError(
                f"The policy chooses between {', '.join(ours.options)}, but is used with "
                f"{', '.join(map(str, options))}. Calibrate a policy on these options."
            )
        for what, mine, theirs in (("router", ours.router, router), ("split", ours.split, split)):
            if theirs and mine != theirs:
                raise MismatchError(
                    f"The policy was calibrated for another {what} than it is used with: the "
                    f"{what} was made again. Calibrate it again. ({mine[:12] or 'None'} and "
                    f"{theirs[:12]})"
                )

    def write(self, path: StrPath) -> None:
        """Write policy.json, sealed with its own SHA-256."""
        path = as_path(path)
        write_sealed(path, {"kind": KIND, "schema": SCHEMA, "policy": asdict(self)})

    @classmethod
    def read(cls, path: StrPath) -> Policy:
        """Read what `write` wrote.

        Before schema 3 the reference was the last option, and the kind "fixed" called "finest".

        Raises:
            DataError: when it is missing, cut short, edited, newer, or not a valid policy.
        """
        path = as_path(path)
        payload = read_sealed(path, kind=KIND, schema=SCHEMA)
        try:
            entries: dict[str, Any] = dict(payload["policy"])
            if payload["schema"] < 3 and entries["kind"] == "finest":
                entries["kind"] = "fixed"
            binding = dict(entries.pop("binding"))
            check_entries(Binding, binding)
            check_entries(cls, entries)
            options = tuple(binding.pop("options"))
            return cls(binding=Binding(options=options, **binding), **entries)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(
                f"{path} (seal {payload[SEAL][:12]}) is not a policy: {error}."
            ) from error

    def _check_width(self, k: int) -> None:
        if k != len(self.binding.options):
            raise MismatchError(
                f"The policy chooses between the {len(self.binding.options)} options "
                f"{', '.join(self.binding.options)}, but got {k} probabilities or costs."
            )
