"""What answers cost: numbers by option, or measured of every answer, as its file tells.

Notation for shapes: N examples, K options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from m3router.data.errors import DataError
from m3router.data.importers.usage import QUANTITIES, CellUsage, amount
from m3router.data.prices import Prices

UNIT, RANK, MONEY = "cost", "rank", "USD"
PRICE = "price"


@dataclass(frozen=True, kw_only=True)
class Costs:
    """How an answer's cost is found.

    Attributes:
        fixed: Option -> cost of any answer.
        measured: What of an answer is its cost: a member of
            :data:`m3router.data.importers.usage.QUANTITIES`, or a field or column of the file.
        prices: Option -> prices of its tokens; the cost where there is no other.
        unit: What the costs count; None for the usual word.
    """

    fixed: Mapping[str, float] = field(default_factory=dict)
    measured: str | None = None
    prices: Mapping[str, Prices] = field(default_factory=dict)
    unit: str | None = None

    @classmethod
    def given(
        cls,
        costs: Mapping[str, float] | str | None,
        prices: Mapping[str, Prices] | None,
        unit: str | None,
    ) -> Costs:
        """From what a reader was asked for: costs by option, or the name of what is measured."""
        if isinstance(costs, str):
            return cls(measured=costs, prices=prices or {}, unit=unit)
        return cls(fixed=costs or {}, prices=prices or {}, unit=unit)

    @property
    def what(self) -> str | None:
        """What is read of every answer; None where its option alone decides."""
        return self.measured or (PRICE if self.prices and not self.fixed else None)

    @property
    def column(self) -> str | None:
        """The field or column of the file that holds the costs; None where none does."""
        return None if self.measured in QUANTITIES else self.measured

    def of(self, option: str, usage: CellUsage, own: float | None) -> float | None:
        """The cost of an answer by what it took, or by the file's own column."""
        if self.what == PRICE:
            return usage.priced(self.prices.get(option))
        if self.what in QUANTITIES:
            value: float | None = getattr(usage, self.what or "")
            return value
        return own

    def unit_of(self, *, ranks: bool) -> str:
        """What the costs count; ``ranks`` where nothing but the options' places is known."""
        if self.what is not None:
            return self.unit or QUANTITIES.get(self.what, self.what)
        return RANK if ranks else self.unit or UNIT

    def check(self, options: Sequence[str]) -> None:
        """Check that all options have prices, or none.

        Raises:
            DataError: Naming those that lack one, or are not there.
        """
        unknown = sorted(set(self.prices) - set(options))
        missing = [option for option in options if option not in self.prices]
        if unknown:
            raise DataError(
                f"Prices were given for {', '.join(unknown)}, but the options are "
                f"{', '.join(options)}."
            )
        if self.prices and missing:
            raise DataError(
                f"No price was given for {', '.join(missing)}: give one to every option "
                "(--price OPTION=INPUT,OUTPUT)."
            )

    def lacking(self, where: str, count: int, total: int, examples: str) -> str:
        """Say of how many answers the cost is not known, and why."""
        return (
            f"{where}: {count} of {total} answers have no {self._needed()}, so that their cost is "
            f"not known ({examples})"
        )

    def _needed(self) -> str:
        if self.what == PRICE and self.prices:
            return "count of their prompt's and answer's tokens"
        return repr(self.what)


def mean_costs(costs: np.ndarray) -> np.ndarray:
    """Mean cost of each option, shape (K,), from costs (N, K) with NaN where unknown.

    An option without any known cost counts as the most expensive: inf.
    """
    known = np.isfinite(costs)
    sums = np.where(known, costs, 0.0).sum(axis=0)
    means: np.ndarray = np.divide(
        sums, known.sum(axis=0), out=np.full(costs.shape[1], np.inf), where=known.any(axis=0)
    )
    return means


def by_cost(options: Sequence[str], means: np.ndarray) -> list[str]:
    """Order options by their mean costs (K,), cheapest first; ties stay as they were given."""
    return [options[k] for k in np.argsort(means, kind="stable")]


def contradiction(
    options: Sequence[str], means: np.ndarray, unit: str, *, meant: bool
) -> list[str]:
    """Say that mean costs (K,) order the options otherwise than they were given.

    Args:
        options: In the order given.
        means: Their mean costs, shape (K,).
        unit: What the costs count.
        meant: Whether that order means something. Where all names are numbers it is these that
            give the order.
    """
    numbers = [amount(name) for name in options]
    named = None not in numbers
    if not (named or meant):
        return []
    rank = range(len(options))
    expected = sorted(rank, key=lambda k: numbers[k] or 0.0) if named else list(rank)
    found = sorted(expected, key=lambda k: means[k])
    if found == expected:
        return []
    shown = ", ".join(f"{options[k]} ({means[k]:.6g})" for k in found)
    otherwise = ", ".join(options[k] for k in expected)
    return [
        f"the options are ordered by their mean cost in {unit}, {shown}; by "
        f"{'the numbers in their names' if named else 'the order given'} they would be "
        f"{otherwise}. Check the costs if that is unexpected"
    ]
