"""Named per-example columns that share one cluster bootstrap, so that differences are paired.

Notation for shapes: n test examples, m columns of one name, B draws.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from router.analysis.bootstrap import Estimate, cluster_means, estimate
from router.analysis.metrics import Array, Floats


class Columns:
    """Collects columns, then answers with means and with statistics of means.

    Args:
        groups: (n,) group of each example.
        draws: bootstrap draws B.
        seed: of the draws.
        level: of the intervals.
    """

    def __init__(
        self, groups: np.ndarray, *, draws: int = 1000, seed: int = 0, level: float = 0.95
    ) -> None:
        self._groups = groups
        self._draws = draws
        self._seed = seed
        self._level = level
        self._columns: dict[str, Array] = {}
        self._samples: dict[str, Array] | None = None

    def add(self, name: str, values: Floats) -> None:
        """Add a column (n,) or a block of columns (n, m) under a new name."""
        if name in self._columns:
            raise ValueError(f"The column {name!r} was added before.")
        self._columns[name] = np.asarray(values, dtype=np.float64)
        self._samples = None

    def __contains__(self, name: str) -> bool:
        """Whether a column of that name was added."""
        return name in self._columns

    def mean(self, name: str) -> Array:
        """Mean of the column, shape () or (m,)."""
        mean: Array = np.asarray(self._columns[name].mean(axis=0))
        return mean

    def samples(self, name: str) -> Array:
        """Means of the column in the draws, shape (B,) or (B, m)."""
        if self._samples is None:
            self._samples = self._resample()
        return self._samples[name]

    def estimate(self, name: str, *, minus: str | None = None) -> Estimate:
        """Mean of a single column, or its paired difference to another, with its interval."""
        if minus is None:
            return self.statistic(lambda x: x, name)
        return self.statistic(lambda x, y: x - y, name, minus)

    def statistic(self, function: Callable[..., Array], *names: str) -> Estimate:
        """`function` of the columns' means, with the interval of its values in the draws.

        Args:
            function: vectorised: gets one array per name, of shape () for the value and (B,)
                for the draws (blocks: (m,) and (B, m)); returns () and (B,).
            names: columns.
        """
        value = float(function(*(self.mean(name) for name in names)))
        samples = function(*(self.samples(name) for name in names))
        return estimate(value, np.asarray(samples), level=self._level)

    def statistic_of_each(self, function: Callable[..., float], *names: str) -> Estimate:
        """As `statistic`, for a function of single draws: gets () and (m,) arrays."""
        value = function(*(self.mean(name) for name in names))
        parts = [self.samples(name) for name in names]
        if not np.isfinite(parts[0]).all():  # a single group: nothing was drawn
            return estimate(value, np.full(self._draws, np.nan), level=self._level)
        samples = np.array([function(*draw) for draw in zip(*parts, strict=True)])
        return estimate(value, samples, level=self._level)

    def bands(self, name: str) -> tuple[list[float | None], list[float | None]]:
        """Lower and upper ends of the intervals of a block (n, m), m numbers each."""
        means, samples = self.mean(name), self.samples(name)
        ends = [
            estimate(float(means[i]), samples[:, i], level=self._level) for i in range(len(means))
        ]
        return [end.low for end in ends], [end.high for end in ends]

    def _resample(self) -> dict[str, Array]:
        blocks = {n: c[:, None] if c.ndim == 1 else c for n, c in self._columns.items()}
        stacked = np.concatenate(list(blocks.values()), axis=1)
        means = cluster_means(stacked, self._groups, draws=self._draws, seed=self._seed)
        samples, begin = {}, 0
        for name, block in blocks.items():
            part = means[:, begin : begin + block.shape[1]]
            samples[name] = part[:, 0] if self._columns[name].ndim == 1 else part
            begin += block.shape[1]
        return samples
