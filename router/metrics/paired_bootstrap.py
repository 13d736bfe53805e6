"""Cluster bootstrap: intervals that respect that questions about one image are not independent.

Notation for shapes: n examples in G images (groups), m or M columns of values, B draws.

A draw takes G groups with replacement (Davison and Hinkley, Bootstrap Methods and their
Application, 1997, section 3.8). Every statistic here is a function of column means, so a draw
is fully described by how often it took each group: one multinomial weight matrix times the
groups' sums gives the means of all columns in all draws. Columns that are drawn together share
their draws, so that differences between them are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.router.metrics import intervals
from m3router.router.metrics.choices import Array, Floats

SHARE = (0.0, 1.0)
"""Bounds of accuracies and other shares."""
MOST_LEFT_OUT = 1000
"""Images up to which the jackknife stretches intervals; beyond, it would change nothing."""
CHUNK_ENTRIES = 4_000_000  # of the weight matrix held at once: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """As a JSON-able mapping."""
        return asdict(self)


def group_sums(values: Floats, groups: Sequence[str] | npt.NDArray) -> tuple[Array, Array]:
    """Sums (G, M) of `values` (n, M) per group, and sizes (G,) of the groups.

    Raises:
        DataError: when there are no rows, or not one group per row.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not len(values) or len(groups) != len(values):
        raise DataError(
            f"A bootstrap needs values (N, M) and N groups; it got {values.shape} values and "
            f"{len(groups)} groups."
        )
    _, member, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    order = np.argsort(member.reshape(-1), kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.add.reduceat(values[order], starts, axis=0)
    return sums, sizes.astype(np.float64)


def cluster_means(
    values: Floats,
    groups: Sequence[str] | npt.NDArray,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Array:
    """Means (B, M) of the columns of `values` (n, M) in bootstrap draws of whole groups.

    All NaN for a single group, which says nothing about the spread between groups.

    Raises:
        DataError: when there are no rows, or not one group per row.
    """
    return draw_means(*group_sums(values, groups), draws=draws, seed=seed)


def draw_means(sums: Floats, sizes: Floats, *, draws: int = 1000, seed: int = 0) -> Array:
    """Means (B, M) in draws of groups with sums (G, M) and sizes (G,); see `cluster_means`."""
    n_groups = len(sizes)
    if n_groups < 2:
        return np.full((draws, sums.shape[1]), np.nan)
    generator = np.random.default_rng(seed)
    shares = np.full(n_groups, 1 / n_groups)
    chunk = max(1, CHUNK_ENTRIES // n_groups)
    means = [
        (weights @ sums) / (weights @ sizes)[:, None]
        for begin in range(0, draws, chunk)
        for weights in [generator.multinomial(n_groups, shares, size=min(chunk, draws - begin))]
    ]
    return np.concatenate(means)


def estimate(value: float, samples: Floats, *, level: float = 0.95) -> Estimate:
    """A value with the percentile interval of its draws (B,).

    An undefined value (NaN) has no interval.
    """
    if not np.isfinite(value):
        return Estimate(None, None, None)
    low, high = intervals.percentile_interval(samples, level=level)
    return Estimate(float(value), low, high)


@dataclass(frozen=True)
class Pair:
    """Something computed from the means, and the same from means of other samples of the images.

    Attributes:
        value: of the data, such as an array () or (m,), or what was made of it.
        draws: of the bootstrap draws, with a leading axis (B,).
        left_out: of the data with one image left out, with a leading axis (G,); one entry (1,),
            that of the data, where that is not needed.
    """

    value: Any
    draws: Any
    left_out: Any

    def then(self, function: Callable[..., Any], *others: Pair) -> Pair:
        """`function` of this and others, once for the data and once for all samples together."""
        return Pair(
            function(self.value, *(other.value for other in others)),
            function(self.draws, *(other.draws for other in others)),
            function(self.left_out, *(other.left_out for other in others)),
        )


class Columns:
    """Collects columns, then answers with means and with statistics of means.

    Args:
        groups: (n,) image of each example.
        draws: bootstrap draws B.
        seed: of the draws.
        level: of the intervals.
    """

    def __init__(
        self, groups: np.ndarray, *, draws: int = 1000, seed: int = 0, level: float = 0.95
    ) -> None:
        _, member, sizes = np.unique(
            np.asarray(groups, dtype=str), return_inverse=True, return_counts=True
        )
        self._order = np.argsort(member.reshape(-1), kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._sizes = sizes.astype(np.float64)
        self._draws = draws
        self._seed = seed
        self._level = level
        self._rows: dict[str, Floats] = {}
        self._bounds: dict[str, tuple[float, float]] = {}
        self._means: dict[str, Array] = {}
        self._sums: dict[str, Array] = {}
        self._samples: dict[str, Array] | None = None

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self._sizes)

    def add(self, name: str, values: Floats, *, bounds: tuple[float, float] | None = None) -> None:
        """Add a column (n,) or a block of columns (n, m) under a new name.

        Args:
            name: of the column.
            values: finite.
            bounds: least and largest value that any example could have; their means then have
                intervals that hold with few images and without spread. None where the values of
                other examples are known, as the cost of an option that costs always the same.
        """
        if name in self._means:
            raise ValueError(f"The column {name!r} was added before.")
        values = np.array(values, dtype=np.float64)
        self._means[name] = np.asarray(values.mean(axis=0))
        self._sums[name] = self._summed(values)
        if bounds is not None and bounds[0] < bounds[1]:
            self._bounds[name] = bounds
        if values.ndim == 1:
            self._rows[name] = values
        self._samples = None

    def __contains__(self, name: str) -> bool:
        """Whether a column of that name was added."""
        return name in self._means

    def mean(self, name: str) -> Array:
        """Mean of the column, shape () or (m,)."""
        return self._means[name]

    def samples(self, name: str) -> Array:
        """Means of the column in the draws, shape (B,) or (B, m)."""
        if self._samples is None:
            self._samples = self._resample()
        return self._samples[name]

    def left_out(self, name: str) -> Array:
        """Means of the column with one image left out, shape (G,) or (G, m)."""
        found = self._left_out(self._sums[name])
        return found[:, 0] if self._means[name].ndim == 0 else found

    def pair(self, name: str) -> Pair:
        """The means of a column, of the data and of the samples, to compute with."""
        mean = self.mean(name)
        wanted = 2 <= self.images <= MOST_LEFT_OUT
        left_out = self.left_out(name) if wanted else np.asarray(mean)[None]
        return Pair(mean, self.samples(name), left_out)

    def estimate(self, name: str, *, minus: str | None = None) -> Estimate:
        """Mean of a single column, or its paired difference to another, with its interval."""
        if minus is not None:
            return self._difference(name, minus)
        bounds = self._bounds.get(name)
        if bounds is None:
            return self.estimated(self.pair(name), least=2)
        if bounds != SHARE and self.images > 1:
            return self._spread(name, bounds)
        return self.bounded(self.pair(name), bounds=bounds, most=self._most(name))

    def statistic(
        self,
        function: Callable[..., Array],
        *names: str,
        bounds: tuple[float, float] | None = None,
    ) -> Estimate:
        """`function` of the columns' means, with its interval.

        Args:
            function: vectorised: gets one array per name, of shape () for the value and (B,) for
                other samples (blocks: (m,) and (B, m)); returns () and (B,).
            names: columns.
            bounds: of single examples, where the statistic is a mean of some of them.
        """
        first, *others = (self.pair(name) for name in names)
        pair = first.then(function, *others)
        if bounds is None or not bounds[0] < bounds[1]:
            return self.estimated(pair, least=2)
        most = float(self._sizes.sum()) if bounds == SHARE else np.inf
        return self.bounded(pair, bounds=bounds, most=most)

    def bounded(
        self, pair: Pair, *, bounds: tuple[float, float], most: float = np.inf, least: int = 2
    ) -> Estimate:
        """A number () that is a mean of values within bounds; see `intervals.mean_interval`.

        Args:
            pair: the number.
            bounds: of single examples.
            most: examples that it can count for.
            least: images below which there is no interval.
        """
        value = float(pair.value)
        if (alone := self._alone(value, least)) is not None:
            return alone
        variance = self._variance(pair)
        if not np.isfinite(variance):
            return Estimate(value, None, None)
        low, high = intervals.mean_interval(
            value, variance, bounds=bounds, groups=self.images, most=most, level=self._level
        )
        return Estimate(value, float(low), float(high))

    def estimated(self, pair: Pair, *, least: int = intervals.LEAST_FOR_CURVES) -> Estimate:
        """Any number () with the interval of its samples.

        Args:
            pair: the number.
            least: images below which there is no interval.
        """
        value = float(pair.value)
        if (alone := self._alone(value, least)) is not None:
            return alone
        samples, left_out = np.asarray(pair.draws), np.asarray(pair.left_out)
        if len(left_out) < 2:
            return Estimate(value, *intervals.percentile_interval(samples, level=self._level))
        ends = intervals.stretched_interval(value, samples, left_out, level=self._level)
        return Estimate(value, *ends)

    def bands(self, name: str) -> tuple[list[float | None], list[float | None]]:
        """Lower and upper ends of the intervals of a block (n, m) with bounds, m numbers each."""
        means = self.mean(name)
        if self.images < 2:
            return [None] * len(means), [None] * len(means)
        low, high = intervals.mean_interval(
            means,
            intervals.jackknife_variance(self.left_out(name)),
            bounds=self._bounds[name],
            groups=self.images,
            most=self._most(name),
            level=self._level,
        )
        return low.tolist(), high.tolist()

    def _spread(self, name: str, bounds: tuple[float, float]) -> Estimate:
        """Mean of a column of costs, of which few may be far from all others."""
        rows, centre = self._rows[name], float(np.median(self._rows[name]))
        above, below = np.maximum(rows - centre, 0), np.maximum(centre - rows, 0)
        sums = self._summed(np.stack([above, below], axis=1))
        if ((sums > 0).sum(axis=0) >= intervals.FEW).all():
            return self.bounded(self.pair(name), bounds=bounds)
        variance = intervals.jackknife_variance(self._left_out(sums))
        low, high = intervals.apart(
            (float(above.mean()), float(variance[0])),
            (float(below.mean()), float(variance[1])),
            reach=(bounds[1] - centre, centre - bounds[0]),
            groups=self.images,
            examples=len(rows),
            level=self._level,
        )
        return Estimate(float(self.mean(name)), centre + low, centre + high)

    def _difference(self, name: str, minus: str) -> Estimate:
        """Mean of a paired difference of two columns of shares."""
        rows = self._rows[name] - self._rows[minus]
        value = float(self.mean(name) - self.mean(minus))
        if name == minus:
            return Estimate(0.0, 0.0, 0.0)
        if self.images < 2:
            return Estimate(value, None, None)
        if not (self._bounds.get(name) == self._bounds.get(minus) == SHARE):
            pair = self.pair(name).then(np.subtract, self.pair(minus))
            return self.estimated(pair, least=2)
        sums = self._summed(np.stack([rows, np.maximum(rows, 0), np.maximum(-rows, 0)], axis=1))
        means = self._left_out(sums)
        variance = intervals.jackknife_variance(means)
        gain, loss = sums[:, 1].sum() / len(rows), sums[:, 2].sum() / len(rows)
        low, high = intervals.difference_interval(
            (gain, float(variance[1])),
            (loss, float(variance[2])),
            float(variance[0]),
            differing=int((sums[:, 1] + sums[:, 2] > 0).sum()),
            groups=self.images,
            examples=len(rows),
            level=self._level,
        )
        return Estimate(value, low, high)

    def _alone(self, value: float, least: int) -> Estimate | None:
        """The value without an interval, where it is undefined or there are too few images."""
        if not np.isfinite(value):
            return Estimate(None, None, None)
        return Estimate(value, None, None) if self.images < max(least, 2) else None

    def _variance(self, pair: Pair) -> float:
        left_out = np.asarray(pair.left_out)
        if len(left_out) > 1:
            return float(intervals.jackknife_variance(left_out))
        return float(np.var(pair.draws))

    def _most(self, name: str) -> float:
        """Examples count at most once each where they are right or wrong."""
        return float(self._sizes.sum()) if self._bounds[name] == SHARE else np.inf

    def _summed(self, values: Floats) -> Array:
        """Sums (G, m) over the examples of each image."""
        block = values[:, None] if values.ndim == 1 else values
        return np.asarray(np.add.reduceat(block[self._order], self._starts, axis=0))

    def _left_out(self, sums: Array) -> Array:
        """Means (G, m) with one image left out, from sums (G, m)."""
        return (sums.sum(axis=0) - sums) / (self._sizes.sum() - self._sizes)[:, None]

    def _resample(self) -> dict[str, Array]:
        sums = np.concatenate(list(self._sums.values()), axis=1)
        means = draw_means(sums, self._sizes, draws=self._draws, seed=self._seed)
        samples, begin = {}, 0
        for name, block in self._sums.items():
            part = means[:, begin : begin + block.shape[1]]
            samples[name] = part[:, 0] if self._means[name].ndim == 0 else part
            begin += block.shape[1]
        return samples
