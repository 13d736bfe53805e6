"""Router A against router B on the same questions: differences, intervals and p-values.

Notation for shapes: n test examples in G images, K options, P prices, M columns, D draws.

Intervals draw whole images with replacement (`m3router.router.metrics.intervals`). The p-value is
that of a paired permutation test (Fisher 1935; for routers as for classifiers, Dror et al., ACL
2018): were A and B alike, exchanging them on any image would change nothing but chance, so each
draw swaps all that A and B did on about half of the images. It is two-sided, and counts the data
themselves as one draw, so that it is never 0 and valid for any number of draws (Phipson and Smyth
2010).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.methods import GOALS
from m3router.router.evaluation.price_curves import curve_prices, curve_rows
from m3router.router.metrics import choices
from m3router.router.metrics.choices import Array, taken
from m3router.router.metrics.curves import curves
from m3router.router.metrics.paired_bootstrap import Columns, Pair, group_sums
from m3router.router.policies.policy import Policy
from m3router.router.text.numbers import plain

CHUNK_ENTRIES = 4_000_000
AIQ = "AIQ"
SAVED = "saved at 99 % of best fixed"

Statistic = Callable[[Array], Array]
"""Of the means (..., M) of one side's columns: (...)."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One number of A and of B.

    Attributes:
        name: what is compared.
        unit: "share" for accuracies and savings in [0, 1], else the unit of the costs.
        a: A's value; None where undefined.
        b: B's value.
        difference: A's less B's.
        low: lower end of its 95 % interval; None where undefined.
        high: upper end.
        p_value: of the paired permutation test, in (0, 1]; None where the difference is undefined.
    """

    name: str
    unit: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-able mapping."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One router.

    Attributes:
        p: (n, K) its probabilities.
        costs: (n, K) of each option behind it; more than the option's own after a peek.
        paid: (n, K) what is paid, where choices go by other costs; None where they go by these.
    """

    p: Floats
    costs: Floats
    paid: Floats | None = None

    @property
    def spent(self) -> Floats:
        """What is paid (n, K), whatever choices go by."""
        return self.costs if self.paid is None else self.paid


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The common test questions.

    Attributes:
        scores: (n, K) in [0, 1].
        costs: (n, K) of the options by themselves.
        groups: (n,) image of each.
        cost_unit: what costs count.
    """

    scores: Floats
    costs: Floats
    groups: npt.NDArray[Any]
    cost_unit: str


def compare_routers(
    a: Side,
    b: Side,
    questions: Questions,
    *,
    budgets: Sequence[float],
    policies: Mapping[str, tuple[Policy, Policy]] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> list[Difference]:
    """What A does better or worse than B.

    Args:
        a: router A.
        b: router B.
        questions: what was asked.
        budgets: mean costs at which the accuracies are compared.
        policies: name -> (A's policy, B's), each calibrated on the calibration split.
        draws: of the bootstrap and of the permutation test, each.
        seed: of both.

    Returns:
        AIQ; accuracy at every budget; cost saved at 99 % of the best fixed option's accuracy, at
        least 0; and of every policy accuracy and mean cost. The first three read both curves off
        the test split.

    Raises:
        DataError: when probabilities are misshapen or outside [0, 1].
    """
    test = _Test(questions, draws=draws, seed=seed)
    prices = sorted({price for one in (a, b) for price in curve_prices(one.p, one.costs)})
    # One list of prices for both, so that an image can change sides at every price.
    best = choices.best_fixed(questions.scores, questions.costs)
    fixed = np.stack([questions.scores[:, best], questions.costs[:, best]], axis=1)
    sides = [
        np.concatenate(
            [*curve_rows(one.p, questions.scores, one.costs, prices, paid=one.paid), fixed], axis=1
        )
        for one in (a, b)
    ]
    unit, mean_costs = questions.cost_unit, questions.costs.mean(axis=0)
    low, high = float(mean_costs.min()), float(mean_costs.max())
    wanted: dict[str, Statistic] = {AIQ: lambda means: _area(means, low=low, high=high)}
    for budget in budgets:
        wanted[f"accuracy at {plain(budget)} {unit}"] = _at(budget)
    wanted[SAVED] = _saved
    found = test.differences(sides[0], sides[1], {n: (f, "share") for n, f in wanted.items()})
    for name, pair in (policies or {}).items():
        taken_by = [
            _policy_rows(policy, side, questions.scores)
            for policy, side in zip(pair, (a, b), strict=True)
        ]
        found += test.differences(
            taken_by[0],
            taken_by[1],
            {
                f"accuracy with policy {name}": (lambda means: means[..., 0], "share"),
                f"mean cost with policy {name}": (lambda means: means[..., 1], unit),
            },
        )
    return found


def _curve(means: Array) -> tuple[Array, Array]:
    """Costs and accuracies (..., P), of means (..., 2 P + 2): the last two are best fixed's."""
    n_prices = means.shape[-1] // 2 - 1
    return means[..., :n_prices], means[..., n_prices:-2]


def _area(means: Array, *, low: float, high: float) -> Array:
    return curves(*_curve(means)).area(low, high)


def _at(budget: float) -> Statistic:
    return lambda means: curves(*_curve(means)).at(np.full(means.shape[:-1], budget))


def _saved(means: Array) -> Array:
    """1 - cost / spent at a share of best fixed; NaN where nothing is spent.

    At least 0: where the accuracy is reached only at a higher cost, or never, one would use the
    best fixed option itself.
    """
    least = curves(*_curve(means)).cost_of(GOALS["saved_at_99"] * means[..., -2])
    spent = means[..., -1]
    share = 1 - least / np.where(spent > 0, spent, 1.0)
    return np.where(spent > 0, np.fmax(share, 0.0), np.nan)


def _policy_rows(policy: Policy, side: Side, scores: Floats) -> Array:
    choice = policy.choose(side.p, side.costs)
    return np.stack([taken(scores, choice), taken(side.spent, choice)], axis=1)


class _Test:
    """Draws that all comparisons share."""

    def __init__(self, questions: Questions, *, draws: int, seed: int) -> None:
        self.groups = questions.groups
        self.draws = draws
        self.seed = seed

    def differences(
        self, a: Array, b: Array, statistics: Mapping[str, tuple[Statistic, str]]
    ) -> list[Difference]:
        """Compare two sides (n, M) by statistics of the means of their columns."""
        if a.shape != b.shape:
            raise DataError(f"Two sides need columns alike; they have {a.shape} and {b.shape}.")
        m = a.shape[1]
        both = np.concatenate([a, b], axis=1)
        columns = Columns(self.groups, draws=self.draws, seed=self.seed)
        columns.add("both", both)
        means = columns.pair("both")
        swapped = self._swapped(both)
        found = []
        for name, (statistic, unit) in statistics.items():
            values = tuple(float(statistic(side.mean(axis=0))) for side in (a, b))
            gap = values[0] - values[1]
            interval = columns.estimated(_paired(means, m, statistic))
            found.append(
                Difference(
                    name=name,
                    unit=unit,
                    a=_known(values[0]),
                    b=_known(values[1]),
                    difference=interval.value,
                    low=interval.low,
                    high=interval.high,
                    p_value=_p_value(gap, _gaps(swapped, m, statistic)),
                )
            )
        return found

    def _swapped(self, both: Array) -> Array:
        """Means (D, 2 M) after exchanging the sides on about half of the images."""
        sums, sizes = group_sums(both, self.groups)
        m, n = both.shape[1] // 2, float(sizes.sum())
        gap = sums[:, :m] - sums[:, m:]
        generator = np.random.default_rng([self.seed, 1])
        chunk = max(1, CHUNK_ENTRIES // len(sizes))
        means = both.mean(axis=0)
        parts = []
        for begin in range(0, self.draws, chunk):
            count = min(chunk, self.draws - begin)
            moved = generator.integers(0, 2, size=(count, len(sizes))).astype(np.float64) @ gap / n
            parts.append(np.concatenate([means[:m] - moved, means[m:] + moved], axis=1))
        return np.concatenate(parts)


def _gaps(means: Array, m: int, statistic: Statistic) -> Array:
    """Statistic of the first side less that of the second, for means (D, 2 M) of draws."""
    if not np.isfinite(means).all():  # a single image: nothing was drawn
        return np.full(len(means), np.nan)
    return statistic(means[:, :m]) - statistic(means[:, m:])


def _paired(means: Pair, m: int, statistic: Statistic) -> Pair:
    """Statistic of the first side less that of the second, of the data and of all samples."""

    def gap(both: Array) -> Array:
        return np.asarray(statistic(both[..., :m]) - statistic(both[..., m:]))

    return means.then(gap)


def _p_value(gap: float, permuted: Array) -> float | None:
    """Share of the permuted gaps at least as large as the one seen; undefined ones count too."""
    if not np.isfinite(gap):
        return None
    as_large = np.isnan(permuted) | (np.abs(permuted) >= abs(gap) - 1e-12)
    return float((1 + as_large.sum()) / (1 + len(permuted)))


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
