"""Routing and cascade in one: after an answer, ask a finer option where the answer looks wrong.

Notation for shapes: n examples, K options, cheapest first by name.

A router chooses before it has seen an answer. An answer brings news: how likely its first token
was, and how likely all of it. Logistic regressions, one for each pair k <= j, learned on the tune
split, weigh them:

    b_kj(x) = P(the answer at j is right | p(x), confidence and log-probability of that at k)

b_kk says whether the answer in hand is right; b_kj what a finer one would be worth given that the
question looked as hard as it did at k. After the answer at k the cascade asks

    the finer j of the largest b_kj - price * cost_j, where that is above b_kk,

else it gives the answer it has; at most `STEPS` times. Everything that was asked is paid for.

That an answer can be fixed makes a cheap first try worth more, so that the first option is not
the router's own, but the k of the largest V_k - price * cost_k, with

    V_k(x) = E[score in the end - price * cost of all later answers | p(x), k asked first],

a ridge regression on the logits and the probabilities of the router, learned on the tune split with
b of other images. It belongs to one price, as a `Cascade` does.

A `Rule` without V is the plain router, which never asks again. It is what learning gives
(`m3router.router.cascade.learning`) where nothing better was found on the tune split, so that there
a cascade is never below its router.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from m3router.data.errors import DataError, MismatchError
from m3router.router.estimators.base import Floats
from m3router.router.policies.outcomes import Asked
from m3router.router.policies.policy import Binding
from m3router.router.policies.price_sweep import choose_at
from m3router.router.sealed_files import SEAL, check_entries, read_sealed, write_sealed

KIND = "cascade"
SCHEMA = 2  # 2: the reference
STEPS = 2
"""Most further options that are asked."""
EDGE = 1e-5  # probabilities are kept so far from 0 and 1

Array = npt.NDArray[np.float64]
Weights = tuple[tuple[float, ...], ...]


def cascade_path(run: Path, name: str) -> Path:
    """Where a run folder keeps the cascade of the policy of that name."""
    return run / "cascades" / f"{name}.json"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The learned part of a cascade.

    Attributes:
        beliefs: for each option k that answered, (K + 3) * K numbers: weights of `seen` and a
            bias, for b_k1 ... b_kK; those of j < k are not used.
        start: 2 K + 1 rows of K numbers: weights of `known` and a bias, for V_1 ... V_K. Empty for
            the plain router, which never asks again.
    """

    beliefs: Weights
    start: Weights = ()

    def believe(self, p: Floats, confidence: Floats, logprob: Floats) -> Array:
        """What an answer at each option makes us believe.

        Args:
            p: (n, K) the router's probabilities.
            confidence: (n, K) top probability of the first token of each option's answer.
            logprob: (n, K) of the whole answers, in nats.

        Returns:
            (n, K, K): b_kj at [:, k, j]; 0 for j < k.
        """
        k = p.shape[1]
        found = np.zeros((len(p), k, k))
        for at in range(k):
            weights = np.reshape(self.beliefs[at], (k + 3, k))
            read = seen(p, confidence[:, at], logprob[:, at])
            found[:, at, at:] = expit(read @ weights[:-1, at:] + weights[-1, at:])
        return found

    def ask(self, p: Floats, routed: Floats, costs: Floats, beliefs: Array, price: float) -> Asked:
        """What is asked at the price that the rule was learned for.

        Args:
            p: (n, K).
            routed: (n, K) cost of each option as the first one asked.
            costs: (n, K) cost of each option after another one.
            beliefs: (n, K, K), see `believe`.
            price: of one unit of cost, in probability.
        """
        first = self.first(p, routed, price)
        if not self.start:
            return Asked.once(first, options=p.shape[1])
        return self.onwards(first, costs, beliefs, price)

    def onwards(
        self, first: npt.NDArray[np.intp], costs: Floats, beliefs: Array, price: float
    ) -> Asked:
        """What is asked from first options (n,) on; the rest as in `ask`."""
        rows, k = np.arange(len(first)), costs.shape[1]
        final, options = first.copy(), first[:, None] == np.arange(k)
        for _ in range(STEPS):
            following = self.following(beliefs[rows, final], costs, final, price)
            final = np.where(following < 0, final, following)
            options[rows, final] = True
        return Asked(first=first, final=final, options=options)

    def first(self, p: Floats, routed: Floats, price: float) -> npt.NDArray[np.intp]:
        """The option (n,) that is asked first."""
        if not self.start:
            return choose_at(p, routed, price)
        weights = np.asarray(self.start)
        return choose_at(known(p) @ weights[:-1] + weights[-1], routed, price)

    @staticmethod
    def following(
        beliefs: Floats, costs: Floats, at: npt.NDArray[np.intp], price: float
    ) -> npt.NDArray[np.intp]:
        """The option (n,) to ask after `at` (n,), -1 for none; beliefs and costs are (n, K).

        Ties go to the cheaper option, those of equal costs to the coarser one.
        """
        rows, k = np.arange(len(beliefs)), beliefs.shape[1]
        worth = np.where(np.arange(k) > at[:, None], beliefs - price * costs, -np.inf)
        tied = worth == worth.max(axis=1, keepdims=True)
        best = np.argmin(np.where(tied, costs, np.inf), axis=1)
        return np.where(worth[rows, best] > beliefs[rows, at], best, -1)


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """What a pipeline asks, first and after an answer; goes with the policy of the same name.

    Attributes:
        binding: what it belongs to.
        rule: learned for this price.
        price: of one unit of cost, in probability.
        knob: what was asked for, such as {"budget": 64.0}.
        reference: name of the option that losses and regrets are against, "" for the last.
        calibration: "n", "mean_cost" in full, "accuracy" and "asked_again" there.
        guarantee: of the regret of the answers given in the end, see
            `m3router.router.policies.guarantee.described`; empty without one.
    """

    binding: Binding
    rule: Rule
    price: float
    reference: str = ""
    knob: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, float] = field(default_factory=dict)
    guarantee: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            DataError: for a negative price, an unknown reference, or weights of another number
                than the options need.
        """
        options, rule = self.binding.options, self.rule
        k = len(options)
        if not self.reference:
            object.__setattr__(self, "reference", options[-1])
        if self.reference not in options:
            raise DataError(
                f"A cascade's reference must be one of its options {', '.join(options)}, not "
                f"{self.reference!r}."
            )
        if not (np.isfinite(self.price) and self.price >= 0):
            raise DataError(f"A cascade's price must be at least 0; it is {self.price}.")
        sizes = [len(one) for one in rule.beliefs], [len(one) for one in rule.start]
        if sizes[0] != [(k + 3) * k] * k or sizes[1] not in ([], [k] * (2 * k + 1)):
            raise DataError(
                f"A cascade over {k} options has {k} rows of {(k + 3) * k} weights and {2 * k + 1} "
                f"rows of {k} or none to start with; it has rows of {sizes[0]} and {sizes[1]}."
            )
        weights = [number for row in (*rule.beliefs, *rule.start) for number in row]
        if not np.all(np.isfinite(weights)):
            raise DataError("The weights of a cascade must be finite.")

    @property
    def reference_index(self) -> int:
        """Place of the reference among the options."""
        return self.binding.options.index(self.reference)

    def decide(self, p: Floats, routed: Floats) -> int:
        """The option to ask first, from probabilities and costs (K,) behind the router.

        Raises:
            DataError: when a number is not finite.
            MismatchError: when K is not the number of options.
        """
        one, costs = self._checked(p, routed)
        return int(self.rule.first(one, costs, self.price)[0])

    def decide_after(
        self,
        p: Floats,
        costs: Floats,
        scale: int,
        *,
        confidence: float,
        logprob: float,
        step: int = 0,
    ) -> int | None:
        """The option to ask after an answer, None to give that answer.

        Args:
            p: probabilities (K,).
            costs: (K,).
            scale: option that answered.
            confidence: top probability of its first token, in [0, 1].
            logprob: of the whole answer, in nats.
            step: how many options were asked before this one.

        Raises:
            DataError: when a number is not finite.
            MismatchError: when K is not the number of options.
        """
        one, price = self._checked(p, costs)
        if not np.isfinite([confidence, logprob]).all():
            raise DataError("The confidence and the log-probability of an answer must be finite.")
        if not self.rule.start or step >= STEPS:
            return None
        wide = np.ones_like(one)
        beliefs = self.rule.believe(one, confidence * wide, logprob * wide)[:, scale]
        best = int(self.rule.following(beliefs, price, np.array([scale]), self.price)[0])
        return None if best < 0 else best

    def check_fits(self, *, options: Sequence[str], router: str = "") -> None:
        """Refuse another grid or router; "" leaves the router unchecked.

        Raises:
            MismatchError: naming both sides.
        """
        if tuple(options) != self.binding.options:
            raise MismatchError(
                f"The cascade chooses between {', '.join(self.binding.options)}, but is used with "
                f"{', '.join(map(str, options))}. Calibrate a cascade on these options."
            )
        if router and router != self.binding.router:
            raise MismatchError(
                "The cascade was calibrated for another router than it is used with: the router "
                f"was trained again. Calibrate it again. ({self.binding.router[:12]} and "
                f"{router[:12]})"
            )

    def write(self, path: Path) -> None:
        """Write it as JSON, sealed with its own SHA-256."""
        write_sealed(path, {"kind": KIND, "schema": SCHEMA, "cascade": asdict(self)})

    @classmethod
    def read(cls, path: Path) -> Cascade:
        """Read what `write` wrote; before schema 2 the reference was the last option.

        Raises:
            DataError: when it is missing, cut short, edited, newer, or not a valid cascade.
        """
        payload = read_sealed(path, kind=KIND, schema=SCHEMA)
        try:
            entries: dict[str, Any] = dict(payload["cascade"])
            binding, rule = dict(entries.pop("binding")), dict(entries.pop("rule"))
            for kind, given in ((Binding, binding), (Rule, rule), (cls, entries)):
                check_entries(kind, given)
            options = tuple(binding.pop("options"))
            beliefs, start = (tuple(map(tuple, rule.pop(name))) for name in ("beliefs", "start"))
            return cls(
                binding=Binding(options=options, **binding),
                rule=Rule(beliefs=beliefs, start=start, **rule),
                **entries,
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(
                f"{path} (seal {payload[SEAL][:12]}) is not a cascade: {error}."
            ) from error

    def _checked(self, p: Floats, costs: Floats) -> tuple[Array, Array]:
        """Probabilities and costs (K,) as (1, K)."""
        k = len(self.binding.options)
        if len(p) != k or len(costs) != k:
            raise MismatchError(
                f"The cascade chooses between the {k} options {', '.join(self.binding.options)}, "
                f"but got {len(p)} probabilities and {len(costs)} costs."
            )
        one, price = np.asarray(p, dtype=np.float64)[None], np.asarray(costs, np.float64)[None]
        if not (np.isfinite(one).all() and np.isfinite(price).all()):
            raise DataError(f"Probabilities and costs must be finite; got {p} and {costs}.")
        return one, price


def seen(p: Floats, confidence: Floats, logprob: Floats) -> Array:
    """What b reads, (n, K + 2), from p (n, K) and the answer's confidence and log-prob. (n,)."""
    return np.column_stack([odds(p), odds(confidence), odds(np.exp(logprob))])


def known(p: Floats) -> Array:
    """What V reads, (n, 2 K), from p (n, K)."""
    return np.hstack([odds(p), p])


def odds(p: Floats) -> Array:
    """Logarithms of odds, of probabilities kept away from 0 and 1."""
    return np.asarray(logit(np.clip(p, EDGE, 1 - EDGE)))
