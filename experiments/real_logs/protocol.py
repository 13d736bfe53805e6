"""How routers are compared on a real log: splits, sizes, curves, intervals.

Notation for shapes: N examples of the log, n of a test split, K options, P places of a curve, G
groups of the log, B draws.

Every way of choosing is given the same training questions and judged on the same test questions by
the same rule, argmax_k p_k - price * cost_k, at every price. cost_k is the mean cost of the option,
since what an answer will cost is not always known before it is asked for; what counts as spent is
what the answers really cost. Five seeds draw five splits; what is
reported is the mean over them. Intervals are of the sampling of images: one bootstrap over the
groups of the whole log, whose weights count in every seed's test split alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.real_logs.logs import RealLog
from m3router.data.splits.split import Split, split_by_group
from m3router.router.evaluation.price_curves import curve_prices
from m3router.router.metrics.choices import taken
from m3router.router.metrics.curves import Curves, curves
from m3router.router.metrics.hull import worth_mixing
from m3router.router.policies.price_sweep import choose_at

SIZES = (100, 300, 1000, 3000, 10_000)
SEEDS = 5
DRAWS = 1000
LEVEL = 0.95
SHARES = (0.1, 0.25, 0.5)
"""Budgets at which accuracies are compared: shares of the range of the options' mean costs."""

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


def sizes_of(log: RealLog) -> list[int | None]:
    """Training sizes for a log; None is all that fit and tune have."""
    training = len(split_by_group(log.log.groups, seed=0).fit) + len(
        split_by_group(log.log.groups, seed=0).tune
    )
    return [*(size for size in SIZES if size < 0.9 * training), None]


def small_split(log: RealLog, *, seed: int, size: int | None) -> Split:
    """The usual split by a seed, with fit and tune cut to about `size` questions, whole groups."""
    groups = log.log.groups
    split = split_by_group(groups, seed=seed)
    if size is None:
        return split
    rows = np.concatenate([split.fit, split.tune])
    names = np.unique(groups[rows].astype(str))
    rank = dict(zip(np.random.default_rng(seed).permutation(names), range(len(names)), strict=True))
    place = np.array([rank[str(name)] for name in groups[rows]])
    order = np.argsort(place, kind="stable")
    kept = rows[place <= place[order[min(size, len(rows)) - 1]]]
    return Split(
        fit=np.intersect1d(split.fit, kept),
        tune=np.intersect1d(split.tune, kept),
        calibrate=split.calibrate,
        test=split.test,
        parts=split.parts,
        seed=seed,
        fractions=split.fractions,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """What one way of choosing reached with one seed.

    Attributes:
        cost: (n, P) of each test example at each place.
        score: (n, P).
    """

    cost: Array
    score: Array


def judged(p: Array, log: RealLog, test: Rows) -> Judged:
    """The curve of probabilities (n, K), looked at in the usual places."""
    expected = log.expected.costs[test]
    choices = [choose_at(p, expected, price) for price in curve_prices(p, expected)]
    return Judged(
        cost=np.stack([taken(log.log.costs[test], choice) for choice in choices], axis=1),
        score=np.stack([taken(log.log.scores[test], choice) for choice in choices], axis=1),
    )


def mixtures(log: RealLog, split: Split, test: Rows) -> Judged:
    """Tossing coins between fixed options; which are worth it, other parts say."""
    before = np.concatenate([split.fit, split.tune, split.calibrate])
    options = worth_mixing(log.log.scores[before], log.log.costs[before])
    return Judged(cost=log.log.costs[test][:, options], score=log.log.scores[test][:, options])


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """Weights of the groups in a bootstrap: (B + 1, G), ones first; `member` (N,) of each row."""

    weights: Array
    member: Rows

    @classmethod
    def of(cls, log: RealLog, *, seed: int = 0) -> Draws:
        """`DRAWS` draws of the log's groups with replacement."""
        names, member = np.unique(log.log.groups.astype(str), return_inverse=True)
        generator = np.random.default_rng(seed)
        drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
        return cls(weights=np.vstack([np.ones(len(names)), drawn]), member=member.reshape(-1))

    def curves(self, one: Judged, test: Rows) -> Curves:
        """The curve (B + 1, P) in every draw; the first is that of the test split itself."""
        weights = self.weights[:, self.member[test]]
        total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        return curves((weights @ one.cost) / total, (weights @ one.score) / total)


def measured(found: Curves, costs: Array) -> Array:
    """AIQ and the accuracies at `SHARES` of the range of the mean costs: (B + 1, 1 + 3)."""
    means = costs.mean(axis=0)
    low, high = float(means.min()), float(means.max())
    at = [low + share * (high - low) for share in SHARES]
    columns = [found.at(np.full(len(found.cost), budget)) for budget in at]
    return np.stack([found.area(low, high), *columns], axis=1)


def compared(values: Mapping[str, Array]) -> dict[str, list[dict[str, float]]]:
    """Differences of the router and others, in points.

    Args:
        values: way of choosing -> (S, B + 1, 4) for every seed, see `measured`.

    Returns:
        "router minus NAME" for every other, and "NAME minus mixing", each -> four entries, AIQ
        first, of {"value", "low", "high"}.
    """
    mean = {name: 100 * np.nanmean(one, axis=0) for name, one in values.items()}
    pairs = {f"router minus {name}": ("router", name) for name in mean if name != "router"}
    pairs |= {
        f"{name} minus mixing": (name, "mixing")
        for name in mean
        if name not in ("router", "mixing")
    }
    found: dict[str, list[dict[str, float]]] = {}
    for title, (one, other) in pairs.items():
        difference = mean[one] - mean[other]
        tails = (50 * (1 - LEVEL), 100 - 50 * (1 - LEVEL))
        low, high = np.nanpercentile(difference[1:], tails, axis=0)
        found[title] = [
            {"value": float(v), "low": float(a), "high": float(b)}
            for v, a, b in zip(difference[0], low, high, strict=True)
        ]
    return found
