"""Named per-example columns that share one cluster bootstrap, so that differences are paired.

Notation for shapes: n test examples, m columns of one name, B draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from router.analysis.bootstrap import Estimate, draw_means, estimate
from router.analysis.metrics import Array, Floats


@dataclass(frozen=True)
class Pair:
    """Something computed from the means, and the same from the means of every draw.

    Attributes:
        value: of the data, such as an array () or (m,), or what was made of it.
        draws: of the draws, with a leading axis (B,).
    """

    value: Any
    draws: Any

    def then(self, function: Callable[..., Any], *others: Pair) -> Pair:
        """`function` of this and others, once for the data and once for all draws together."""
        return Pair(
            function(self.value, *(other.value for other in others)),
            function(self.draws, *(other.draws for other in others)),
        )


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
        _, member, sizes = np.unique(
            np.asarray(groups, dtype=str), return_inverse=True, return_counts=True
        )
        self._order = np.argsort(member.reshape(-1), kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._sizes = sizes.astype(np.float64)
        self._draws = draws
        self._seed = seed
        self._level = level
        self._means: dict[str, Array] = {}
        self._sums: dict[str, Array] = {}
        self._samples: dict[str, Array] | None = None

    def add(self, name: str, values: Floats) -> None:
        """Add a column (n,) or a block of columns (n, m) under a new name."""
        if name in self._means:
            raise ValueError(f"The column {name!r} was added before.")
        values = np.asarray(values, dtype=np.float64)
        self._means[name] = np.asarray(values.mean(axis=0))
        block = values[:, None] if values.ndim == 1 else values
        self._sums[name] = np.add.reduceat(block[self._order], self._starts, axis=0)
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

    def pair(self, name: str) -> Pair:
        """The means of a column, of the data and of the draws, to compute with."""
        return Pair(self.mean(name), self.samples(name))

    def estimated(self, pair: Pair) -> Estimate:
        """A number () with the interval of its draws (B,)."""
        return estimate(float(pair.value), np.asarray(pair.draws), level=self._level)

    def bands(self, name: str) -> tuple[list[float | None], list[float | None]]:
        """Lower and upper ends of the intervals of a block (n, m), m numbers each."""
        means, samples = self.mean(name), self.samples(name)
        ends = [
            estimate(float(means[i]), samples[:, i], level=self._level) for i in range(len(means))
        ]
        return [end.low for end in ends], [end.high for end in ends]

    def _resample(self) -> dict[str, Array]:
        sums = np.concatenate(list(self._sums.values()), axis=1)
        means = draw_means(sums, self._sizes, draws=self._draws, seed=self._seed)
        samples, begin = {}, 0
        for name, block in self._sums.items():
            part = means[:, begin : begin + block.shape[1]]
            samples[name] = part[:, 0] if self._means[name].ndim == 0 else part
            begin += block.shape[1]
        return samples
