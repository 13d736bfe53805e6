"""What a way of choosing did: what it asked, which answer it gave, and what that cost in full.

Notation for shapes: n examples, K options.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.router.estimators.base import Floats

Choice = npt.NDArray[np.intp]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which options answered each example.

    Attributes:
        first: (n,) the option that was asked first.
        final: (n,) the option whose answer was given.
        options: (n, K) whether an option was asked; holds `first` and `final`.
    """

    first: Choice
    final: Choice
    options: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Check that the answer given is one that was asked for.

        Raises:
            DataError: for other shapes, or an answer that was not asked for.
        """
        rows = np.arange(len(self.options))
        if self.options.ndim != 2 or not self.first.shape == rows.shape == self.final.shape:
            raise DataError(
                f"Asked options must be (n, K) with (n,) first and final ones; they have shapes "
                f"{self.options.shape}, {self.first.shape} and {self.final.shape}."
            )
        if not (self.options[rows, self.first] & self.options[rows, self.final]).all():
            raise DataError("The first and the final option must be among those that were asked.")

    @classmethod
    def once(cls, choice: Choice, *, options: int) -> Asked:
        """One option (n,) asked for each example, of K in all."""
        choice = np.asarray(choice, dtype=np.intp)
        return cls(first=choice, final=choice, options=choice[:, None] == np.arange(options))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What choosing led to.

    Attributes:
        final: (n,) the option whose answer was given.
        score: (n,) its score, in [0, 1].
        cost: (n,) cost of every answer that was asked for, and of a peek that was thrown away.
        gflops: (n,) the same in GFLOPs; None where unknown.
    """

    final: Choice
    score: Array
    cost: Array
    gflops: Array | None


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What options cost: each by itself, and when it is the first that a router asks.

    Attributes:
        alone: (n, K) cost of each option's answer.
        routed: (n, K) cost when the router asks it first; see
            `m3router.router.policies.costs.routed_costs`.
    """

    alone: Floats
    routed: Floats

    def of(self, asked: Asked) -> Array:
        """Cost (n,) of everything that was asked."""
        rows = np.arange(len(asked.first))
        again = np.where(asked.options, self.alone, 0.0).sum(axis=1)
        extra = self.routed[rows, asked.first] - self.alone[rows, asked.first]
        total: Array = again + extra
        return total


def outcome_of(asked: Asked, *, scores: Floats, costs: Prices, gflops: Prices | None) -> Outcome:
    """What asking these options led to, from scores (n, K) and what the options cost."""
    return Outcome(
        final=asked.final,
        score=np.asarray(scores, dtype=np.float64)[np.arange(len(asked.final)), asked.final],
        cost=costs.of(asked),
        gflops=None if gflops is None else gflops.of(asked),
    )
