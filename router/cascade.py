"""Routing and cascade in one: after an answer, ask a finer option where the answer looks wrong.

Notation for shapes: n examples, K options, cheapest first by name.

A router chooses before it has seen an answer. An answer brings news: how likely its first token
was, and how likely all of it. Two logistic regressions, learned on the tune part, weigh them:

    q_k(x)  = P(the answer at k is right | p_k(x), its confidence, its log-probability, k)
    r_kj(x) = P(the answer at j is right | p_j(x), q_k(x), its log-probability, k, j),   j > k

r_kj is p_j given what k answered: examples on which k looks wrong are harder than p_j says. After
the answer at k the cascade asks

    the finer j of the largest r_kj - price * cost_j, where that is above q_k + margin,

else it gives the answer it has; at most `STEPS` times. Everything that was asked is paid for.

That an answer can be mended makes a cheap first try worth more: the first option is chosen by the
policy's rule at `eager` times the price. `eager` and `margin` are chosen on the tune part by the
area of the curve that they yield, with q and r of other pictures; (1, never) is the plain router,
is among the choices, and is kept unless another one is better, so that on the tune part a cascade
is never below its router.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from data.errors import DataError, MismatchError
from router.artefacts import SEAL, read_sealed, write_sealed
from router.estimators.base import Floats
from router.outcomes import Asked
from router.policy import Binding
from router.sweep import choose_at

KIND = "cascade"
SCHEMA = 1
STEPS = 2
"""Most further options that are asked."""
EDGE = 1e-4  # probabilities are kept so far from 0 and 1
LEAST_LOGPROB = -20.0

Array = npt.NDArray[np.float64]


def cascade_path(run: Path, name: str) -> Path:
    """Where a run folder keeps the cascade of the policy of that name."""
    return run / "cascades" / f"{name}.json"


@dataclass(frozen=True)
class Beliefs:
    """What an answer at each option would make us believe, for n examples.

    Attributes:
        right: (n, K) q_k: that it is right.
        later: (n, K, K) r_kj: that the answer at j is right after that at k; 0 unless j > k.
    """

    right: Array
    later: Array


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """The learned part of a cascade.

    Attributes:
        right: weights of q over `right_features`, then its bias.
        later: weights of r over `later_features`, then its bias.
        eager: the price counts so many times when the first option is chosen, at least 1.
        margin: how much better a finer option must look; None never asks again.
    """

    right: tuple[float, ...]
    later: tuple[float, ...]
    eager: float = 1.0
    margin: float | None = None

    def beliefs(self, p: Floats, confidence: Floats, logprob: Floats) -> Beliefs:
        """Q and r of examples, from (n, K) each."""
        k = p.shape[1]
        q = _logistic(self.right, right_features(p, confidence, logprob)).reshape(-1, k)
        later = _logistic(self.later, later_features(p, q, logprob)).reshape(-1, k, k)
        return Beliefs(q, later * np.triu(np.ones((k, k)), 1))

    def ask(
        self, p: Floats, routed: Floats, costs: Floats, beliefs: Beliefs, price: float
    ) -> Asked:
        """What is asked at a price.

        Args:
            p: (n, K).
            routed: (n, K) cost of each option as the first one asked.
            costs: (n, K) cost of each option after another one.
            beliefs: of the same examples.
            price: of one unit of cost, in probability.
        """
        rows, k = np.arange(len(p)), p.shape[1]
        first = choose_at(p, routed, price * self.eager)
        final, options = first.copy(), first[:, None] == np.arange(k)
        for _ in range(0 if self.margin is None else STEPS):
            worth = beliefs.later[rows, final] - price * costs
            worth = np.where(np.arange(k) > final[:, None], worth, -np.inf)
            following = np.argmax(worth, axis=1)
            goes = worth[rows, following] > beliefs.right[rows, final] + (self.margin or 0.0)
            final = np.where(goes, following, final)
            options[rows, final] = True
        return Asked(first=first, final=final, options=options)


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """What a pipeline does after an answer; goes with the policy of the same name.

    Attributes:
        binding: what it belongs to.
        stopping: the learned part.
        price: of one unit of cost, in probability.
        knob: what was asked for, such as {"budget": 64.0}.
        calibration: "n", "mean_cost" in full, "accuracy" and "asked_again" there.
    """

    binding: Binding
    stopping: Stopping
    price: float
    knob: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            DataError: for a negative price, an eagerness below 1, or weights of another length
                than the options need.
        """
        options, rule = len(self.binding.options), self.stopping
        if not (np.isfinite(self.price) and self.price >= 0 and rule.eager >= 1):
            raise DataError(
                "A cascade's price must be at least 0 and its eagerness at least 1; they are "
                f"{self.price} and {rule.eager}."
            )
        wanted = (4 + options, 4 + 2 * options)
        if (len(rule.right), len(rule.later)) != wanted:
            raise DataError(
                f"A cascade over {options} options has {wanted} weights; it has "
                f"{(len(rule.right), len(rule.later))}."
            )
        if not np.all(np.isfinite([*rule.right, *rule.later, rule.margin or 0.0])):
            raise DataError("The weights and the margin of a cascade must be finite.")

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
        k = len(self.binding.options)
        if len(p) != k or len(costs) != k:
            raise MismatchError(
                f"The cascade chooses between the {k} options {list(self.binding.options)}, but "
                f"got {len(p)} probabilities and {len(costs)} costs."
            )
        if not np.isfinite([*p, *costs, confidence, logprob]).all():
            raise DataError("Probabilities, costs and confidences must be finite.")
        if self.stopping.margin is None or step >= STEPS or scale == k - 1:
            return None
        one = np.asarray(p, dtype=np.float64)[None]
        wide = np.ones((1, k))
        beliefs = self.stopping.beliefs(one, confidence * wide, logprob * wide)
        worth = beliefs.later[0, scale] - self.price * np.asarray(costs, dtype=np.float64)
        worth[: scale + 1] = -np.inf
        best = int(np.argmax(worth))
        goes = worth[best] > beliefs.right[0, scale] + self.stopping.margin
        return best if goes else None

    def check_fits(self, *, options: Sequence[str], router: str = "") -> None:
        """Refuse another grid or router; "" leaves the router unchecked.

        Raises:
            MismatchError: naming both sides.
        """
        if tuple(options) != self.binding.options:
            raise MismatchError(
                f"The cascade chooses between {list(self.binding.options)}, but is used with "
                f"{list(options)}. Calibrate a cascade on these options."
            )
        if router and router != self.binding.router:
            raise MismatchError(
                f"The cascade was calibrated for the router {self.binding.router[:12]}, but is "
                f"used with the router {router[:12]}. Calibrate it again."
            )

    def write(self, path: Path) -> None:
        """Write it as JSON, sealed with its own SHA-256."""
        write_sealed(path, {"kind": KIND, "schema": SCHEMA, "cascade": asdict(self)})

    @classmethod
    def read(cls, path: Path) -> Cascade:
        """Read what `write` wrote.

        Raises:
            DataError: when it is missing, cut short, edited, newer, or not a valid cascade.
        """
        payload = read_sealed(path, kind=KIND, schema=SCHEMA)
        try:
            entries: dict[str, Any] = dict(payload["cascade"])
            binding, stopping = dict(entries.pop("binding")), dict(entries.pop("stopping"))
            options = tuple(binding.pop("options"))
            right, later = tuple(stopping.pop("right")), tuple(stopping.pop("later"))
            return cls(
                binding=Binding(options=options, **binding),
                stopping=Stopping(right=right, later=later, **stopping),
                **entries,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} (seal {payload[SEAL][:12]}) is no cascade: {error}."
            ) from error


def right_features(p: Floats, confidence: Floats, logprob: Floats) -> Array:
    """What q reads of every answer, (n K, 3 + K), from (n, K) each."""
    n, k = p.shape
    which = np.tile(np.eye(k), (n, 1))
    columns = [_logit(p), _logit(confidence), np.clip(logprob, LEAST_LOGPROB, 0.0)]
    return np.hstack([np.stack([c.ravel() for c in columns], axis=1), which])


def later_features(p: Floats, q: Floats, logprob: Floats) -> Array:
    """What r reads of every pair (k, j), (n K K, 3 + 2 K), from (n, K) each."""
    n, k = p.shape
    shape = (n, k, k)
    known = np.clip(logprob, LEAST_LOGPROB, 0.0)
    columns = [
        np.broadcast_to(_logit(p)[:, None, :], shape),
        np.broadcast_to(_logit(q)[:, :, None], shape),
        np.broadcast_to(known[:, :, None], shape),
    ]
    asked = np.broadcast_to(np.eye(k)[None, :, None, :], (*shape, k)).reshape(-1, k)
    then = np.broadcast_to(np.eye(k)[None, None, :, :], (*shape, k)).reshape(-1, k)
    return np.hstack([np.stack([c.reshape(-1) for c in columns], axis=1), asked, then])


def _logistic(weights: tuple[float, ...], Z: Array) -> Array:
    *coefficients, bias = weights
    return np.asarray(expit(Z @ np.asarray(coefficients) + bias))


def _logit(p: Floats) -> Array:
    return np.asarray(logit(np.clip(p, EDGE, 1 - EDGE)))
